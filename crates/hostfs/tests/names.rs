//! Names come and go, in the guest and on the host: what the guest knows stays what it is.

mod kit;

use std::os::unix::fs::MetadataExt;

use kit::store::Store;
use kit::{Guest, READ, READ_WRITE, ROOT};
use virtiofs_hostfs::{CachePolicy, Options};
use virtiofs_protocol::{Errno, InitFlags, LookupName, NodeId, RenameFlags, Validity};

const PLAIN: RenameFlags = RenameFlags::empty();

/// A share with two files that the guest knows and that hold no descriptor.
fn two_known(share: &tempfile::TempDir) -> (Guest, NodeId, NodeId) {
    for name in ["one", "two"] {
        std::fs::write(share.path().join(name), name).expect("a share that can be written");
    }
    let guest = Guest::forgetful(share.path());
    let known = |name| guest.lookup(ROOT, name).expect("a name that is there").node;
    let (one, two) = (known("one"), known("two"));
    assert_eq!(guest.cool(), 0, "no descriptor is left");
    (guest, one, two)
}

#[test]
fn an_inode_without_a_descriptor_is_found_again_by_its_name() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    assert_eq!(guest.getattr(one).unwrap().size_bytes, 3);
    assert_eq!(guest.contents(two).unwrap(), b"two");
    assert_eq!(guest.cool(), 0);
    assert_eq!(guest.contents(one).unwrap(), b"one");
}

#[test]
fn a_file_that_is_known_only_by_lookup_outlives_its_name() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    guest.unlink(ROOT, "one").unwrap();
    assert_eq!(guest.cool(), 1, "what can be found no other way is held");
    assert_eq!(guest.getattr(one).unwrap().nlink, 0);
    assert_eq!(guest.contents(one).unwrap(), b"one");
    guest.forget(one, 1);
    assert_eq!(guest.cool(), 0, "forgotten, it is given up");
    assert_eq!(guest.getattr(one).map(drop), Err(Errno::STALE));
    assert_eq!(guest.contents(two).unwrap(), b"two");
}

#[test]
fn an_open_file_outlives_its_name() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, _) = two_known(&share);
    let file = guest.open(one, READ_WRITE).unwrap();
    assert_eq!(guest.cool(), 0);
    guest.unlink(ROOT, "one").unwrap();
    guest.write(one, file, 3, b"!").unwrap();
    assert_eq!(guest.getattr(one).unwrap().size_bytes, 4);
    // Opened once more, as through /proc/self/fd in the guest.
    assert_eq!(guest.contents(one).unwrap(), b"one!");
}

#[test]
fn an_open_file_that_the_host_removes_is_found_by_what_is_open() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    let file = guest.open(one, READ_WRITE).unwrap();
    assert_eq!(guest.cool(), 0);
    std::fs::remove_file(share.path().join("one")).unwrap();
    std::fs::remove_file(share.path().join("two")).unwrap();
    assert_eq!(guest.getattr(one).unwrap().size_bytes, 3);
    guest.write(one, file, 3, b"!").unwrap();
    assert_eq!(guest.contents(one).unwrap(), b"one!");
    assert_eq!(guest.getattr(two).map(drop), Err(Errno::STALE));
    guest.release(one, file).unwrap();
}

#[test]
fn a_directory_that_is_removed_is_still_where_the_guest_works() {
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(share.path().join("outer/inner")).unwrap();
    let guest = Guest::forgetful(share.path());
    let outer = guest.lookup(ROOT, "outer").unwrap().node;
    let inner = guest.lookup(outer, "inner").unwrap().node;
    assert_eq!(guest.cool(), 0);
    guest.rmdir(outer, "inner").unwrap();
    guest.rmdir(ROOT, "outer").unwrap();
    assert_eq!(guest.cool(), 2);
    for node in [outer, inner] {
        assert!(guest.getattr(node).is_ok());
        // getdents(2) of a directory that was removed.
        let listed = guest.list(node, 4096, kit::listing::Kind::LookedUp);
        assert_eq!(listed, Err(Errno::NOENT));
        assert_eq!(guest.mkdir(node, "new").map(drop), Err(Errno::NOENT));
    }
}

