//! Lies about what a name is: types that change, numbers that are used twice.

use anyhow::{Result, ensure};
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{self, opcode};
use virtiofs_testkit::fuse::errno;
use virtiofs_testkit::slowfs::lies::{self, Caching, Question, Told};

use crate::rig::{O_RDWR, PAGE, Rig, well_formed};

/// `S_IFMT` of what a name is found to be, one after the other, and the node that the store says it is.
#[test]
fn what_changes_its_type_between_two_calls_is_never_opened_as_another() -> Result<()> {
    const TYPES: [u32; 7] = [
        0o100_644, 0o040_755, 0o100_644, 0o010_644, 0o120_777, 0o020_666, 0o140_644,
    ];
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    for same_node in [true, false] {
        for (before, after) in TYPES
            .iter()
            .flat_map(|one| TYPES.map(|other| (*one, other)))
        {
            let generation = u64::from(!same_node);
            let attr = |mode| abi::Attr {
                mode,
                ino: 50,
                ..lies::attributes(lies::FILE)
            };
            rig.fs.lie(move |question| match question.opcode {
                opcode::LOOKUP if question.nth == 1 => {
                    Told::Bytes(lies::entry_out(50, 0, attr(before)))
                }
                opcode::LOOKUP => Told::Bytes(lies::entry_out(50, generation, attr(after))),
                opcode::GETATTR if question.node == 50 && question.nth == 1 => {
                    Told::Bytes(lies::attr_out(attr(before)))
                }
                opcode::GETATTR if question.node == 50 => Told::Bytes(lies::attr_out(attr(after))),
                _ => Told::Honestly,
            });
            let root = rig.root;
            let mut known = Vec::new();
            for _ in 0..3 {
                let found = well_formed(rig.client().lookup(root, "changing"))?;
                known.extend(found.map(|entry| entry.nodeid));
                for node in known.clone() {
                    let _ = well_formed(rig.client().getattr(node))?;
                    // A FIFO that nobody writes to would hold whoever opens it.
                    let opened = well_formed(rig.client().open(node, 0))?;
                    if let Ok(opened) = opened {
                        let _ = well_formed(rig.client().read(node, opened.fh, 0, PAGE))?;
                        rig.client().release(node, opened.fh)?;
                    }
                    if let Ok(opened) = well_formed(rig.client().opendir(node))? {
                        let _ = well_formed(rig.client().readdir(node, opened.fh, 0))?;
                        rig.client().releasedir(node, opened.fh)?;
                    }
                    let _ = well_formed(rig.client().readlink(node))?;
                }
            }
            for node in known {
                rig.session.hiprio.forget(node, 1)?;
            }
        }
    }
    rig.finish_unharmed()
}

/// Every name is this node, which has these attributes.
fn finds(question: &Question<'_>, node: u64, attr: abi::Attr) -> Told {
    match question.opcode {
        opcode::LOOKUP => Told::Bytes(lies::entry_out(node, 0, attr)),
        opcode::GETATTR if question.node == node => Told::Bytes(lies::attr_out(attr)),
        _ => Told::Honestly,
    }
}

/// A server that has replaced a file by another under the same number: the guest that looks it up again has that one.
///
/// Each row: what the host says of the file that is gone, as for NFS and as for FUSE.
#[test]
fn a_file_that_a_server_replaced_under_its_number_is_found_anew() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let root = rig.root;
    for gone in [Errno::STALE, Errno::IO] {
        // Two nodes of the store, one number.
        let attr = abi::Attr {
            ino: 50,
            ..lies::attributes(lies::FILE)
        };
        rig.fs.lie(move |question| finds(question, 50, attr));
        let before = rig.client().lookup(root, "replaced")?.nodeid;
        rig.client().getattr(before)?;
        rig.fs.lie(move |question| match question.node {
            50 => Told::Error(gone),
            _ => finds(question, 51, attr),
        });
        let told = errno(rig.client().getattr(before));
        ensure!(told == Some(gone), "{told:?}");
        let after = rig.client().lookup(root, "replaced")?.nodeid;
        ensure!(after != before, "{gone}: the old one once more");
        ensure!(rig.client().lookup(root, "replaced")?.nodeid == after);
        let fh = rig.client().open(after, O_RDWR)?.fh;
        ensure!(rig.client().read(after, fh, 0, 10)? == [b'h'; 10]);
        rig.client().release(after, fh)?;
        for (node, lookups) in [(before, 1), (after, 2)] {
            rig.session.hiprio.forget(node, lookups)?;
        }
    }
    rig.finish_unharmed()
}

/// As where a file system names its files by path, and another user makes a directory of a file.
#[test]
fn what_is_of_another_type_by_now_is_another_node() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let root = rig.root;
    let attr = |mode| abi::Attr {
        mode,
        ino: 50,
        ..lies::attributes(lies::FILE)
    };
    let mut found = Vec::new();
    for mode in [0o100_644, 0o040_755] {
        rig.fs.lie(move |question| finds(question, 50, attr(mode)));
        found.push(rig.client().lookup(root, "changing")?);
    }
    let (file, directory) = (found[0], found[1]);
    ensure!((file.attr.mode, directory.attr.mode) == (0o100_644, 0o040_755));
    ensure!(file.nodeid != directory.nodeid, "one node of two types");
    let listed = rig.client().list(directory.nodeid)?;
    ensure!(
        listed.iter().any(|entry| entry.name == b"file"),
        "{listed:?}"
    );
    let opened = errno(rig.client().open(directory.nodeid, 0));
    ensure!(opened == Some(Errno::ISDIR), "{opened:?}");
    rig.finish_unharmed()
}
