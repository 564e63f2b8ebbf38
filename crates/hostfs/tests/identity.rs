//! One inode is one node, whatever its numbers say, and two are two.

mod kit;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kit::listing::Kind;
use kit::store::{Store, must, unmount_idle};
use kit::{Guest, READ, READ_WRITE, ROOT};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use virtiofs_protocol::{AttrFlags, Entry, Errno, InitFlags, NodeId};

const BIRTH: rustix::fs::StatxFlags = rustix::fs::StatxFlags::BTIME;

fn announced(entry: &Entry) -> bool {
    entry.attributes.flags.contains(AttrFlags::SUBMOUNT)
}

/// Number and birth time, in which two snapshots of a file agree.
fn number_and_birth(path: &Path) -> Option<(u64, i64, u32)> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let mask = rustix::fs::StatxFlags::INO | BIRTH;
    let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, mask).ok()?;
    Some((stat.stx_ino, stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

fn number(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| metadata.ino())
}

#[test]
fn snapshots_of_a_file_are_different_files() {
    let Some(store) = Store::btrfs() else { return };
    let path = |name: &str| store.path().join(name).to_str().map(str::to_owned).unwrap();
    must("btrfs", &["-q", "subvolume", "create", &path("first")]);
    std::fs::write(path("first/file"), b"old").unwrap();
    must("sync", &[]);
    for snapshot in ["second", "third"] {
        must(
            "btrfs",
            &[
                "-q",
                "subvolume",
                "snapshot",
                &path("first"),
                &path(snapshot),
            ],
        );
    }
    std::fs::write(path("first/file"), b"1").unwrap();
    std::fs::write(path("second/file"), b"22").unwrap();
    let same = |name: &str| number_and_birth(Path::new(&path(name)));
    assert_eq!(
        same("first/file"),
        same("second/file"),
        "alike in all but the device"
    );
    let guest = Guest::forgetful(store.path());
    let mut nodes: Vec<(NodeId, &[u8])> = Vec::new();
    for (name, want) in [("first", &b"1"[..]), ("second", b"22"), ("third", b"old")] {
        let directory = guest.lookup(ROOT, name).unwrap();
        assert!(
            announced(&directory),
            "a subvolume has inode numbers of its own"
        );
        let looked_up = guest.lookup(directory.node, "file").unwrap().node;
        let listed = guest.list(directory.node, 4096, Kind::LookedUp).unwrap();
        assert_eq!(listed[0].node, Some(looked_up));
        nodes.push((looked_up, want));
    }
    assert_eq!(guest.cool(), 0);
    for (node, want) in &nodes {
        assert_eq!(guest.contents(*node).unwrap(), *want);
    }
    assert!(nodes[0].0 != nodes[1].0 && nodes[1].0 != nodes[2].0 && nodes[0].0 != nodes[2].0);
}

#[test]
fn a_copy_up_on_the_host_changes_nothing_for_who_knows_the_file() {
    let fill = |lower: &Path| {
        for name in ["open", "known", "first"] {
            std::fs::write(lower.join(name), b"lower").unwrap();
            // A copy-up takes one name of several and makes it a file of its own.
            std::fs::hard_link(lower.join(name), lower.join(format!("{name}-link"))).unwrap();
        }
    };
    let Some(store) = Store::overlay(fill) else {
        return;
    };
    let guest = Guest::on(store.path());
    let node = |name: &str| guest.lookup(ROOT, name).unwrap().node;
    let (open, known, first) = (node("open"), node("known"), node("first"));
    let file = guest.open(open, READ).unwrap();
    for name in ["open", "known", "first"] {
        let path = store.path().join(name);
        let before = number(&path);
        let mut append = std::fs::File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut append, b"+upper").unwrap();
        assert_ne!(number(&path), before, "it has become another inode");
    }
    // By attributes first, by name first, and through what was opened before.
    assert_eq!(guest.getattr(known).unwrap().size_bytes, 11);
    assert_eq!(node("known"), known);
    assert_eq!(node("first"), first);
    assert_eq!(guest.getattr(first).unwrap().size_bytes, 11);
    assert_eq!(node("open"), open);
    // What was opened before shows one or the other, as the host's kernel has it.
    assert_eq!(guest.read(open, file, 0, 5).unwrap(), b"lower");
    for node in [open, known, first] {
        assert_eq!(guest.contents(node).unwrap(), b"lower+upper");
    }
    assert_eq!(guest.fs.known_inodes(), 4);
}