#[test]
fn one_of_two_hard_links_goes_and_the_file_stays() {
    for gone in ["one", "link"] {
        let share = tempfile::tempdir().unwrap();
        let (guest, one, _) = two_known(&share);
        let link = guest.link(one, ROOT, "link").unwrap();
        assert_eq!((link.node, link.attributes.nlink), (one, 2));
        assert_eq!(guest.cool(), 0);
        guest.unlink(ROOT, gone).unwrap();
        guest.cool();
        assert_eq!(guest.getattr(one).unwrap().nlink, 1, "{gone}");
        assert_eq!(guest.contents(one).unwrap(), b"one", "{gone}");
    }
}

#[test]
fn a_symlink_gets_another_name_without_being_followed() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    let symlink = guest.symlink(ROOT, "symlink", b"nowhere").unwrap().node;
    assert_eq!(guest.link(symlink, ROOT, "second").unwrap().node, symlink);
    let second = std::fs::read_link(share.path().join("second")).unwrap();
    assert_eq!(second.to_str(), Some("nowhere"));
}

#[test]
fn a_file_that_lost_its_last_name_gets_no_new_one() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, _) = two_known(&share);
    guest.unlink(ROOT, "one").unwrap();
    assert_eq!(guest.link(one, ROOT, "again").map(drop), Err(Errno::NOENT));
}

#[test]
fn a_renamed_directory_takes_along_what_is_known_below_it() {
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(share.path().join("a/b/c")).unwrap();
    std::fs::write(share.path().join("a/b/c/file"), b"deep").unwrap();
    let guest = Guest::forgetful(share.path());
    let (mut node, mut first) = (ROOT, None);
    for name in ["a", "b", "c", "file"] {
        node = guest.lookup(node, name).unwrap().node;
        first = first.or(Some(node));
    }
    assert_eq!(guest.cool(), 0);
    guest.rename((ROOT, "a"), (ROOT, "z"), PLAIN).unwrap();
    guest.cool();
    assert_eq!(guest.contents(node).unwrap(), b"deep");
    assert_eq!(guest.lookup(ROOT, "z").unwrap().node, first.unwrap());
}

#[test]
fn renaming_over_a_known_file_keeps_both() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    guest.rename((ROOT, "one"), (ROOT, "two"), PLAIN).unwrap();
    guest.cool();
    assert_eq!(guest.contents(one).unwrap(), b"one");
    assert_eq!(guest.contents(two).unwrap(), b"two");
    assert_eq!(guest.getattr(two).unwrap().nlink, 0);
    assert_eq!(guest.lookup(ROOT, "two").unwrap().node, one);
    assert_eq!(guest.lookup(ROOT, "one").map(drop), Err(Errno::NOENT));
}

/// rename(2): two names of one file are left as they are.
#[test]
fn renaming_a_file_over_its_own_hard_link_changes_nothing() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, _) = two_known(&share);
    guest.link(one, ROOT, "link").unwrap();
    guest.cool();
    guest.rename((ROOT, "link"), (ROOT, "one"), PLAIN).unwrap();
    guest.cool();
    assert_eq!(guest.getattr(one).unwrap().nlink, 2);
    for name in ["one", "link"] {
        assert_eq!(guest.lookup(ROOT, name).unwrap().node, one);
        assert_eq!(guest.contents(one).unwrap(), b"one");
    }
}

#[test]
fn exchanging_two_names_exchanges_what_they_name_and_nothing_else() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    for _ in 0..3 {
        guest
            .rename((ROOT, "one"), (ROOT, "two"), RenameFlags::EXCHANGE)
            .unwrap();
        assert_eq!(guest.cool(), 0, "both are found by their new names");
        assert_eq!(guest.contents(one).unwrap(), b"one");
        assert_eq!(guest.contents(two).unwrap(), b"two");
    }
    assert_eq!(guest.lookup(ROOT, "one").unwrap().node, two);
    assert_eq!(guest.lookup(ROOT, "two").unwrap().node, one);
}

#[test]
fn renaming_without_replacing_leaves_everything_where_something_is() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    let refused = guest.rename((ROOT, "one"), (ROOT, "two"), RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(Errno::EXIST));
    assert_eq!(guest.cool(), 0);
    assert_eq!(guest.contents(one).unwrap(), b"one");
    assert_eq!(guest.contents(two).unwrap(), b"two");
    guest
        .rename((ROOT, "one"), (ROOT, "three"), RenameFlags::NOREPLACE)
        .unwrap();
    assert_eq!(guest.cool(), 0);
    assert_eq!(guest.contents(one).unwrap(), b"one");
}

