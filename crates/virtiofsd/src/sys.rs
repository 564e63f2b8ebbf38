//! System calls that neither the standard library nor rustix offers: fork, signalfd, descriptors by number.
#![expect(unsafe_code, reason = "one of the four islands")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Who came back from a fork.
pub(crate) enum Forked {
    /// The child.
    Child,
    /// The parent, with the child's pid.
    Parent(i32),
}

/// Forks. Only before the first thread is started.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: called while the process has one thread, so the child may do what it likes.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Blocks signals and returns a descriptor that reports them (man 2 signalfd).
pub(crate) fn signalfd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: all zeroes is a valid `sigset_t`, and `sigemptyset` makes it an empty one.
    let mut set = unsafe { std::mem::zeroed::<libc::sigset_t>() };
    // SAFETY: `set` is a valid place for a set.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: `set` is an initialised set, and the number is a signal's.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` is an initialised set; the old one is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is an initialised set, and -1 asks for a new descriptor.
    let descriptor =
        unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes a descriptor that was handed to the process by number.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number; nothing is owned yet.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the command line gave it to us; nothing else here has taken it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Waits for a child; its exit code, or 128 and the signal that ended it.
pub(crate) fn wait_for(child: i32) -> io::Result<i32> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            return Ok(code);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Makes a namespace of each kind that the daemon has no business in (man 2 unshare).
pub(crate) fn unshare_all() -> rustix::io::Result<()> {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: no flag among them concerns memory or descriptors.
    if unsafe { libc::unshare(namespaces) } == 0 {
        return Ok(());
    }
    Err(
        rustix::io::Errno::from_io_error(&io::Error::last_os_error())
            .unwrap_or(rustix::io::Errno::PERM),
    )
}