#[test]
fn a_copy_up_by_the_guest_keeps_its_node() {
    let fill = |lower: &Path| std::fs::write(lower.join("file"), b"lower").unwrap();
    let Some(store) = Store::overlay(fill) else {
        return;
    };
    let guest = Guest::on(store.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let reading = guest.open(node, READ).unwrap();
    let writing = guest.open(node, READ_WRITE).unwrap();
    guest.write(node, writing, 0, b"UPPER").unwrap();
    assert_eq!(guest.lookup(ROOT, "file").unwrap().node, node);
    let listed = guest.list(ROOT, 4096, Kind::LookedUp).unwrap();
    assert_eq!(listed[0].node, Some(node));
    assert_eq!(guest.contents(node).unwrap(), b"UPPER");
    assert!(guest.read(node, reading, 0, 5).is_ok());
}

fn entry_of(guest: &Guest, name: &str) -> Entry {
    guest.lookup(ROOT, name).expect("a name that is there")
}

#[test]
fn where_another_mount_begins_the_guest_is_told() {
    let Some(store) = Store::tmpfs() else { return };
    let path = |name: &str| store.path().join(name);
    for name in ["mounted", "bound", "plain"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    std::fs::write(path("file"), b"").unwrap();
    std::fs::write(path("bound-file"), b"").unwrap();
    mount("tmpfs", path("mounted"), "tmpfs", MountFlags::empty(), None).unwrap();
    mount_bind(path("plain"), path("bound")).unwrap();
    mount_bind(path("file"), path("bound-file")).unwrap();
    std::fs::write(path("mounted/file"), b"").unwrap();
    let guest = Guest::on(store.path());
    for (name, want) in [
        ("mounted", true),
        ("bound", true),
        ("plain", false),
        ("file", false),
        // Only a directory can be a mount point in the guest.
        ("bound-file", false),
    ] {
        assert_eq!(announced(&entry_of(&guest, name)), want, "{name}");
    }
    let mounted = entry_of(&guest, "mounted").node;
    assert!(!announced(&guest.lookup(mounted, "file").unwrap()));
    // One directory by two mounts is two nodes: each belongs to a mount of the guest's.
    assert_ne!(
        entry_of(&guest, "bound").node,
        entry_of(&guest, "plain").node
    );
    let unaware = Guest::on(store.path()).without(InitFlags::SUBMOUNTS);
    assert!(!announced(&entry_of(&unaware, "mounted")));
    for name in ["mounted", "bound", "bound-file"] {
        unmount(path(name), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn what_is_mounted_in_place_of_another_is_another() {
    let Some(store) = Store::tmpfs() else { return };
    let inner = store.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let guest = Guest::forgetful(store.path());
    let mut before: Vec<NodeId> = Vec::new();
    for round in 0..5 {
        mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
        std::fs::write(inner.join("file"), round.to_string()).unwrap();
        let root = entry_of(&guest, "inner").node;
        let file = guest.lookup(root, "file").unwrap().node;
        assert_eq!(guest.contents(file).unwrap(), round.to_string().as_bytes());
        for old in &before {
            assert_eq!(guest.getattr(*old).map(drop), Err(Errno::STALE));
        }
        assert!(!before.contains(&root) && !before.contains(&file));
        before.extend([root, file]);
        assert_eq!(guest.cool(), 0);
        unmount_idle(&inner);
    }
}

/// A file system that gives an inode number to the next file at once.
fn reusing(store: &Store, guest: &Guest, mut know: impl FnMut(&Guest) -> NodeId) {
    let path = store.path().join("file");
    let (mut numbers, mut births) = (0, 0);
    for _ in 0..200 {
        std::fs::write(&path, b"old").expect("a store that can be written");
        let before = number_and_birth(&path);
        let old = know(guest);
        std::fs::remove_file(&path).expect("it was just made");
        std::fs::write(&path, b"new").expect("a store that can be written");
        let after = number_and_birth(&path);
        let same_number = before.map(|it| it.0) == after.map(|it| it.0);
        numbers += usize::from(same_number);
        births += usize::from(before == after);
        let new = entry_of(guest, "file");
        assert_ne!(new.node, old, "{before:?} was taken for {after:?}");
        if let Ok(attributes) = guest.getattr(old) {
            assert_eq!(attributes.nlink, 0, "not the new file's");
        }
        guest.forget(new.node, 1);
        guest.forget(old, u64::MAX);
        std::fs::remove_file(&path).expect("it was just made");
        guest.cool_a_little();
    }
    println!("{numbers} numbers and {births} births came again");
}

#[test]
fn a_reused_inode_number_is_another_file_even_within_one_tick_of_the_clock() {
    let Some(store) = Store::ext4() else { return };
    let guest = Guest::on(store.path());
    reusing(&store, &guest, |guest| entry_of(guest, "file").node);
    reusing(&store, &guest, |guest| {
        let listed = guest.list(ROOT, 4096, Kind::LookedUp).unwrap();
        let file = listed.iter().find(|entry| entry.name == b"file");
        file.and_then(|entry| entry.node).unwrap()
    });
}

/// Later than that a descriptor is not needed: the birth time tells.
#[test]
fn a_number_that_comes_back_to_an_inode_without_descriptor_is_another_file() {
    let Some(store) = Store::ext4() else { return };
    let path = store.path().join("file");
    let guest = Guest::forgetful(store.path());
    std::fs::write(&path, b"old").unwrap();
    let old = entry_of(&guest, "file").node;
    assert_eq!(guest.cool(), 0);
    let number = path.metadata().unwrap().ino();
    std::fs::remove_file(&path).unwrap();
    let mut tries = 0;
    loop {
        std::fs::write(&path, b"new").unwrap();
        if path.metadata().unwrap().ino() == number {
            break;
        }
        tries += 1;
        assert!(tries < 1000, "the number does not come back");
        std::fs::rename(&path, store.path().join(tries.to_string())).unwrap();
    }
    assert_eq!(guest.getattr(old).map(drop), Err(Errno::STALE));
    assert_eq!(guest.open(old, READ).map(drop), Err(Errno::STALE));
    assert_ne!(entry_of(&guest, "file").node, old);
}

/// What stands under a name that goes is held first, and looked at when it is used.
#[test]
fn what_is_held_when_a_name_goes_is_never_taken_for_another_file() {
    let Some(store) = Store::tmpfs() else { return };
    let place = |name: &str| store.path().join(name);
    for name in ["kept", "replaced", "linked"] {
        std::fs::write(place(name), name).unwrap();
    }
    std::fs::hard_link(place("linked"), place("other")).unwrap();
    let guest = Guest::forgetful(store.path());
    let node = |name: &str| guest.lookup(ROOT, name).unwrap().node;
    let (kept, replaced, linked) = (node("kept"), node("replaced"), node("linked"));
    assert_eq!(guest.cool(), 0, "nothing holds a descriptor");
    for name in ["replaced", "linked"] {
        std::fs::write(place("new"), b"another").unwrap();
        std::fs::rename(place("new"), place(name)).unwrap();
    }
    for name in ["kept", "replaced", "linked"] {
        guest.unlink(ROOT, name).unwrap();
        assert!(!place(name).exists());
    }
    assert_eq!(guest.fs.held_descriptors(), 4, "each and the root");
    assert_eq!(guest.getattr(kept).unwrap().nlink, 0);
    assert_eq!(guest.contents(kept).unwrap(), b"kept");
    assert_eq!(guest.getattr(replaced).map(drop), Err(Errno::STALE));
    assert_eq!(guest.open(linked, READ), Err(Errno::STALE));
    assert_eq!(guest.fs.held_descriptors(), 2);
    // It has another name, and is found by it.
    assert_eq!(guest.lookup(ROOT, "other").unwrap().node, linked);
    assert_eq!(guest.contents(linked).unwrap(), b"linked");
}