#[test]
fn a_whiteout_stands_where_the_file_was() {
    let Some(store) = Store::tmpfs() else { return };
    std::fs::write(store.path().join("file"), b"moved").unwrap();
    let guest = Guest::forgetful(store.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    guest
        .rename((ROOT, "file"), (ROOT, "moved"), RenameFlags::WHITEOUT)
        .unwrap();
    guest.cool();
    assert_eq!(guest.contents(node).unwrap(), b"moved");
    let whiteout = guest.lookup(ROOT, "file").unwrap();
    assert_ne!(whiteout.node, node);
    assert_eq!(
        (
            whiteout.attributes.mode & 0o170_000,
            whiteout.attributes.rdev
        ),
        (0o020_000, 0)
    );
}

/// The guest looked the moved file up under its new name: from then on it is found there.
#[test]
fn a_file_that_the_host_renames_is_found_where_the_guest_looked_it_up_last() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, two) = two_known(&share);
    std::fs::rename(share.path().join("one"), share.path().join("two")).unwrap();
    assert_eq!(
        guest.getattr(two).map(drop),
        Err(Errno::STALE),
        "it is gone"
    );
    assert_eq!(guest.lookup(ROOT, "two").unwrap().node, one);
    assert_eq!(guest.getattr(one).unwrap().size_bytes, 3);
    assert_eq!(guest.contents(one).unwrap(), b"one");
}

#[test]
fn a_listing_finds_what_the_host_renamed_as_well() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, _) = two_known(&share);
    std::fs::rename(share.path().join("one"), share.path().join("three")).unwrap();
    let listed = guest
        .list(ROOT, 4096, kit::listing::Kind::LookedUp)
        .unwrap();
    let three = listed.iter().find(|entry| entry.name == b"three").unwrap();
    assert_eq!(three.node, Some(one));
    assert_eq!(guest.getattr(one).unwrap().size_bytes, 3);
    assert_eq!(guest.contents(one).unwrap(), b"one");
}

#[test]
fn a_file_that_the_host_replaces_is_never_taken_for_the_old_one() {
    let share = tempfile::tempdir().unwrap();
    let (guest, one, _) = two_known(&share);
    let path = share.path().join("one");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"another").unwrap();
    assert_eq!(guest.getattr(one).map(drop), Err(Errno::STALE));
    assert_eq!(guest.open(one, READ).map(drop), Err(Errno::STALE));
    let entry = guest.lookup(ROOT, "one").unwrap();
    assert_ne!(entry.node, one);
    assert_eq!(entry.attributes.ino, path.metadata().unwrap().ino());
    assert_eq!(guest.contents(entry.node).unwrap(), b"another");
}

/// As a file's handle does, which is what the question comes from.
#[test]
fn a_file_that_was_removed_is_not_found_by_itself() {
    use LookupName::Myself;
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"").unwrap();
    let guest = Guest::on(share.path());
    let file = guest.lookup(ROOT, "file").unwrap().node;
    guest.link(file, ROOT, "second").unwrap();
    guest.unlink(ROOT, "file").unwrap();
    assert_eq!(guest.lookup_dots(file, Myself).unwrap().node, file);
    let open = guest.open(file, READ).unwrap();
    guest.unlink(ROOT, "second").unwrap();
    assert_eq!(guest.lookup_dots(file, Myself), Err(Errno::STALE));
    // Who has it open keeps it.
    assert_eq!(guest.getattr(file).unwrap().nlink, 0);
    assert_eq!(guest.read(file, open, 0, 10), Ok(Vec::new()));
}

/// What was seen last says that each of the two lies in the other one.
#[test]
fn directories_that_the_host_turned_inside_out_and_removed_are_gone_and_no_more() {
    let share = tempfile::tempdir().unwrap();
    let path = |name: &str| share.path().join(name);
    std::fs::create_dir_all(path("a/b")).unwrap();
    let guest = Guest::forgetful(share.path());
    let a = guest.lookup(ROOT, "a").unwrap().node;
    let b = guest.lookup(a, "b").unwrap().node;
    std::fs::rename(path("a/b"), path("b")).unwrap();
    std::fs::rename(path("a"), path("b/a")).unwrap();
    assert_eq!(guest.lookup(b, "a").unwrap().node, a);
    std::fs::remove_dir_all(path("b")).unwrap();
    assert_eq!(guest.cool(), 0);
    for node in [a, b] {
        assert_eq!(guest.getattr(node).map(drop), Err(Errno::STALE));
        assert_eq!(guest.mkdir(node, "new").map(drop), Err(Errno::STALE));
    }
}

