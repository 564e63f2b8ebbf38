//! Descriptors are a cache: bounded, and closed when they are idle.

mod kit;

use std::time::Duration;

use kit::store::{Store, unmount_idle};
use kit::{Guest, READ, ROOT};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use virtiofs_hostfs::Options;
use virtiofs_protocol::{Errno, Filesystem};

const DIRECTORIES: usize = 30;
const FILES: usize = 30;
/// The least budget there is, and what a walk may have in its hands besides.
const BUDGET: usize = 16;
const BESIDES: usize = 8;

/// A tree is walked as `grep -r` does it: a directory is met before what is in it.
#[test]
fn a_tree_far_larger_than_the_budget_is_known_within_it() {
    let share = tempfile::tempdir().unwrap();
    for directory in 0..DIRECTORIES {
        let directory = share.path().join(directory.to_string());
        std::fs::create_dir(&directory).unwrap();
        for file in 0..FILES {
            std::fs::write(directory.join(file.to_string()), file.to_string()).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(40));
    let options = Options {
        descriptor_budget: BUDGET,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    let mut known = Vec::new();
    for directory in 0..DIRECTORIES {
        let parent = guest.lookup(ROOT, directory.to_string()).unwrap().node;
        for file in 0..FILES {
            let entry = guest.lookup(parent, file.to_string()).unwrap();
            assert_eq!(
                guest.contents(entry.node).unwrap(),
                file.to_string().as_bytes()
            );
            known.push((entry.node, entry.attributes.ino));
            let held = guest.fs.held_descriptors();
            assert!(held <= BUDGET + BESIDES, "{held} descriptors");
        }
    }
    // Every one of them is found again, forwards and backwards.
    for (node, ino) in known.iter().chain(known.iter().rev()) {
        assert_eq!(guest.getattr(*node).unwrap().ino, *ino);
        assert!(guest.fs.held_descriptors() <= BUDGET + BESIDES);
    }
    assert_eq!(guest.fs.known_inodes(), 1 + 30 + 900);
}

#[test]
fn a_descriptor_in_use_outlives_many_that_are_not() {
    let share = tempfile::tempdir().unwrap();
    for number in 0..200 {
        std::fs::write(share.path().join(number.to_string()), b"").unwrap();
    }
    std::fs::write(share.path().join("used"), b"").unwrap();
    std::thread::sleep(Duration::from_millis(40));
    let options = Options {
        descriptor_budget: BUDGET,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    let used = guest.lookup(ROOT, "used").unwrap().node;
    for number in 0..200 {
        guest.lookup(ROOT, number.to_string()).unwrap();
        guest.getattr(used).unwrap();
    }
    // Renamed by the host, it can be found by its descriptor alone.
    std::fs::rename(share.path().join("used"), share.path().join("moved")).unwrap();
    assert!(guest.getattr(used).is_ok());
}

#[test]
fn idle_descriptors_close_and_then_nothing_is_left_to_wake_for() {
    let share = tempfile::tempdir().unwrap();
    for number in 0..300 {
        std::fs::write(share.path().join(number.to_string()), b"").unwrap();
    }
    let guest = Guest::forgetful(share.path());
    assert_eq!(guest.fs.rest(), None, "nothing is held");
    for number in 0..300 {
        guest.lookup(ROOT, number.to_string()).unwrap();
    }
    assert_eq!(guest.fs.held_descriptors(), 301);
    assert!(guest.fs.rest().is_some());
    assert_eq!(guest.cool(), 0);
    assert_eq!(guest.fs.rest(), None);
    // What is needed keeps its descriptor, and is no reason to wake up either.
    let node = guest.lookup(ROOT, "7").unwrap().node;
    guest.unlink(ROOT, "7").unwrap();
    assert_eq!(guest.cool(), 1);
    assert_eq!(guest.fs.rest(), None);
    assert!(guest.getattr(node).is_ok());
}

#[test]
fn descriptors_are_kept_for_the_period_that_is_asked_for() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"").unwrap();
    std::thread::sleep(Duration::from_millis(40));
    let guest = Guest::on(share.path());
    guest.lookup(ROOT, "file").unwrap();
    let pause = guest.fs.rest().unwrap();
    assert!(pause > Duration::from_secs(4) && pause <= Duration::from_secs(5));
    assert!(guest.fs.rest().unwrap() <= pause);
    assert_eq!(guest.fs.held_descriptors(), 2);
}

#[test]
fn a_file_that_the_host_removes_gives_its_blocks_back() {
    let Some(store) = Store::tmpfs() else { return };
    let path = store.path().join("large");
    let free = || rustix::fs::statvfs(store.path()).unwrap().f_bfree;
    let before = free();
    std::fs::write(&path, vec![1; 8 << 20]).unwrap();
    let guest = Guest::forgetful(store.path());
    let node = guest.lookup(ROOT, "large").unwrap().node;
    std::fs::remove_file(&path).unwrap();
    assert!(before - free() >= 2048, "held");
    assert_eq!(guest.cool(), 0);
    assert_eq!(free(), before);
    assert_eq!(guest.getattr(node).map(drop), Err(Errno::STALE));
}

#[test]
fn a_mount_that_the_guest_has_looked_at_can_be_unmounted_when_it_is_idle() {
    let Some(store) = Store::tmpfs() else { return };
    let inner = store.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(inner.join("file"), b"").unwrap();
    let guest = Guest::forgetful(store.path());
    let root = guest.lookup(ROOT, "inner").unwrap().node;
    let node = guest.lookup(root, "file").unwrap().node;
    let file = guest.open(node, READ).unwrap();
    let busy = unmount(&inner, UnmountFlags::empty());
    assert_eq!(busy, Err(Errno::BUSY));
    guest.release(node, file).unwrap();
    assert_eq!(guest.cool(), 0);
    unmount_idle(&inner);
    for node in [root, node] {
        assert_eq!(guest.getattr(node).map(drop), Err(Errno::STALE));
    }
    assert_ne!(guest.lookup(ROOT, "inner").unwrap().node, root);
}
