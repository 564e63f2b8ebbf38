//! LOOKUP against FORGET in every order, alone and below a directory.

use std::fs::File;
use std::os::fd::AsFd;

use virtiofs_testkit::orders::{finds, holds, thread};

use super::super::*;
use crate::inode::key::Identity;
use crate::mounts::Mounts;
use crate::sys;

/// What inodes are entered with; made once, because no step of it is of interest.
#[derive(Clone)]
struct Origin {
    mount: Arc<Mount>,
    keys: [Key; 3],
}

const ROOT: usize = 0;
const DIRECTORY: usize = 1;
const FILE: usize = 2;

impl Origin {
    fn new() -> Self {
        let any = File::open("/").unwrap();
        let stat = sys::stat_fd(&any).unwrap();
        let mount = Mounts::default().get(&stat, any.as_fd()).unwrap();
        let keys = [1, 2, 3].map(|number| {
            let mut stat = stat;
            stat.stx_ino = number;
            Key::new(&stat, Identity::Pinned)
        });
        Self { mount, keys }
    }

    /// A table with a root.
    fn table(&self) -> Arc<Table> {
        let table = Arc::new(Table::new(None));
        assert_eq!(self.lookup(&table, ROOT).number, NodeId::ROOT.raw());
        table
    }

    /// Counts an inode as LOOKUP does: as one that is known, or else as a new one.
    fn lookup(&self, table: &Table, which: usize) -> Node {
        let key = self.keys[which];
        table
            .count_known(&key)
            .map(|node| Arc::clone(&*node))
            .unwrap_or_else(|| {
                table
                    .enter(Newcomer {
                        key,
                        kind: FileType::Directory,
                        mount: Arc::clone(&self.mount),
                        descriptor: None,
                    })
                    .unwrap()
            })
    }

    /// Asserts that the root alone is left, and no trace of others.
    fn assert_empty(&self, table: &Table) {
        assert_eq!(table.count(), 1);
        for key in &self.keys[DIRECTORY..] {
            assert!(table.keys.shard(key).find(Some).is_none(), "a key is left");
        }
        let root = table.rows.get(NodeId::ROOT.raw()).unwrap();
        assert_eq!(root.value.state().children, 0);
        assert!(
            table
                .find(|inode| inode.state().key != self.keys[ROOT])
                .is_none()
        );
    }
}

fn id(node: &Node) -> NodeId {
    NodeId::from_raw(node.number)
}

/// One queue forgets an inode, another looks it up.
fn looked_up_while_forgotten(origin: &Origin) {
    let table = origin.table();
    let first = id(&origin.lookup(&table, FILE));
    let forgetting = thread::spawn({
        let table = Arc::clone(&table);
        move || table.forget(first, 1).is_some()
    });
    let again = id(&origin.lookup(&table, FILE));
    assert!(table.get(again).is_ok(), "counted, and not there");
    let left = forgetting.join().unwrap();
    assert_eq!(
        left,
        first != again,
        "the same inode while anything counts on it"
    );
    assert!(table.get(again).is_ok(), "counted, and not there any more");
    assert!(table.forget(again, 1).is_some());
    assert!(table.get(again).is_err());
    origin.assert_empty(&table);
}

/// Two queues look up what nobody knows.
fn looked_up_by_two(origin: &Origin) {
    let table = origin.table();
    let other = thread::spawn({
        let (table, origin) = (Arc::clone(&table), origin.clone());
        move || id(&origin.lookup(&table, FILE))
    });
    let mine = id(&origin.lookup(&table, FILE));
    assert!(table.get(mine).is_ok());
    assert_eq!(other.join().unwrap(), mine);
    assert_eq!(table.count(), 2);
    assert!(table.forget(mine, 1).is_none(), "one lookup is left");
    assert!(table.forget(mine, 1).is_some());
    origin.assert_empty(&table);
}

/// A directory is forgotten while a file is looked up in it, and anchored there.
fn anchored_while_its_parent_is_forgotten(origin: &Origin) {
    let table = origin.table();
    let root = table.rows.get(NodeId::ROOT.raw()).unwrap();
    let directory = origin.lookup(&table, DIRECTORY);
    table.anchor(&directory, &root, c"directory");
    let forgetting = thread::spawn({
        let (table, directory) = (Arc::clone(&table), id(&directory));
        move || drop(table.forget(directory, 1))
    });
    let file = origin.lookup(&table, FILE);
    table.anchor(&file, &directory, c"file");
    let hangs_on = file
        .value
        .state()
        .anchor
        .as_ref()
        .map(|anchor| anchor.parent);
    if let Some(parent) = hangs_on {
        assert!(
            table.get(parent).is_ok(),
            "a name in a directory that is gone"
        );
    }
    forgetting.join().unwrap();
    assert_eq!(table.get(id(&directory)).is_ok(), hangs_on.is_some());
    assert!(table.forget(id(&file), 1).is_some());
    assert!(
        table.get(id(&directory)).is_err(),
        "its last child let it go"
    );
    for (parent, name) in [(id(&directory), c"file"), (NodeId::ROOT, c"directory")] {
        assert!(
            table.named(parent, name).find(Some).is_none(),
            "{name:?} is left"
        );
    }
    origin.assert_empty(&table);
}

/// An inode that changes its identity under its own descriptor is forgotten meanwhile.
fn rekeyed_while_forgotten(origin: &Origin) {
    let table = origin.table();
    let file = origin.lookup(&table, FILE);
    let forgetting = thread::spawn({
        let (table, file) = (Arc::clone(&table), id(&file));
        move || assert!(table.forget(file, 1).is_some())
    });
    table.rekey(&file, origin.keys[DIRECTORY]);
    forgetting.join().unwrap();
    origin.assert_empty(&table);
}

fn of_every_origin(model: fn(&Origin)) -> impl Fn() + Send + Sync + 'static {
    let origin = Origin::new();
    move || model(&origin)
}

#[test]
fn a_lookup_that_was_counted_keeps_its_inode_from_any_forget() {
    holds(of_every_origin(looked_up_while_forgotten));
    finds(
        "counts on what is gone",
        of_every_origin(looked_up_while_forgotten),
    );
}

#[test]
fn two_lookups_of_a_new_inode_make_one() {
    holds(of_every_origin(looked_up_by_two));
    finds(
        "enters without another look",
        of_every_origin(looked_up_by_two),
    );
}

#[test]
fn a_directory_stays_for_as_long_as_a_name_hangs_on_it() {
    holds(of_every_origin(anchored_while_its_parent_is_forgotten));
    finds(
        "hangs names on what is gone",
        of_every_origin(anchored_while_its_parent_is_forgotten),
    );
}

#[test]
fn an_inode_that_is_forgotten_leaves_no_key_old_or_new() {
    holds(of_every_origin(rekeyed_while_forgotten));
    finds(
        "enters what is gone by its new key",
        of_every_origin(rekeyed_while_forgotten),
    );
}
