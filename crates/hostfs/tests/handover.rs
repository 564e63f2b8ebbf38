//! What the daemon makes and hands over is what the caller would have made.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail with what they call"
)]

mod kit;

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::Duration;

use kit::store::{Store, must};
use kit::{Guest, ROOT, WRITE, set_mode};
use rustix::fs::{Mode, OFlags, XattrFlags, open, openat, setxattr};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use virtiofs_protocol::op::Extras;
use virtiofs_protocol::{Caller, Errno};

const STAFF: u32 = 50;

/// Owner, group and mode.
type Made = Result<(u32, u32, u32), Errno>;

fn looked_at(path: &Path) -> (u32, u32, u32) {
    let made = path.metadata().unwrap();
    (made.uid(), made.gid(), made.mode() & 0o7777)
}

/// What the caller itself makes, on a thread that is the caller for good.
fn by_the_caller(directory: &Path, (uid, gid): (u32, u32), mode: u32) -> Made {
    let place = open(directory, OFlags::PATH, Mode::empty()).unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(move || {
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(None, Gid::from_raw(gid), None).unwrap();
            set_thread_res_uid(None, Uid::from_raw(uid), None).unwrap();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            openat(&place, "caller", flags, Mode::from_raw_mode(mode)).map(drop)
        });
        caller.join().unwrap()
    })?;
    let path = directory.join("caller");
    let made = looked_at(&path);
    std::fs::remove_file(path).unwrap();
    Ok(made)
}

fn by_the_guest(guest: &Guest, directory: &Path, (uid, gid): (u32, u32), mode: u32) -> Made {
    let caller = Caller::new(uid, gid, 1);
    guest.create_as(caller, (ROOT, "guest"), (WRITE, mode), Extras::default())?;
    let path = directory.join("guest");
    let made = looked_at(&path);
    std::fs::remove_file(path).unwrap();
    Ok(made)
}

/// user::rwx, user:1234:rw-, group::r-x, mask::rwx, other::--- (`struct posix_acl_xattr_entry`).
fn default_acl() -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 6, 1234),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// Compares in every directory of the list, each seen by the guest before and twice, so that
/// what is learned or believed of it counts.
fn compare(store: &Path) {
    rustix::process::umask(Mode::empty());
    for (group, bits) in [
        (0, 0o777),
        (STAFF, 0o777),
        (1000, 0o777),
        (STAFF, 0o2777),
        (0, 0o2777),
        (STAFF, 0o1777),
    ] {
        chown(store, None, Some(group)).unwrap();
        set_mode(store, bits);
        let guest = Guest::on(store);
        for owner in [(1000, 1000), (1000, STAFF), (0, 1000), (1000, 0), (0, 0)] {
            for mode in [0o644, 0o600, 0o4755, 0o2755, 0o6711, 0o1644] {
                guest.getattr(ROOT).unwrap();
                let want = by_the_caller(store, owner, mode);
                for attempt in 0..2 {
                    let made = by_the_guest(&guest, store, owner, mode);
                    assert_eq!(
                        made, want,
                        "{owner:?} {mode:o}, attempt {attempt} in a directory of {group} with {bits:o}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_new_file_is_the_callers_however_it_came_to_be() {
    for store in [Store::tmpfs(), Store::ext4()].into_iter().flatten() {
        compare(store.path());
    }
}

#[test]
fn a_mount_that_gives_every_file_its_directorys_group_does_so() {
    let Some(store) = Store::ext4() else { return };
    let path = store.path().to_str().unwrap();
    must("mount", &["-o", "remount,grpid", path]);
    compare(store.path());
}

#[test]
fn a_default_acl_comes_to_the_same() {
    for store in [Store::tmpfs(), Store::ext4()].into_iter().flatten() {
        let acl = default_acl();
        let flags = XattrFlags::empty();
        setxattr(store.path(), "system.posix_acl_default", &acl, flags).unwrap();
        compare(store.path());
    }
}

/// So long the directory's mode is believed (`SEMANTICS.md`).
#[test]
fn a_setgid_bit_that_the_host_sets_counts_within_a_tenth_of_a_second() {
    let Some(store) = Store::tmpfs() else { return };
    let path = store.path();
    chown(path, None, Some(STAFF)).unwrap();
    set_mode(path, 0o777);
    let guest = Guest::on(path);
    let made = by_the_guest(&guest, path, (1000, 1000), 0o644).unwrap();
    assert_eq!(made.1, 1000);
    set_mode(path, 0o2777);
    std::thread::sleep(Duration::from_millis(100));
    let made = by_the_guest(&guest, path, (1000, 1000), 0o644).unwrap();
    assert_eq!(made.1, STAFF);
    set_mode(path, 0o777);
    guest.getattr(ROOT).unwrap();
    by_the_guest(&guest, path, (1000, 1000), 0o644).unwrap();
    // A guest that looks at the directory, or changes it, is believed at once.
    set_mode(path, 0o2777);
    guest.getattr(ROOT).unwrap();
    let made = by_the_guest(&guest, path, (1000, 1000), 0o644).unwrap();
    assert_eq!(made.1, STAFF);
}
