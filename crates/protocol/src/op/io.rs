//! Requests on open files: OPEN, READ, WRITE, FLUSH, FSYNC, RELEASE.

use crate::abi::{FlushIn, FsyncIn, OpenIn, ReadIn, ReleaseIn, WriteIn};
use crate::fields::Fields;
use crate::ids::{Fh, LockOwner};
use crate::malformed::Malformed;
use crate::offset::FileOffset;
use crate::op::attr::KillPrivileges;

/// How a file is opened: the guest's `open(2)` flags, as sent.
///
/// `hostfs` lets an allow-list of them reach the host; nothing here is a system call's argument yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Flags as Linux numbers them (`O_*`).
    pub guest_flags: u32,
    /// With `O_TRUNC`: whether set-id bits go (`FUSE_OPEN_KILL_SUIDGID`).
    pub kill_privileges: KillPrivileges,
}

impl OpenOptions {
    const KILL_SUIDGID: u32 = 1 << 0;

    pub(super) fn from_wire(flags: u32, open_flags: u32) -> Self {
        let kill = open_flags & Self::KILL_SUIDGID != 0;
        Self {
            guest_flags: flags,
            kill_privileges: KillPrivileges::from_flag(kill),
        }
    }
}

/// OPEN: opens the request's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// How.
    pub options: OpenOptions,
}

impl Open {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let OpenIn { flags, open_flags } = *fields.take()?;
        Ok(Self {
            options: OpenOptions::from_wire(flags.get(), open_flags.get()),
        })
    }
}

/// READ: up to `size_bytes` from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The open file.
    pub file: Fh,
    /// Where.
    pub offset: FileOffset,
    /// At most so many bytes.
    pub size_bytes: usize,
}

impl Read {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &ReadIn = fields.take()?;
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            offset: FileOffset::new(raw.offset.get())?,
            size_bytes: raw.size.get().try_into().unwrap_or(usize::MAX),
        })
    }
}

/// Where the data of a WRITE comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOrigin {
    /// A caller's `write(2)`.
    Caller,
    /// The guest's page cache, at some later time (`FUSE_WRITE_CACHE`): an offset is exact even under `O_APPEND`.
    PageCache,
}

/// WRITE: the payload goes to `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The open file.
    pub file: Fh,
    /// Where.
    pub offset: FileOffset,
    /// So many bytes of payload.
    pub size_bytes: usize,
    /// From a call or from the page cache.
    pub origin: WriteOrigin,
    /// Whether set-id bits and capabilities go.
    pub kill_privileges: KillPrivileges,
}

impl Write {
    const CACHE: u32 = 1 << 0;
    const KILL_SUIDGID: u32 = 1 << 2;

    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &WriteIn = fields.take()?;
        let flags = raw.write_flags.get();
        let origin = if flags & Self::CACHE == 0 {
            WriteOrigin::Caller
        } else {
            WriteOrigin::PageCache
        };
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            offset: FileOffset::new(raw.offset.get())?,
            size_bytes: raw.size.get().try_into().unwrap_or(usize::MAX),
            origin,
            kill_privileges: KillPrivileges::from_flag(flags & Self::KILL_SUIDGID != 0),
        })
    }
}

/// FLUSH: one of the guest's descriptors of the file was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The open file.
    pub file: Fh,
    /// Whose POSIX locks go.
    pub owner: LockOwner,
}

impl Flush {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &FlushIn = fields.take()?;
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            owner: LockOwner(raw.lock_owner.get()),
        })
    }
}

/// How much must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Data and what is needed to find it (`fdatasync(2)`).
    DataOnly,
    /// Data and all metadata (`fsync(2)`).
    Full,
}

/// FSYNC, FSYNCDIR: an open file or directory goes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fsync {
    /// The open file.
    pub file: Fh,
    /// How much.
    pub durability: Durability,
}

impl Fsync {
    const FDATASYNC: u32 = 1 << 0;

    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &FsyncIn = fields.take()?;
        let data_only = raw.fsync_flags.get() & Self::FDATASYNC != 0;
        let durability = if data_only {
            Durability::DataOnly
        } else {
            Durability::Full
        };
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            durability,
        })
    }
}

/// RELEASE: the guest's last descriptor of the open file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The open file.
    pub file: Fh,
    /// Whose locks go.
    pub owner: LockOwner,
}

impl Release {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &ReleaseIn = fields.take()?;
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            owner: LockOwner(raw.lock_owner.get()),
        })
    }
}
