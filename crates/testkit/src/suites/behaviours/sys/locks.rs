//! Locks of ranges, and leases.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use super::done;

/// Which of the two families of locks of ranges.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Owner {
    /// `F_SETLK`: a process.
    Process,
    /// `F_OFD_SETLK`: an open file.
    OpenFile,
}

/// The kind of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Read,
    Write,
    Unlock,
}

/// A range and what is to be locked there; a length of 0 reaches to the end of all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Range {
    pub(in super::super) kind: Kind,
    pub(in super::super) whence: c_int,
    pub(in super::super) start: i64,
    pub(in super::super) len: i64,
}

impl Range {
    pub(in super::super) fn new(kind: Kind, start: i64, len: i64) -> Self {
        Self {
            kind,
            whence: libc::SEEK_SET,
            start,
            len,
        }
    }

    fn raw(self) -> libc::flock {
        let kind = match self.kind {
            Kind::Read => libc::F_RDLCK,
            Kind::Write => libc::F_WRLCK,
            Kind::Unlock => libc::F_UNLCK,
        };
        libc::flock {
            l_type: i16::try_from(kind).unwrap_or(i16::MAX),
            l_whence: i16::try_from(self.whence).unwrap_or(i16::MAX),
            l_start: self.start,
            l_len: self.len,
            l_pid: 0,
        }
    }
}

/// Takes or gives back a lock without waiting.
pub(in super::super) fn lock(file: impl AsFd, owner: Owner, range: Range) -> Result<()> {
    let command = match owner {
        Owner::Process => libc::F_SETLK,
        Owner::OpenFile => libc::F_OFD_SETLK,
    };
    lock_by(file, command, range)
}

/// Takes a lock, waiting for it.
pub(in super::super) fn lock_waiting(file: impl AsFd, owner: Owner, range: Range) -> Result<()> {
    let command = match owner {
        Owner::Process => libc::F_SETLKW,
        Owner::OpenFile => libc::F_OFD_SETLKW,
    };
    lock_by(file, command, range)
}

fn lock_by(file: impl AsFd, command: c_int, range: Range) -> Result<()> {
    let raw = range.raw();
    // SAFETY: the structure lives during the call, which reads it.
    let locked = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, &raw const raw) };
    done(locked).map(drop)
}

/// The lock that is in the way of another, and the process that has it.
pub(in super::super) fn in_the_way(
    file: impl AsFd,
    owner: Owner,
    range: Range,
) -> Result<Option<(Range, i32)>> {
    let command = match owner {
        Owner::Process => libc::F_GETLK,
        Owner::OpenFile => libc::F_OFD_GETLK,
    };
    let mut raw = range.raw();
    // SAFETY: the structure lives during the call, which fills it in.
    done(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, &raw mut raw) })?;
    let kind = match c_int::from(raw.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => Kind::Read,
        _ => Kind::Write,
    };
    let found = Range::new(kind, raw.l_start, raw.l_len);
    Ok(Some((found, raw.l_pid)))
}

/// Takes a lease (`F_RDLCK`, `F_WRLCK`) or gives it back (`F_UNLCK`).
pub(in super::super) fn set_lease(file: impl AsFd, kind: c_int) -> Result<()> {
    // SAFETY: takes numbers only.
    done(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, kind) }).map(drop)
}

/// The lease that is held.
pub(in super::super) fn lease(file: impl AsFd) -> Result<c_int> {
    // SAFETY: takes numbers only.
    done(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLEASE) })
}
