//! GETATTR, SETATTR, STATX and ACCESS.

use crate::abi::{AccessIn, GetattrIn, SetattrIn, StatxIn};
use crate::fields::Fields;
use crate::ids::{Fh, Gid, Guest, Uid};
use crate::malformed::Malformed;
use crate::offset::{FileOffset, Timestamp};
use crate::op::create::Permissions;

/// `FUSE_GETATTR_FH`.
const GETATTR_FH: u32 = 1;

fn stated_file(flags: u32, fh: u64) -> Option<Fh> {
    (flags & GETATTR_FH != 0).then_some(Fh::from_raw(fh))
}

/// GETATTR: attributes of the request's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Getattr {
    /// The open file it was asked through, if any.
    pub file: Option<Fh>,
}

impl Getattr {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &GetattrIn = fields.take()?;
        Ok(Self {
            file: stated_file(raw.getattr_flags.get(), raw.fh.get()),
        })
    }
}

/// STATX: as GETATTR, with a birth time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statx {
    /// The open file it was asked through, if any.
    pub file: Option<Fh>,
    /// Fields asked for (`STATX_*`).
    pub mask: u32,
}

impl Statx {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &StatxIn = fields.take()?;
        Ok(Self {
            file: stated_file(raw.getattr_flags.get(), raw.fh.get()),
            mask: raw.sx_mask.get(),
        })
    }
}

pub(super) fn access_mask(mut fields: Fields<'_>) -> Result<u32, Malformed> {
    let AccessIn { mask, .. } = *fields.take()?;
    Ok(mask.get())
}

/// Whether set-id bits and file capabilities are to go with this change (`FUSE_HANDLE_KILLPRIV_V2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KillPrivileges {
    /// The caller may keep them, or the guest's kernel deals with it.
    #[default]
    No,
    /// They go.
    Yes,
}

impl KillPrivileges {
    pub(super) fn from_flag(set: bool) -> Self {
        if set { Self::Yes } else { Self::No }
    }
}

/// A new time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// The host's present time.
    Now,
    /// The time given.
    To(Timestamp),
}

/// SETATTR: what is to change; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setattr {
    /// The open file it was asked through, if any.
    pub file: Option<Fh>,
    /// New permissions.
    pub mode: Option<Permissions>,
    /// New owner.
    pub guest_uid: Option<Guest<Uid>>,
    /// New group.
    pub guest_gid: Option<Guest<Gid>>,
    /// New size, in bytes.
    pub size: Option<FileOffset>,
    /// New time of access.
    pub atime: Option<TimeChange>,
    /// New time of modification.
    pub mtime: Option<TimeChange>,
    /// New time of status change: sent with WRITEBACK_CACHE; no system call sets it.
    pub ctime: Option<Timestamp>,
    /// For changes of size and owner.
    pub kill_privileges: KillPrivileges,
}

impl Setattr {
    // FATTR_* of fuse.h.
    const MODE: u32 = 1 << 0;
    const UID: u32 = 1 << 1;
    const GID: u32 = 1 << 2;
    const SIZE: u32 = 1 << 3;
    const ATIME: u32 = 1 << 4;
    const MTIME: u32 = 1 << 5;
    const FH: u32 = 1 << 6;
    const ATIME_NOW: u32 = 1 << 7;
    const MTIME_NOW: u32 = 1 << 8;
    const CTIME: u32 = 1 << 10;
    const KILL_SUIDGID: u32 = 1 << 11;
    /// All of `FATTR_*`; bit 9, `FATTR_LOCKOWNER`, changes nothing.
    const DEFINED: u32 = 0xfff;

    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &SetattrIn = fields.take()?;
        if raw.valid.get() & !Self::DEFINED != 0 {
            // A change that is not understood must not be answered as if it had been made.
            return Err(Malformed::Undefined {
                field: "fuse_setattr_in.valid",
                raw: raw.valid.get().into(),
            });
        }
        let has = |flag| raw.valid.get() & flag != 0;
        let time = |set, now, secs: u64, nanos: u32| match (has(set), has(now)) {
            (false, _) => Ok(None),
            (true, true) => Ok(Some(TimeChange::Now)),
            (true, false) => Timestamp::new(secs, nanos).map(|time| Some(TimeChange::To(time))),
        };
        let uid = has(Self::UID).then(|| Guest::<Uid>::owner(raw.uid.get()));
        let gid = has(Self::GID).then(|| Guest::<Gid>::owner(raw.gid.get()));
        let ctime = has(Self::CTIME).then(|| Timestamp::new(raw.ctime.get(), raw.ctimensec.get()));
        Ok(Self {
            file: has(Self::FH).then_some(Fh::from_raw(raw.fh.get())),
            mode: has(Self::MODE).then(|| Permissions::from_wire(raw.mode.get())),
            guest_uid: uid.transpose().map_err(|_| Malformed::NoOwner)?,
            guest_gid: gid.transpose().map_err(|_| Malformed::NoOwner)?,
            size: has(Self::SIZE)
                .then(|| FileOffset::new(raw.size.get()))
                .transpose()?,
            atime: time(
                Self::ATIME,
                Self::ATIME_NOW,
                raw.atime.get(),
                raw.atimensec.get(),
            )?,
            mtime: time(
                Self::MTIME,
                Self::MTIME_NOW,
                raw.mtime.get(),
                raw.mtimensec.get(),
            )?,
            ctime: ctime.transpose()?,
            kill_privileges: KillPrivileges::from_flag(has(Self::KILL_SUIDGID)),
        })
    }
}
