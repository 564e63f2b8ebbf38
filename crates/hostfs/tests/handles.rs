//! Inodes that lost their names on the host while the guest knew them: found by file handles, where there are any.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kit;

use std::fs;
use std::path::Path;

use kit::handles::Kept;
use kit::listing::Kind;
use kit::{Guest, READ, READ_WRITE, ROOT};
use virtiofs_protocol::{Errno, NodeId};

/// A guest that lets go of descriptors at once, and the handles it was lent.
fn with_handles(share: &Path) -> (Guest, Kept) {
    let handles = Kept::below(share);
    let mut guest = Guest::forgetful(share);
    guest.fs = guest.fs.with_handles(handles.clone());
    (guest, handles)
}

fn looked_up(guest: &Guest, path: &str) -> NodeId {
    path.split('/').fold(ROOT, |parent, name| {
        guest.lookup(parent, name).unwrap().node
    })
}

/// What a user of the host may do to a file's name, and where the file is then, if anywhere.
type Change = (&'static str, fn(&Path), Option<&'static str>);

const CHANGES: [Change; 5] = [
    (
        "renamed",
        |share| fs::rename(share.join("d/file"), share.join("d/other")).unwrap(),
        Some("d/other"),
    ),
    (
        "moved to another directory",
        |share| fs::rename(share.join("d/file"), share.join("e/file")).unwrap(),
        Some("e/file"),
    ),
    (
        "its directory renamed",
        |share| fs::rename(share.join("d"), share.join("e/d")).unwrap(),
        Some("e/d/file"),
    ),
    (
        "removed, with another name elsewhere",
        |share| {
            fs::hard_link(share.join("d/file"), share.join("e/link")).unwrap();
            fs::remove_file(share.join("d/file")).unwrap();
        },
        Some("e/link"),
    ),
    (
        "removed for good",
        |share| fs::remove_file(share.join("d/file")).unwrap(),
        None,
    ),
];

/// A share with a file in one of two directories, none of them born just now.
fn share() -> tempfile::TempDir {
    let share = tempfile::tempdir().unwrap();
    for directory in ["d", "e"] {
        fs::create_dir(share.path().join(directory)).unwrap();
    }
    fs::write(share.path().join("d/file"), "contents").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(40));
    share
}

#[test]
fn what_the_host_renames_is_found_with_handles_and_stale_without() {
    for (what, change, now) in CHANGES {
        let share = share();
        let (with, without) = (with_handles(share.path()).0, Guest::forgetful(share.path()));
        let (found, lost) = (looked_up(&with, "d/file"), looked_up(&without, "d/file"));
        assert_eq!((with.cool(), without.cool()), (0, 0), "{what}");
        change(share.path());
        let stale = Err(Errno::STALE);
        if what != "its directory renamed" {
            assert_eq!(without.getattr(lost).map(drop), stale, "{what}");
        }
        let Some(now) = now else {
            assert_eq!(with.getattr(found).map(drop), stale, "{what}");
            continue;
        };
        assert_eq!(with.contents(found).unwrap(), b"contents", "{what}");
        let file = with.open(found, READ_WRITE).unwrap();
        with.write(found, file, 0, b"CONTENTS").unwrap();
        with.release(found, file).unwrap();
        assert_eq!(fs::read(share.path().join(now)).unwrap(), b"CONTENTS");
        // And again, when its descriptor has gone once more.
        assert_eq!(with.cool(), 0, "{what}");
        assert!(with.getattr(found).is_ok(), "{what}");
    }
}

/// Listed, and never used: there was no descriptor that could have closed, so there is no handle.
#[test]
fn what_was_only_listed_is_found_below_a_directory_that_has_a_handle() {
    let share = share();
    let (guest, handles) = with_handles(share.path());
    let directory = looked_up(&guest, "d");
    let open = guest.opendir(directory).unwrap();
    let listed = guest
        .piece((directory, open), 0, 4096, Kind::LookedUp)
        .unwrap();
    let file = listed.iter().find(|entry| entry.name == b"file").unwrap();
    let file = file.node.unwrap();
    guest.release_directory(directory, open);
    assert_eq!(guest.cool(), 0);
    assert_eq!(handles.made(), 1, "the directory's alone");
    fs::rename(share.path().join("d"), share.path().join("e/d")).unwrap();
    assert_eq!(guest.contents(file).unwrap(), b"contents");
}

#[test]
fn handles_are_made_once_and_opened_only_where_names_do_not_help() {
    let share = share();
    let (guest, handles) = with_handles(share.path());
    let file = looked_up(&guest, "d/file");
    for _ in 0..3 {
        guest.contents(file).unwrap();
        looked_up(&guest, "d/file");
        assert_eq!(guest.cool(), 0);
    }
    assert_eq!(
        (handles.made(), handles.opened()),
        (2, 0),
        "file and directory"
    );
    fs::remove_file(share.path().join("d/file")).unwrap();
    for _ in 0..3 {
        assert_eq!(guest.getattr(file).map(drop), Err(Errno::STALE));
    }
    assert_eq!(handles.opened(), 1, "what is gone is not asked for again");
}

#[test]
fn another_file_is_never_found_by_the_handle_of_one() {
    let share = share();
    // A maker that looks elsewhere, as one that is a moment late would.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("d")).unwrap();
    fs::write(elsewhere.path().join("d/file"), "another").unwrap();
    let handles = Kept::below(elsewhere.path());
    let mut guest = Guest::forgetful(share.path());
    guest.fs = guest.fs.with_handles(handles.clone());
    let file = looked_up(&guest, "d/file");
    assert_eq!(guest.cool(), 0);
    fs::rename(share.path().join("d/file"), share.path().join("moved")).unwrap();
    assert_eq!(guest.open(file, READ).map(drop), Err(Errno::STALE));
    assert!(handles.opened() > 0);
}

#[test]
fn when_handles_stop_working_names_are_what_is_left() {
    let share = share();
    let (guest, handles) = with_handles(share.path());
    let (file, directory) = (looked_up(&guest, "d/file"), looked_up(&guest, "e"));
    assert_eq!(guest.cool(), 0);
    handles.fail();
    assert_eq!(guest.contents(file).unwrap(), b"contents");
    assert_eq!(guest.cool(), 0);
    fs::rename(share.path().join("d/file"), share.path().join("moved")).unwrap();
    assert_eq!(guest.getattr(file).map(drop), Err(Errno::STALE));
    assert!(guest.getattr(directory).is_ok());
    // What is held and has lost its name is not let go any more.
    looked_up(&guest, "e");
    let held = guest.lookup(ROOT, "moved").unwrap().node;
    assert_eq!(held, file, "and a new name finds it again");
}
