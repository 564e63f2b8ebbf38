//! System calls that neither the standard library nor rustix offers: clone, signalfd, descriptors by number, file
//! handles, the environment's memory.
#![expect(unsafe_code, reason = "one of the four islands")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;

/// Who came back from a fork.
pub(crate) enum Forked {
    /// The child.
    Child,
    /// The parent, with the child's pid.
    Parent(i32),
}

/// Forks. Only before the first thread is started.
pub(crate) fn fork() -> rustix::io::Result<Forked> {
    // SAFETY: called while the process has one thread, so the child may do what it likes.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
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

/// Kinds of namespaces (man 7 namespaces).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces(libc::c_int);

impl Namespaces {
    /// Each kind in which the daemon has no business with the host's.
    pub(crate) const ALL: Self = Self(
        libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP,
    );
    /// As [`Self::ALL`], owned by a user namespace of their own: needs no privilege.
    pub(crate) const ALL_OF_A_USER: Self = Self(Self::ALL.0 | libc::CLONE_NEWUSER);
}

/// Forks into new namespaces; the parent stays where it is. Only before the first thread is started.
pub(crate) fn clone_into(namespaces: Namespaces) -> rustix::io::Result<Forked> {
    let flags = libc::c_long::from(namespaces.0 | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork(2) with namespaces: the child
    // goes on with a copy of everything. The process has one thread, so no lock is held elsewhere;
    // that the C library is not told leaves it with a cached thread id that nothing here asks for.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(last_errno()),
        0 => Ok(Forked::Child),
        pid => i32::try_from(pid)
            .map(Forked::Parent)
            .map_err(|_| rustix::io::Errno::RANGE),
    }
}

/// Ends this process at once: for a child that must not run its parent's clean-up.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// Closes every descriptor but the standard three and these, in ascending order. Only where nobody owns the others.
pub(crate) fn close_all_but(kept: &[i32]) -> io::Result<()> {
    let mut first = 3;
    for number in kept.iter().filter_map(|number| u32::try_from(*number).ok()) {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: by the caller's contract nothing in this process owns a descriptor of the range.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Empties the environment, and the memory in which the kernel shows it (`/proc/PID/environ`).
///
/// Only while the process has one thread.
pub(crate) fn clear_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: one thread, so nobody changes the pointer meanwhile.
    let mut variable = unsafe { environ };
    while !variable.is_null() {
        // SAFETY: `environ` is an array that ends with a null pointer, and `variable` is inside it.
        let text = unsafe { *variable };
        if text.is_null() {
            break;
        }
        // SAFETY: each entry is a NUL-terminated string that belongs to the process.
        let len = unsafe { libc::strlen(text) };
        // SAFETY: `len` bytes from `text` on are that string, and nobody reads it meanwhile.
        unsafe { std::ptr::write_bytes(text, 0, len) };
        // SAFETY: the array has one more entry, at least the null pointer.
        variable = unsafe { variable.add(1) };
    }
    // SAFETY: one thread, so nobody reads the environment meanwhile.
    unsafe { libc::clearenv() };
}

/// Tries a system call whose arguments are numbers, flags or null pointers.
#[cfg(test)]
pub(crate) fn attempt(number: libc::c_long, arguments: [usize; 5]) -> rustix::io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the tests pass no pointer but null, and run in a process that ends right after.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}

/// Calls getpid as a 32-bit program would: another door into the kernel, with other numbers.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) fn enter_as_i386() {
    // SAFETY: getpid of the i386 table (20) takes no argument; the registers it changes are named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_u64 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
}

/// Most bytes of a file handle (`MAX_HANDLE_SZ`, linux/exportfs.h).
const MOST_HANDLE_BYTES: usize = 128;

/// What the kernel finds an inode by (`struct file_handle`, man 2 open_by_handle_at).
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct RawHandle {
    len_bytes: u32,
    kind: i32,
    bytes: [u8; MOST_HANDLE_BYTES],
}

impl RawHandle {
    /// Takes what a handle was said to be. `None` when it is too long for one.
    pub(crate) fn new(kind: i32, bytes: &[u8]) -> Option<Self> {
        let mut handle = Self {
            len_bytes: u32::try_from(bytes.len()).ok()?,
            kind,
            bytes: [0; MOST_HANDLE_BYTES],
        };
        handle.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(handle)
    }

    /// The store's own kind of handle.
    pub(crate) fn kind(&self) -> i32 {
        self.kind
    }

    /// What the store put into it.
    pub(crate) fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.len_bytes).unwrap_or(MOST_HANDLE_BYTES);
        &self.bytes[..len.min(MOST_HANDLE_BYTES)]
    }
}

/// Asks for the handle of what a descriptor holds. Needs no privilege.
pub(crate) fn name_to_handle(held: impl AsFd) -> rustix::io::Result<RawHandle> {
    let mut handle = RawHandle {
        len_bytes: 128,
        kind: 0,
        bytes: [0; MOST_HANDLE_BYTES],
    };
    let mut mount: libc::c_int = 0;
    // SAFETY: `handle` is laid out as the kernel's struct with room for the length it states, `mount` is a place for
    // a number, and the path is an empty C string: the descriptor is what is meant.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            held.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if done == 0 {
        Ok(handle)
    } else {
        Err(last_errno())
    }
}

/// Opens what a handle finds, on the mount of a descriptor. Needs CAP_DAC_READ_SEARCH.
pub(crate) fn open_by_handle(
    mount: BorrowedFd<'_>,
    handle: &RawHandle,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    // SAFETY: `handle` is laid out as the kernel's struct, with the bytes whose number it states; it is only read.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_ref(handle),
            flags.bits(),
        )
    };
    match i32::try_from(opened) {
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(last_errno()),
    }
}

/// From here on a child that ends is gone at once, and nobody can ask how it ended.
pub(crate) fn leave_no_zombies() -> rustix::io::Result<()> {
    // SAFETY: no handler is installed: the kernel is told to ignore the signal.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(last_errno());
    }
    Ok(())
}
