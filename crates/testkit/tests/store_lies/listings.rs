//! Lies about directories: entries, names, positions, ends.

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{self, opcode};
use virtiofs_testkit::fuse::{DirEntry, Failure, Request};
use virtiofs_testkit::slowfs::lies::{self, Caching, Question, Told};

use crate::rig::{Rig, well_formed};

/// Type of directory entries (man 3 readdir).
const DT_REG: u32 = 8;

/// What a listing is made of: inode number, position, type, name.
type Lie = &'static [(u64, u64, u32, &'static [u8])];

/// Listings that no store should give. None ends: each is given again and again.
const LISTINGS: [(&str, Lie); 7] = [
    ("no dots", &[(lies::FILE, 1, DT_REG, b"file")]),
    (
        "types that do not exist",
        &[
            (1, 1, 0, b"file"),
            (1, 2, 15, b"directory"),
            (1, 3, 255, b"x"),
            (1, 4, u32::MAX, b"y"),
        ],
    ),
    (
        "one name three times",
        &[
            (lies::FILE, 1, DT_REG, b"file"),
            (lies::FILE, 2, DT_REG, b"file"),
            (99, 3, 4, b"file"),
        ],
    ),
    (
        "positions that go back",
        &[(1, 300, 8, b"file"), (1, 200, 8, b"x"), (1, 100, 8, b"y")],
    ),
    (
        "positions that stand",
        &[(1, 7, 8, b"file"), (1, 7, 8, b"x"), (1, 7, 8, b"y")],
    ),
    (
        "positions at the ends",
        &[
            (1, u64::MAX, 8, b"file"),
            (1, 0, 8, b"x"),
            (1, 1 << 63, 8, b"y"),
        ],
    ),
    ("numbers of others", &[(77, 1, 8, b"file"), (0, 2, 8, b"x")]),
];

/// A listing without end of two names of which nothing is there; each stands so far behind the next position.
fn endless(question: &Question<'_>, names: [(u64, &[u8]); 2]) -> Told {
    match question.opcode {
        opcode::READDIR => {
            let read: abi::ReadIn = question.argument().unwrap_or_default();
            let next = read.offset.wrapping_add(1);
            Told::Bytes(lies::listing(
                &names.map(|(behind, name)| (9, next.wrapping_add(behind), DT_REG, name)),
            ))
        }
        opcode::LOOKUP => Told::Error(Errno::NOENT),
        _ => Told::Honestly,
    }
}

/// Some pieces of a listing, each from where the one before ended.
fn pieces(rig: &mut Rig, plus: bool) -> Result<Vec<Result<Vec<DirEntry>, Errno>>> {
    let root = rig.root;
    let fh = rig.client().opendir(root)?.fh;
    let (mut all, mut at) = (Vec::new(), 0);
    for _ in 0..5 {
        let piece = if plus {
            rig.client().readdirplus(root, fh, at)
        } else {
            rig.client().readdir(root, fh, at)
        };
        let piece = well_formed(piece)?;
        if let Some(last) = piece.iter().flatten().last() {
            at = last.dirent.off;
        }
        all.push(piece);
    }
    rig.client().releasedir(root, fh)?;
    Ok(all)
}

#[test]
fn a_listing_that_makes_no_sense_is_passed_on_piece_by_piece() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    for (what, listing) in LISTINGS {
        for plus in [false, true] {
            rig.lie(opcode::READDIR, move |_| {
                Told::Bytes(lies::listing(listing))
            });
            let pieces = pieces(&mut rig, plus).context(what)?;
            let entries: Vec<&DirEntry> = pieces.iter().flatten().flatten().collect();
            ensure!(!entries.is_empty(), "{what}: nothing");
            for entry in &entries {
                let known = listing.iter().any(|(ino, off, _, name)| {
                    (entry.dirent.ino, entry.dirent.off, &*entry.name) == (*ino, *off, *name)
                });
                ensure!(known, "{what}: {entry:?}");
                // Its number is what LOOKUP says, whatever the listing does.
                let looked_up = entry.entry.filter(|looked_up| looked_up.nodeid != 0);
                let honest = lies::NAMES
                    .iter()
                    .find(|(name, _)| name.as_bytes() == entry.name);
                if let (Some(looked_up), Some((_, number))) = (looked_up, honest) {
                    ensure!(looked_up.attr.ino == *number, "{what}: {entry:?}");
                }
            }
        }
    }
    rig.finish_unharmed()
}

/// Each row: a name, and whether it may be listed.
#[test]
fn a_name_that_is_none_is_not_listed() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let names: [(&[u8], bool); 7] = [
        (&[b'n'; 255], true),
        (&[b'n'; 256], false),
        (&[b'n'; 1000], false),
        (b"", false),
        (b"a/b", false),
        (b"/", false),
        (b"a\0b", false),
    ];
    for (name, fits) in names {
        for plus in [false, true] {
            rig.lie(opcode::READDIR, move |question| {
                let read: abi::ReadIn = question.argument().unwrap_or_default();
                let entry = if read.offset == 0 { name } else { b"last" };
                if read.offset >= 2 {
                    return Told::Bytes(Vec::new());
                }
                Told::Bytes(lies::listing(&[(9, read.offset + 1, DT_REG, entry)]))
            });
            let pieces = pieces(&mut rig, plus)?;
            let entries: Vec<&DirEntry> = pieces.iter().flatten().flatten().collect();
            let longest = entries.iter().map(|entry| entry.name.len()).max();
            ensure!(longest.unwrap_or(0) <= 255, "{} bytes", name.len());
            let clean = |entry: &&DirEntry| !entry.name.contains(&b'/') && !entry.name.is_empty();
            ensure!(entries.iter().all(clean), "{name:?}: {entries:?}");
            // With attributes, what is not there is left out.
            let listed = entries.iter().any(|entry| entry.name == name);
            ensure!(plus || listed == fits, "{} bytes: {entries:?}", name.len());
        }
    }
    rig.finish_unharmed()
}

/// Every entry is gone when it is looked up, and there are always more.
#[test]
fn a_listing_without_end_of_which_nothing_is_there_is_answered() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    rig.fs
        .lie(|question| endless(question, [(0, b"gone"), (0, b"gone")]));
    for piece in pieces(&mut rig, true)? {
        ensure!(!piece?.is_empty(), "nothing is the end, which there is not");
    }
    rig.finish_unharmed()
}

/// Whatever its directory's names are read for ends when nobody waits for it any more.
#[test]
fn a_search_in_a_listing_without_end_is_interrupted() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &["--casefold=unicode"])? else {
        return Ok(());
    };
    rig.fs
        .lie(|question| endless(question, [(0, b"other"), (1, b"name")]));
    let root = rig.root;
    let unique = rig.client().start(&Request::lookup(root, b"wanted"))?;
    rig.client().publish();
    while rig.fs.asked(opcode::READDIR) < 10 {
        rig.fs.is_serving()?;
        std::thread::yield_now();
    }
    rig.session.hiprio.send(&Request::interrupt(unique))?;
    let answer = rig.client().finish()?;
    let told = rig.client().check(&answer).err().and_then(Failure::errno);
    ensure!(
        answer.unique == unique && told == Some(Errno::INTR),
        "{told:?}"
    );
    rig.finish_unharmed()
}
