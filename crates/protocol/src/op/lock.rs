//! Locks: GETLK, SETLK, SETLKW.

use crate::abi::{FileLock, LkIn};
use crate::fields::Fields;
use crate::ids::{Fh, LockOwner};
use crate::malformed::Malformed;

/// Which family of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// `fcntl(2)`, by range.
    Posix,
    /// `flock(2)`, of the whole file.
    Flock,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockType {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None any more.
    Unlock,
}

impl LockType {
    /// F_RDLCK, F_WRLCK, F_UNLCK as all Linux architectures of virtio-fs number them.
    fn to_wire(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Unlock => 2,
        }
    }
}

/// First and last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// First byte.
    pub start: u64,
    /// Last byte, included; `i64::MAX` is the end of any file.
    pub end: u64,
}

/// GETLK, SETLK, SETLKW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The open file.
    pub file: Fh,
    /// Whose lock.
    pub owner: LockOwner,
    /// Family.
    pub kind: LockKind,
    /// Type.
    pub lock_type: LockType,
    /// Range.
    pub range: LockRange,
    /// Process in the guest.
    pub pid: u32,
}

impl Lock {
    const FLOCK: u32 = 1 << 0;

    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &LkIn = fields.take()?;
        // F_RDLCK, F_WRLCK, F_UNLCK as all Linux architectures of virtio-fs number them.
        let lock_type = match raw.lk.type_.get() {
            0 => LockType::Read,
            1 => LockType::Write,
            2 => LockType::Unlock,
            raw => {
                return Err(Malformed::Undefined {
                    field: "fuse_file_lock.type",
                    raw: raw.into(),
                });
            }
        };
        let range = LockRange {
            start: raw.lk.start.get(),
            end: raw.lk.end.get(),
        };
        if range.start > range.end {
            return Err(Malformed::Undefined {
                field: "fuse_file_lock.end",
                raw: range.end,
            });
        }
        let kind = if raw.lk_flags.get() & Self::FLOCK == 0 {
            LockKind::Posix
        } else {
            LockKind::Flock
        };
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            owner: LockOwner(raw.owner.get()),
            kind,
            lock_type,
            range,
            pid: raw.lk.pid.get(),
        })
    }
}

/// A lock that stands in the way, as GETLK tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// Shared or exclusive.
    pub lock_type: LockType,
    /// Range.
    pub range: LockRange,
    /// Process in the guest that holds it; 0 for a holder outside, whose number means nothing there.
    pub pid: u32,
}

impl HeldLock {
    /// `struct fuse_lk_out`; without a lock the range does not count.
    pub(crate) fn to_wire(held: Option<Self>) -> FileLock {
        let nobody = Self {
            lock_type: LockType::Unlock,
            range: LockRange { start: 0, end: 0 },
            pid: 0,
        };
        let held = held.unwrap_or(nobody);
        FileLock {
            start: held.range.start.into(),
            end: held.range.end.into(),
            type_: held.lock_type.to_wire().into(),
            pid: held.pid.into(),
        }
    }
}
