//! What is known about each mount of the share: asked once, when the mount is first met.
//!
//! A mount is remembered for as long as something of it is known. Before Linux 6.8 its number is
//! then kept from being reused by a descriptor, so it stays busy for that long.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use rustix::fs::{Statx, fstatfs};
use virtiofs_protocol::Errno;

use crate::group_rule::GroupRule;
use crate::inode::key::{Identity, MountNumber, tells_birth};

/// One mount.
#[derive(Debug)]
pub(crate) struct Mount {
    number: u64,
    pub(crate) identity: Identity,
    /// Calls may take long: never made on a queue's thread.
    pub(crate) slow: bool,
    /// Whose group a new file gets.
    pub(crate) group_rule: GroupRule,
    refuses_nowait: AtomicBool,
    /// Keeps the mount's number from being reused, where it would be.
    _pin: Option<OwnedFd>,
}

impl Mount {
    /// Whether RWF_NOWAIT is worth trying.
    pub(crate) fn takes_nowait(&self) -> bool {
        !self.refuses_nowait.load(Ordering::Relaxed)
    }

    /// Remembers that this mount answers EOPNOTSUPP to RWF_NOWAIT.
    pub(crate) fn forgo_nowait(&self) {
        self.refuses_nowait.store(true, Ordering::Relaxed);
    }
}

/// All mounts met so far. Few, and rarely more: a read lock and a short map.
#[derive(Debug, Default)]
pub(crate) struct Mounts(RwLock<HashMap<u64, Weak<Mount>>>);

// f_type of statfs(2): linux/magic.h, and the file systems' own headers.
const BTRFS: u64 = 0x9123_683E;
const EXT4: u64 = 0xEF53;
const TMPFS: u64 = 0x0102_1994;
const XFS: u64 = 0x5846_5342;
const STORES_WITH_BIRTH: [u64; 4] = [BTRFS, EXT4, TMPFS, XFS];

const AFS: u64 = 0x6B41_4653;
const CEPH: u64 = 0x00C3_6400;
const CIFS: u64 = 0xFF53_4D42;
const FUSE: u64 = 0x6573_5546;
const NFS: u64 = 0x6969;
const SMB2: u64 = 0xFE53_4D42;
const V9FS: u64 = 0x0102_1997;
const SLOW_STORES: [u64; 7] = [AFS, CEPH, CIFS, FUSE, NFS, SMB2, V9FS];

impl Mounts {
    /// Finds the mount of what `inside` holds, whose `stat` this is; looks at it when it is new.
    pub(crate) fn get(&self, stat: &Statx, inside: BorrowedFd<'_>) -> Result<Arc<Mount>, Errno> {
        let number = stat.stx_mnt_id;
        if let Some(mount) = self.known(number) {
            return Ok(mount);
        }
        let kind = fstatfs(inside)?.f_type.cast_unsigned();
        let meaning = MountNumber::of(stat);
        let birth = tells_birth(stat)
            && meaning != MountNumber::Unknown
            && STORES_WITH_BIRTH.contains(&kind);
        let pin = match meaning {
            MountNumber::Unique | MountNumber::Unknown => None,
            MountNumber::Reused => Some(inside.try_clone_to_owned().map_err(|_| Errno::MFILE)?),
        };
        let mount = Arc::new(Mount {
            number,
            identity: if birth {
                Identity::Birth
            } else {
                Identity::Pinned
            },
            slow: SLOW_STORES.contains(&(kind & 0xFFFF_FFFF)),
            group_rule: if [BTRFS, TMPFS].contains(&kind) {
                GroupRule::callers()
            } else {
                GroupRule::unknown()
            },
            refuses_nowait: AtomicBool::new(false),
            _pin: pin,
        });
        let mut mounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(faster) = mounts.get(&number).and_then(Weak::upgrade) {
            return Ok(faster);
        }
        mounts.retain(|_, mount| mount.strong_count() > 0);
        mounts.insert(number, Arc::downgrade(&mount));
        Ok(mount)
    }

    /// Finds the mount that a `stat` tells of, if it was met before; most often it is that of something `near`.
    pub(crate) fn known_near(&self, near: &Arc<Mount>, stat: &Statx) -> Option<Arc<Mount>> {
        if near.number == stat.stx_mnt_id {
            Some(Arc::clone(near))
        } else {
            self.known(stat.stx_mnt_id)
        }
    }

    /// Finds a mount that was met before.
    pub(crate) fn known(&self, number: u64) -> Option<Arc<Mount>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .and_then(Weak::upgrade)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    use virtiofs_testkit::bridge::share::{can_mount, skipped};

    use super::*;
    use crate::{sys, testing};

    fn met(mounts: &Mounts, place: &Path) -> (u64, Arc<Mount>) {
        let directory = std::fs::File::open(place).unwrap();
        let stat = sys::stat_fd(&directory).unwrap();
        let mount = mounts.get(&stat, directory.as_fd()).unwrap();
        (stat.stx_mnt_id, mount)
    }

    #[test]
    fn a_number_that_is_reused_is_held_while_its_mount_is_known() {
        if !can_mount() {
            skipped("needs root");
            return;
        }
        let _old_kernel = testing::plain_mount_numbers();
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let mounts = Mounts::default();
        let mut numbers = Vec::new();
        for _ in 0..3 {
            mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).unwrap();
            let (number, known) = met(&mounts, place);
            assert_eq!(
                known.identity,
                Identity::Birth,
                "its inodes need no descriptors"
            );
            known.forgo_nowait();
            assert_eq!(unmount(place, UnmountFlags::empty()), Err(Errno::BUSY));
            drop(known);
            assert!(mounts.known(number).is_none());
            unmount(place, UnmountFlags::empty()).unwrap();
            numbers.push(number);
        }
        assert!(
            numbers.iter().all(|number| *number < 1 << 31),
            "plain: {numbers:?}"
        );
        // What was learned of a mount is not believed of the next one.
        mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).unwrap();
        assert!(met(&mounts, place).1.takes_nowait());
        unmount(place, UnmountFlags::empty()).unwrap();
    }

    #[test]
    fn a_number_that_is_unique_needs_no_descriptor() {
        let place = tempfile::tempdir().unwrap();
        let (number, known) = met(&Mounts::default(), place.path());
        // Linux counts these from 2^31 (fs/namespace.c); before 6.8 there are none.
        if number > 1 << 31 {
            assert!(known._pin.is_none());
        } else {
            skipped("needs Linux 6.8");
        }
    }
}
