//! System calls that rustix lacks: data to and from guest pages, and raw directory entries.
#![expect(
    unsafe_code,
    reason = "one of the four islands: pages of the guest are no Rust slices"
)]

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::path::DecInt;
use virtiofs_protocol::{Errno, FileOffset, GuestPages, IoVec, Readable, Writable};

/// Flags of one read or write (`RWF_*`).
pub(crate) type RwFlags = libc::c_int;

/// `RWF_NOWAIT` (linux/fs.h): EAGAIN instead of sleeping.
pub(crate) const RWF_NOWAIT: RwFlags = 0x08;
/// `RWF_APPEND` (linux/fs.h): at the end of the file, whatever the offset.
pub(crate) const RWF_APPEND: RwFlags = 0x10;

/// Most pieces that one call takes (`IOV_MAX`).
pub(crate) const IOV_MAX: usize = 1024;

const _: () = assert!(size_of::<IoVec>() == size_of::<libc::iovec>());
const _: () = assert!(align_of::<IoVec>() == align_of::<libc::iovec>());

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The only piece, where a call without flags can take it whole: that saves the kernel a list.
fn only_piece(pieces: &[IoVec], skip: usize, flags: RwFlags) -> Option<&IoVec> {
    match pieces {
        [piece] if skip == 0 && flags == 0 => Some(piece),
        _ => None,
    }
}

/// Calls with the first [`IOV_MAX`] pieces of what lies behind `skip` bytes, and their count.
fn with_rest<T>(
    pieces: &[IoVec],
    skip: usize,
    call: impl FnOnce(*const libc::iovec, libc::c_int) -> T,
) -> Result<T, Errno> {
    let count = |pieces: &[IoVec]| libc::c_int::try_from(pieces.len()).map_err(|_| Errno::INVAL);
    if skip == 0 {
        let pieces = &pieces[..pieces.len().min(IOV_MAX)];
        return Ok(call(pieces.as_ptr().cast(), count(pieces)?));
    }
    let mut left = skip;
    let mut rest = Vec::new();
    for piece in pieces {
        let gone = left.min(piece.len_bytes());
        left -= gone;
        if gone < piece.len_bytes() && rest.len() < IOV_MAX {
            rest.push(IoVec::new(
                piece.base().wrapping_add(gone),
                piece.len_bytes() - gone,
            ));
        }
    }
    Ok(call(rest.as_ptr().cast(), count(&rest)?))
}

/// Reads into what lies behind the first `skip` bytes of `pages` (man 2 preadv2, pread).
///
/// One call, so at most [`IOV_MAX`] pieces.
pub(crate) fn preadv2(
    file: BorrowedFd<'_>,
    pages: &GuestPages<'_, Writable>,
    skip: usize,
    offset: FileOffset,
    flags: RwFlags,
) -> Result<usize, Errno> {
    if let Some(piece) = only_piece(pages.iovecs(), skip, flags) {
        let (base, len) = (piece.base().cast(), piece.len_bytes());
        // SAFETY: as below, for a piece alone.
        let read = unsafe { libc::pread(file.as_raw_fd(), base, len, offset.get()) };
        return usize::try_from(read).map_err(|_| last_errno());
    }
    let read = with_rest(pages.iovecs(), skip, |pieces, count| {
        // SAFETY: `pieces` holds `count` entries laid out as iovecs, and by the contract of
        // `GuestPages::from_iovecs` each names writable memory that outlives the call and that no
        // Rust reference points to. A guest racing with the kernel on it is its own affair.
        unsafe { libc::preadv2(file.as_raw_fd(), pieces, count, offset.get(), flags) }
    })?;
    usize::try_from(read).map_err(|_| last_errno())
}

/// Writes what lies behind the first `skip` bytes of `pages` (man 2 pwritev2, pwrite).
///
/// One call, so at most [`IOV_MAX`] pieces.
pub(crate) fn pwritev2(
    file: BorrowedFd<'_>,
    pages: &GuestPages<'_, Readable>,
    skip: usize,
    offset: FileOffset,
    flags: RwFlags,
) -> Result<usize, Errno> {
    if let Some(piece) = only_piece(pages.iovecs(), skip, flags) {
        let (base, len) = (piece.base().cast(), piece.len_bytes());
        // SAFETY: as in `preadv2`; the kernel only reads the memory.
        let written = unsafe { libc::pwrite(file.as_raw_fd(), base, len, offset.get()) };
        return usize::try_from(written).map_err(|_| last_errno());
    }
    let written = with_rest(pages.iovecs(), skip, |pieces, count| {
        // SAFETY: as in `preadv2`; the kernel only reads the memory.
        unsafe { libc::pwritev2(file.as_raw_fd(), pieces, count, offset.get(), flags) }
    })?;
    usize::try_from(written).map_err(|_| last_errno())
}

/// Sets the size of what a descriptor holds, by its number in the working directory (man 2 truncate).
///
/// The caller has made sure that the working directory is `/proc/self/fd`.
pub(crate) fn truncate(descriptor: BorrowedFd<'_>, size: FileOffset) -> Result<(), Errno> {
    let number = DecInt::from_fd(descriptor);
    // SAFETY: the path is a C string that outlives the call.
    let done = unsafe { libc::truncate(number.as_c_str().as_ptr(), size.get()) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// What the clock says that file systems take times from: seconds and nanoseconds since 1970.
///
/// By the C library, which asks the kernel's own page: rustix would look for that page first, by
/// system calls of its own.
pub(crate) fn coarse_time() -> (i64, i64) {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `time` alone. The clock exists since Linux 2.6.32, so this
    // cannot fail; if it did, the time would be 1970.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    (time.tv_sec, time.tv_nsec)
}

/// Closes a descriptor and tells what the store says to that (man 2 close).
pub(crate) fn close(file: OwnedFd) -> Result<(), Errno> {
    // SAFETY: the number was the value's alone, which is given up here. Linux closes it whatever
    // it answers, so it is never closed twice.
    let closed = unsafe { libc::close(file.into_raw_fd()) };
    match closed {
        0 => Ok(()),
        // Nobody interrupted the guest: that it is not known how it went is an error of the store.
        _ => Err(Some(last_errno())
            .filter(|errno| *errno != Errno::INTR)
            .unwrap_or(Errno::IO)),
    }
}

/// Reads raw `struct linux_dirent64` records (man 2 getdents64); 0 at the directory's end.
pub(crate) fn getdents64(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer, which is ours.
    let read = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            directory.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    usize::try_from(read).map_err(|_| last_errno())
}
