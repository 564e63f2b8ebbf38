//! What checks need of the system and rustix lacks: children, locks of ranges, maps, handles.
#![expect(
    unsafe_code,
    reason = "calls that rustix lacks or leaves unsafe: fork, fcntl, mmap, ioctl, handles"
)]

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, waitpid,
};

pub(super) mod aio;
mod handle;
mod locks;
mod map;
pub(super) mod notices;

pub(super) use handle::Handle;
pub(super) use locks::{Kind, Owner, Range, in_the_way, lease, lock, lock_waiting, set_lease};
pub(super) use map::Map;

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn done(returned: c_int) -> Result<c_int> {
    if returned < 0 {
        Err(last())
    } else {
        Ok(returned)
    }
}

/// A process that was forked off; killed and reaped when dropped.
pub(super) struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it ends within this time.
    pub(super) fn ends_within(&self, limit: Duration) -> Result<bool> {
        let process = pidfd_open(self.pid, PidfdFlags::empty())?;
        let mut entry = [PollFd::new(&process, PollFlags::IN)];
        let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
        loop {
            match poll(&mut entry, Some(&limit)) {
                Err(Errno::INTR) => {}
                ended => return Ok(ended? == 1),
            }
        }
    }

    /// Waits for its end, however long that takes.
    pub(super) fn wait(&mut self) -> Result<WaitStatus> {
        let ended = waitpid(Some(self.pid), WaitOptions::empty())?;
        self.reaped = true;
        ended.map(|(_, status)| status).ok_or(Errno::CHILD)
    }

    pub(super) fn kill(&self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.wait();
        }
    }
}

/// Runs `work` in a child, which ends with its result as exit code.
///
/// Only for programs of one thread: no other thread's locks can be held in the child then.
pub(super) fn fork(work: impl FnOnce() -> u8) -> Result<Child> {
    // SAFETY: the program has one thread, so that the child finds every lock free.
    let pid = done(unsafe { libc::fork() })?;
    if let Some(pid) = Pid::from_raw(pid) {
        return Ok(Child { pid, reaped: false });
    }
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
    // SAFETY: ends the child without running what the parent registered to run at its exit.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Seconds and nanoseconds of the clock that files get their times from.
pub(super) fn coarse_now() -> (i64, i64) {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: fills in a structure that lives during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    (now.tv_sec, now.tv_nsec)
}

/// From now on a write beyond `RLIMIT_FSIZE` is an error and no signal.
pub(super) fn ignore_file_size_signal() {
    // SAFETY: no handler is called.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Cuts a file by its name.
pub(super) fn truncate(name: &str, size: u64) -> Result<()> {
    let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
    // SAFETY: the name ends with a zero and lives during the call.
    done(unsafe { libc::truncate(name.as_ptr(), size.cast_signed()) }).map(drop)
}

/// Writes from an address that nothing has.
pub(super) fn write_from_nowhere(file: impl AsFd) -> Result<usize> {
    // SAFETY: the kernel looks at the address and refuses; nothing else does.
    let written = unsafe { libc::write(file.as_fd().as_raw_fd(), std::ptr::dangling(), 4096) };
    usize::try_from(written).map_err(|_| last())
}

/// Writes out a part of a file (man 2 sync_file_range).
pub(super) fn sync_file_range(file: impl AsFd, offset: i64, len: i64, flags: u32) -> Result<()> {
    // SAFETY: takes numbers only.
    let synced = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), offset, len, flags) };
    done(synced).map(drop)
}

/// `struct fiemap` with room for some extents (uapi/linux/fiemap.h).
#[repr(C)]
struct ExtentMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [[u64; 7]; 16],
}

/// How many extents a file has, 16 at most (`FS_IOC_FIEMAP`).
pub(super) fn extents(file: impl AsFd) -> Result<u32> {
    /// `_IOWR('f', 11, struct fiemap)`, whose extents do not count.
    const COMMAND: libc::Ioctl = 0xc020_660b;
    let mut map = ExtentMap {
        start: 0,
        length: u64::MAX,
        flags: 1, // FIEMAP_FLAG_SYNC
        mapped: 0,
        count: 16,
        reserved: 0,
        extents: [[0; 7]; 16],
    };
    // SAFETY: the structure has room for as many extents as it says, and lives during the call.
    done(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), COMMAND, &raw mut map) })?;
    Ok(map.mapped)
}
