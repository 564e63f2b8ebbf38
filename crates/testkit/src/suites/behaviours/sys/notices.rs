//! What fanotify tells, and asks (man 7 fanotify).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result, read, write};

use super::done;

/// A group of marks, and what it has been told.
pub(in super::super) struct Notices(OwnedFd);

/// Something that was done with a file.
pub(in super::super) struct Notice {
    /// What: `FAN_*`.
    pub(in super::super) mask: u64,
    /// The file, open for reading.
    pub(in super::super) file: OwnedFd,
    /// Who did it.
    pub(in super::super) pid: i32,
}

impl Notices {
    /// Of what happens (`FAN_CLASS_NOTIF`), or of what is about to (`FAN_CLASS_CONTENT`).
    pub(in super::super) fn new(class: u32) -> Result<Self> {
        let flags = class | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let events = (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned();
        // SAFETY: takes numbers only.
        let group = done(unsafe { libc::fanotify_init(flags, events) })?;
        // SAFETY: was opened just now, for nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(group) }))
    }

    /// Adds to a mark, or takes from it, as `flags` says (`FAN_MARK_*`).
    pub(in super::super) fn mark(&self, flags: u32, mask: u64, name: &str) -> Result<()> {
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        let group = self.0.as_fd().as_raw_fd();
        // SAFETY: the name ends with a zero and lives during the call.
        done(unsafe { libc::fanotify_mark(group, flags, mask, libc::AT_FDCWD, name.as_ptr()) })
            .map(drop)
    }

    /// What is told by now, or within this time if nothing is.
    pub(in super::super) fn within(&self, limit: Duration) -> Result<Vec<Notice>> {
        const SIZE: usize = size_of::<libc::fanotify_event_metadata>();
        let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit))?;
        let mut buffer = [0_u8; 64 * SIZE];
        let len = match read(&self.0, &mut buffer[..]) {
            Err(Errno::AGAIN) => 0,
            len => len?,
        };
        // Without an identifier of files each is as long as its head.
        let heads = buffer[..len].chunks_exact(SIZE).map(|bytes| {
            // SAFETY: so many bytes are there, of numbers only, whatever their alignment.
            unsafe {
                bytes
                    .as_ptr()
                    .cast::<libc::fanotify_event_metadata>()
                    .read_unaligned()
            }
        });
        Ok(heads
            .filter(|head| head.fd >= 0)
            .map(|head| Notice {
                mask: head.mask,
                // SAFETY: the kernel opened it for the reader of this event.
                file: unsafe { OwnedFd::from_raw_fd(head.fd) },
                pid: head.pid,
            })
            .collect())
    }

    /// Lets happen what was asked about, or not.
    pub(in super::super) fn answer(&self, notice: &Notice, response: u32) -> Result<()> {
        let [a, b, c, d] = notice.file.as_raw_fd().to_ne_bytes();
        let [e, f, g, h] = response.to_ne_bytes();
        write(&self.0, &[a, b, c, d, e, f, g, h]).map(drop)
    }
}