/// Each row: policy, `-o timeout=` in seconds, and how long a name that is free may be thought so.
#[test]
fn names_that_are_free_are_told_by_policy_and_timeout() {
    let rows = [
        (CachePolicy::Auto, None, None),
        (CachePolicy::Metadata, Some(7), None),
        (CachePolicy::Always, None, Some(86_400)),
        (CachePolicy::Always, Some(7), Some(7)),
        (CachePolicy::Always, Some(0), None),
    ];
    let share = tempfile::tempdir().unwrap();
    for (cache, timeout, told) in rows {
        let validity = timeout.map(|secs| Validity { secs, nanos: 0 });
        let options = Options {
            cache,
            validity,
            ..Options::default()
        };
        let guest = Guest::with(share.path(), options);
        let answer = guest.lookup(ROOT, "free").map(|entry| {
            assert_eq!(entry.node.raw(), 0, "{cache:?}");
            entry.entry_validity.secs
        });
        assert_eq!(answer, told.ok_or(Errno::NOENT), "{cache:?}, {timeout:?}");
        assert_eq!(guest.fs.known_inodes(), 1);
    }
}

/// Each row: where the guest asks, what for, and the node that it gets.
#[test]
fn a_node_is_found_by_itself_and_a_directory_above_by_where_it_was_seen() {
    use LookupName::{Myself, Parent};
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(share.path().join("upper/lower")).unwrap();
    std::fs::write(share.path().join("upper/file"), b"").unwrap();
    let guest = Guest::forgetful(share.path());
    let upper = guest.lookup(ROOT, "upper").unwrap().node;
    let lower = guest.lookup(upper, "lower").unwrap().node;
    let file = guest.lookup(upper, "file").unwrap().node;
    let rows = [
        (file, Myself, Ok(file)),
        (file, Parent, Err(Errno::NOTDIR)),
        (lower, Myself, Ok(lower)),
        (lower, Parent, Ok(upper)),
        (upper, Parent, Ok(ROOT)),
        (ROOT, Myself, Ok(ROOT)),
        // Nothing above the share is anybody's parent.
        (ROOT, Parent, Ok(ROOT)),
        (NodeId::from_raw(999), Myself, Err(Errno::STALE)),
        (NodeId::from_raw(999), Parent, Err(Errno::STALE)),
    ];
    for held in ["descriptors", "names only"] {
        for (node, name, want) in rows {
            let found = guest.lookup_dots(node, name).map(|entry| entry.node);
            assert_eq!(found, want, "{node:?}, {name:?} with {held}");
        }
        guest.cool();
    }
    // Each answer was a lookup: one by name, and one by itself each time.
    guest.forget(file, 2);
    assert!(guest.lookup_dots(file, Myself).is_ok());
    guest.forget(file, 2);
    assert_eq!(guest.lookup_dots(file, Myself), Err(Errno::STALE));

    let silent = Guest::on(share.path()).without(InitFlags::EXPORT_SUPPORT);
    for name in [Myself, Parent] {
        assert_eq!(silent.lookup_dots(ROOT, name), Err(Errno::INVAL));
    }
}

#[test]
fn a_directory_that_the_host_moved_has_no_parent_until_it_is_looked_up() {
    let share = tempfile::tempdir().unwrap();
    let path = |name: &str| share.path().join(name);
    for name in ["from/moved", "to"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    let guest = Guest::on(share.path());
    let from = guest.lookup(ROOT, "from").unwrap().node;
    let moved = guest.lookup(from, "moved").unwrap().node;
    let to = guest.lookup(ROOT, "to").unwrap().node;
    std::fs::rename(path("from/moved"), path("to/moved")).unwrap();
    let above = || guest.lookup_dots(moved, LookupName::Parent);
    assert_eq!(above(), Err(Errno::STALE));
    assert_eq!(guest.lookup(to, "moved").unwrap().node, moved);
    assert_eq!(above().unwrap().node, to);
}
