//! Locks: GETLK, SETLK, SETLKW.

use crate::abi::LkIn;
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
