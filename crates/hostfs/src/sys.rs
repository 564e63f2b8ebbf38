//! The system calls of this crate, in the forms it needs.
//!
//! Names reach a system call as [`Name`] only; everything else is about a
//! descriptor. `unsafe` is for the calls that rustix lacks, in [`raw`].

pub(crate) mod ioctl;
pub(crate) mod lock;
pub(crate) mod raw;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, Statx, StatxFlags, openat, statx};
use rustix::path::DecInt;
use virtiofs_protocol::{Errno, Name};

/// `STATX_MNT_ID_UNIQUE` (linux/stat.h, since Linux 6.8): mount numbers that are never used twice.
pub(crate) const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
/// `STATX_MNT_ID` (linux/stat.h, since Linux 5.8).
pub(crate) const STATX_MNT_ID: u32 = 0x1000;

/// Everything that an answer or an identity needs.
fn mask() -> StatxFlags {
    let mounts = StatxFlags::from_bits_retain(STATX_MNT_ID | STATX_MNT_ID_UNIQUE);
    #[cfg(test)]
    let mounts = crate::testing::as_the_kernel_has_it(mounts);
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | mounts
}

/// Looks at what a descriptor holds.
pub(crate) fn stat_fd(fd: impl AsFd) -> Result<Statx, Errno> {
    statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, mask())
}

/// Looks at what a descriptor holds, for its attributes alone: for a sixth less than [`stat_fd`].
pub(crate) fn attributes_fd(fd: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(fd)
}

/// Looks at what stands under a name, without following or mounting anything.
pub(crate) fn stat_name(directory: impl AsFd, name: Name<'_>) -> Result<Statx, Errno> {
    statx(
        directory,
        name.as_c_str(),
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        mask(),
    )
}

/// Holds what stands under a name, whatever it is, without opening it.
pub(crate) fn hold(directory: impl AsFd, name: Name<'_>) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        name.as_c_str(),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Makes a regular file without a name in a directory and opens it (`O_TMPFILE`, man 2 open).
pub(crate) fn make_nameless(
    directory: impl AsFd,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    openat(
        directory,
        c".",
        flags | OFlags::TMPFILE | OFlags::CLOEXEC,
        mode,
    )
}

/// Opens what an `O_PATH` descriptor holds, through `/proc/self/fd`.
///
/// The caller has made sure that it is a regular file or a directory: anything else may block or act.
pub(crate) fn reopen(
    proc_self_fd: BorrowedFd<'_>,
    held: BorrowedFd<'_>,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    openat(
        proc_self_fd,
        DecInt::from_fd(held),
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

/// Opens the directory that an `O_PATH` descriptor holds, for listing.
///
/// By its name for itself, which costs half of the way through `/proc/self/fd`. That way is left to
/// a daemon that may read the directory and not search it.
pub(crate) fn reopen_directory(
    proc_self_fd: BorrowedFd<'_>,
    held: BorrowedFd<'_>,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(held, c".", flags, Mode::empty()) {
        Err(Errno::ACCESS) => reopen(proc_self_fd, held, flags),
        opened => opened,
    }
}
