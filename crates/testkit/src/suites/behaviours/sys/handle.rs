//! File handles.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::{Errno, Result};

use super::done;

/// `struct file_handle` with room for the longest one (man 2 name_to_handle_at).
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Handle {
    len: u32,
    kind: c_int,
    bytes: [u8; 128],
}

impl Handle {
    pub(in super::super) fn of(directory: impl AsFd, name: &str, flags: AtFlags) -> Result<Self> {
        Self::with_room(128, directory, name, flags)
    }

    /// For a handle of so many bytes at most.
    pub(in super::super) fn with_room(
        room: u32,
        directory: impl AsFd,
        name: &str,
        flags: AtFlags,
    ) -> Result<Self> {
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        let mut handle = Self {
            len: room,
            kind: 0,
            bytes: [0; 128],
        };
        let mut mount = 0;
        // SAFETY: the name ends with a zero, and the handle has the room that it states, or states
        // more than the kernel accepts; all live during the call.
        let found = unsafe {
            libc::name_to_handle_at(
                directory.as_fd().as_raw_fd(),
                name.as_ptr(),
                (&raw mut handle).cast(),
                &raw mut mount,
                flags.bits().cast_signed(),
            )
        };
        done(found).map(|_| handle)
    }

    pub(in super::super) fn len_bytes(&self) -> u32 {
        self.len
    }

    /// The same bytes, as another kind of handle.
    pub(in super::super) fn of_kind(&self, kind: c_int) -> Self {
        Self {
            kind,
            ..self.clone()
        }
    }

    /// Opens what it stands for on the mount that a file lies on.
    pub(in super::super) fn open(&self, mount: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        let mut handle = self.clone();
        let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
        // SAFETY: the handle states how long it is, and lives during the call.
        let opened = unsafe {
            libc::open_by_handle_at(mount.as_fd().as_raw_fd(), (&raw mut handle).cast(), flags)
        };
        let opened = done(opened)?;
        // SAFETY: was opened just now, for nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(opened) })
    }
}
