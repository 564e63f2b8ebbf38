//! Files in memory.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, MprotectFlags, MsyncFlags, ProtFlags, mmap, mprotect, msync, munmap};

use super::last;

/// A file in memory. What stands there may change at any time, so each byte is read and written by itself.
pub(in super::super) struct Map {
    start: NonNull<u8>,
    len: usize,
}

impl Map {
    pub(in super::super) fn of(
        file: impl AsFd,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self> {
        // SAFETY: a place of the kernel's choice, which nothing else uses.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    /// For reading and writing, shared.
    pub(in super::super) fn shared(file: impl AsFd, len: usize) -> Result<Self> {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        Self::of(file, len, both, MapFlags::SHARED)
    }

    fn at(&self, place: usize) -> *mut u8 {
        assert!(place < self.len, "{place} is outside of the map");
        // SAFETY: inside the map, as was just seen.
        unsafe { self.start.as_ptr().add(place) }
    }

    /// Where so many bytes of it begin.
    fn part(&self, place: usize, len: usize) -> *mut libc::c_void {
        assert!(len <= self.len && place <= self.len - len);
        self.at(place).cast()
    }

    pub(in super::super) fn get(&self, place: usize) -> u8 {
        // SAFETY: mapped as long as this value lives; beyond the file's end the signal ends the process.
        unsafe { self.at(place).read_volatile() }
    }

    pub(in super::super) fn set(&self, place: usize, byte: u8) {
        // SAFETY: as in `get`; nobody has a reference to it.
        unsafe { self.at(place).write_volatile(byte) }
    }

    /// Reads from a file into the map.
    pub(in super::super) fn read(
        &self,
        file: impl AsFd,
        place: usize,
        len: usize,
        offset: i64,
    ) -> Result<usize> {
        let part = self.part(place, len);
        // SAFETY: so many bytes of the map are there, and nobody has a reference to them.
        let read = unsafe { libc::pread(file.as_fd().as_raw_fd(), part, len, offset) };
        usize::try_from(read).map_err(|_| last())
    }

    /// Writes from the map into a file.
    pub(in super::super) fn write(
        &self,
        file: impl AsFd,
        place: usize,
        len: usize,
        offset: i64,
    ) -> Result<usize> {
        let part = self.part(place, len);
        // SAFETY: so many bytes of the map are there.
        let written = unsafe { libc::pwrite(file.as_fd().as_raw_fd(), part, len, offset) };
        usize::try_from(written).map_err(|_| last())
    }

    pub(in super::super) fn protect(&self, protection: MprotectFlags) -> Result<()> {
        // SAFETY: the whole map; who may not touch it any more is ended by a signal.
        unsafe { mprotect(self.start.as_ptr().cast(), self.len, protection) }
    }

    pub(in super::super) fn sync(&self, flags: MsyncFlags) -> Result<()> {
        // SAFETY: the whole map.
        unsafe { msync(self.start.as_ptr().cast(), self.len, flags) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the whole map, of which no reference exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
