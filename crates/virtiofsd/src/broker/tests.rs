//! A keeper by itself: whose signature counts, and for which mount.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use virtiofs_protocol::Access;

use super::handle::Keeper;

const HELD: u32 = OFlags::PATH.union(OFlags::NOFOLLOW).bits();

fn keeper(place: &Path, key: [u8; 16]) -> Keeper {
    let root = OwnedFd::from(fs::File::open(place).expect("a directory"));
    Keeper::new(root, Access::ReadWrite, key).expect("a mount number")
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("VIRTIOFSD_NO_SKIP").is_none(),
            "only root opens handles and mounts"
        );
        println!("SKIPPED: only root opens handles and mounts");
    }
    root
}

#[test]
fn a_signature_counts_for_one_key_and_one_mount() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let share = place.path().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("file"), "").unwrap();
    let ours = keeper(&share, [1; 16]);
    let signed = ours.make(b"file").unwrap();
    assert!(ours.open(signed.bytes(), HELD).is_ok());
    assert!(keeper(&share, [1; 16]).open(signed.bytes(), HELD).is_ok());
    let other = keeper(&share, [2; 16]).open(signed.bytes(), HELD);
    assert_eq!(other.map(drop), Err(Errno::PERM), "another key");
    // The very same inodes by way of another mount.
    let again = place.path().join("again");
    fs::create_dir(&again).unwrap();
    rustix::mount::mount_bind(&share, &again).unwrap();
    let replayed = keeper(&again, [1; 16]).open(signed.bytes(), HELD);
    unmount(&again, UnmountFlags::DETACH).unwrap();
    assert_eq!(replayed.map(drop), Err(Errno::PERM), "another mount");
}

#[test]
fn what_lies_on_another_mount_gets_no_handle() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let below = share.path().join("below");
    fs::create_dir(&below).unwrap();
    let keeper = keeper(share.path(), [1; 16]);
    assert!(keeper.make(b"below").is_ok());
    mount("tmpfs", &below, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(below.join("file"), "").unwrap();
    let (root, file) = (keeper.make(b"below"), keeper.make(b"below/file"));
    unmount(&below, UnmountFlags::DETACH).unwrap();
    assert_eq!(root.map(drop), Err(Errno::XDEV));
    assert_eq!(file.map(drop), Err(Errno::XDEV));
}
