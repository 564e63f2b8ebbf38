//! What is known about each mount of the share: asked once, when the mount is first met.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::fstatfs;
use virtiofs_protocol::Errno;

/// How far an inode number can be trusted once no descriptor holds the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Birth time is part of an inode's identity, and mount numbers are never used twice: number
    /// and birth time tell a reused inode number.
    Birth,
    /// Only a descriptor keeps the number from being reused, so a known inode keeps one.
    Pinned,
}

/// One mount.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) identity: Identity,
    /// Calls may take long: never made on a queue's thread.
    pub(crate) slow: bool,
    refuses_nowait: AtomicBool,
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
pub(crate) struct Mounts(RwLock<HashMap<u64, Arc<Mount>>>);

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
    /// Finds a mount by its number; looks at it through `inside` when it is new.
    pub(crate) fn get(
        &self,
        number: u64,
        inside: BorrowedFd<'_>,
        has_identity: bool,
    ) -> Result<Arc<Mount>, Errno> {
        if let Some(mount) = self.known(number) {
            return Ok(mount);
        }
        let kind = fstatfs(inside)?.f_type.cast_unsigned();
        let birth = has_identity && STORES_WITH_BIRTH.contains(&kind);
        let mount = Arc::new(Mount {
            identity: if birth {
                Identity::Birth
            } else {
                Identity::Pinned
            },
            slow: SLOW_STORES.contains(&(kind & 0xFFFF_FFFF)),
            refuses_nowait: AtomicBool::new(false),
        });
        let mut mounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(mounts.entry(number).or_insert(mount)))
    }

    /// Finds a mount that was met before.
    pub(crate) fn known(&self, number: u64) -> Option<Arc<Mount>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }
}
