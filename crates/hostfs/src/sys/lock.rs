//! Locks of open file descriptions, and the signal that ends a wait for one.
#![expect(
    unsafe_code,
    reason = "one of the four islands: rustix has no locks of ranges that belong to a description"
)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::retry_on_intr;
use rustix::thread::Pid;
use virtiofs_protocol::Errno;
use virtiofs_protocol::op::{LockRange, LockType};

use super::raw::last_errno;

/// The last byte of any file: a lock up to it has length 0 (man 2 fcntl).
pub(crate) const LAST_BYTE: u64 = i64::MAX.unsigned_abs();

/// What a waiting thread is woken with: it has no effect where nobody expects it.
const WAKE_UP: libc::c_int = libc::SIGURG;

/// Whether a call may sleep until the lock is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// EAGAIN at once.
    None,
    /// EINTR when the thread is woken.
    UntilWoken,
}

/// Takes or gives back a lock that belongs to this open file description (`F_OFD_SETLK`, man 2 fcntl).
pub(crate) fn set(
    file: BorrowedFd<'_>,
    lock_type: LockType,
    range: LockRange,
    patience: Patience,
) -> Result<(), Errno> {
    let mut lock = to_kernel(lock_type, range)?;
    match patience {
        // A network store may sleep all the same, and a late signal find it there.
        Patience::None => retry_on_intr(|| call(file, libc::F_OFD_SETLK, &mut lock)),
        Patience::UntilWoken => call(file, libc::F_OFD_SETLKW, &mut lock),
    }
}

/// Finds a lock in the way of this one (`F_OFD_GETLK`); its type and range.
pub(crate) fn get(
    file: BorrowedFd<'_>,
    lock_type: LockType,
    range: LockRange,
) -> Result<Option<(LockType, LockRange)>, Errno> {
    let mut lock = to_kernel(lock_type, range)?;
    call(file, libc::F_OFD_GETLK, &mut lock)?;
    let lock_type = match libc::c_int::from(lock.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => LockType::Read,
        _ => LockType::Write,
    };
    let start = u64::try_from(lock.l_start).map_err(|_| Errno::INVAL)?;
    let end = match u64::try_from(lock.l_len) {
        Ok(len @ 1..) => start.saturating_add(len - 1).min(LAST_BYTE),
        Ok(0) | Err(_) => LAST_BYTE,
    };
    Ok(Some((lock_type, LockRange { start, end })))
}

fn to_kernel(lock_type: LockType, range: LockRange) -> Result<libc::flock, Errno> {
    let number = match lock_type {
        LockType::Read => libc::F_RDLCK,
        LockType::Write => libc::F_WRLCK,
        LockType::Unlock => libc::F_UNLCK,
    };
    let len = match range.end {
        LAST_BYTE.. => 0,
        end => end.checked_sub(range.start).ok_or(Errno::INVAL)? + 1,
    };
    // SAFETY: all bytes zero is a `struct flock`: from the file's begin to its end, no process.
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    lock.l_type = libc::c_short::try_from(number).map_err(|_| Errno::INVAL)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(|_| Errno::INVAL)?;
    lock.l_start = range.start.try_into().map_err(|_| Errno::INVAL)?;
    lock.l_len = len.try_into().map_err(|_| Errno::INVAL)?;
    Ok(lock)
}

fn call(file: BorrowedFd<'_>, command: libc::c_int, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: the three commands take a `struct flock`, which outlives the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, ptr::from_mut(lock)) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Lets [`wake`] end calls: the signal gets a handler that does nothing, and calls are not restarted after it.
pub(crate) fn prepare_to_wake() -> Result<(), Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all bytes zero is a `struct sigaction`: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(libc::c_int) = nothing;
    action.sa_sigaction = handler as usize;
    // SAFETY: the struct lives through the call, and the handler touches nothing.
    let done = unsafe { libc::sigaction(WAKE_UP, &raw const action, ptr::null_mut()) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Lets this thread be woken, whatever it inherited.
pub(crate) fn let_wake() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised, and the number is a signal's.
    unsafe { libc::sigaddset(set.as_mut_ptr(), WAKE_UP) };
    // SAFETY: the set is initialised; nothing but this thread's mask changes, and the call fails for no valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut()) };
}

/// Ends the call that a thread of this process sleeps in; without effect on one that runs.
pub(crate) fn wake(thread: Pid) {
    // SAFETY: no memory is passed.
    let process = unsafe { libc::getpid() };
    // SAFETY: numbers only. The signal has a handler that does nothing, so it harms no thread.
    unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            process,
            thread.as_raw_nonzero().get(),
            WAKE_UP,
        )
    };
}
