//! Asynchronous input and output of the kernel's own (man 2 io_submit).

use std::ffi::c_long;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::last;

/// What may be under way at once.
pub(in super::super) const SLOTS: usize = 32;
/// Bytes of a slot.
pub(in super::super) const SLOT: usize = 4096;
/// An address at which Linux maps nothing, being below `vm.mmap_min_addr`.
const NOWHERE: u64 = 4096;

/// What is to be done (`IOCB_CMD_*`, uapi/linux/aio_abi.h).
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Work {
    /// From the file into the slot: so many bytes.
    Read(usize),
    /// From the slot into the file.
    Write(usize),
    /// Into an address that nothing has.
    ReadToNowhere,
    /// As fsync(2) does.
    Sync,
    /// As fdatasync(2) does.
    SyncData,
}

/// `struct iocb`.
#[repr(C)]
#[derive(Default)]
struct Block {
    data: u64,
    key: u32,
    flags: u32,
    code: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    more_flags: u32,
    event: u32,
}

/// `struct io_event`: what has come of the work in a slot.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    result2: i64,
}

/// A context with memory for its work, page by page.
pub(in super::super) struct Aio {
    context: u64,
    memory: NonNull<u8>,
}

impl Aio {
    pub(in super::super) fn new() -> Result<Self> {
        let mut context = 0_u64;
        // SAFETY: fills in a number that lives during the call.
        done(unsafe { libc::syscall(libc::SYS_io_setup, SLOTS, &raw mut context) })?;
        let (both, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a place of the kernel's choice, which nothing else uses.
        let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), SLOTS * SLOT, both, private) };
        let memory = NonNull::new(memory?.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { context, memory })
    }

    fn at(&self, slot: usize, place: usize) -> *mut u8 {
        assert!(slot < SLOTS && place < SLOT);
        // SAFETY: inside the memory, as was just seen.
        unsafe { self.memory.as_ptr().add(slot * SLOT + place) }
    }

    pub(in super::super) fn fill(&self, slot: usize, byte: u8) {
        // SAFETY: the whole slot, to whose bytes there are no references.
        unsafe { self.at(slot, 0).write_bytes(byte, SLOT) }
    }

    pub(in super::super) fn get(&self, slot: usize, place: usize) -> u8 {
        // SAFETY: inside the memory; the kernel may write it at any time.
        unsafe { self.at(slot, place).read_volatile() }
    }

    /// Hands in work with the memory of a slot, at an offset of a file.
    pub(in super::super) fn submit(
        &self,
        file: impl AsFd,
        slot: usize,
        offset: usize,
        work: Work,
    ) -> Result<()> {
        let (code, len) = match work {
            Work::Read(len) => (0, len),
            Work::ReadToNowhere => (0, SLOT),
            Work::Write(len) => (1, len),
            Work::Sync => (2, 0),
            Work::SyncData => (3, 0),
        };
        assert!(len <= SLOT);
        let buffer = match work {
            Work::ReadToNowhere => NOWHERE,
            Work::Sync | Work::SyncData => 0,
            Work::Read(_) | Work::Write(_) => self.at(slot, 0).addr() as u64,
        };
        let block = Block {
            data: slot as u64,
            code,
            file: file.as_fd().as_raw_fd().cast_unsigned(),
            buffer,
            len: len as u64,
            offset: offset.cast_signed() as i64,
            ..Block::default()
        };
        let blocks = [&raw const block];
        // SAFETY: the kernel copies the block, and writes into the slot only, which lives as long as the context; at
        // an address where nothing is it fails.
        done(unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1, blocks.as_ptr()) })
            .map(drop)
    }

    /// What came of so much work, slot by slot: a count of bytes, or the error.
    pub(in super::super) fn wait(
        &self,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<(usize, Result<usize>)>> {
        let mut events = [Event::default(); SLOTS];
        let limit = libc::timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        // SAFETY: there is room for as many events as may be under way.
        let came = done(unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                count,
                SLOTS,
                events.as_mut_ptr(),
                &raw const limit,
            )
        })?;
        let came = usize::try_from(came).unwrap_or(0);
        let mut results: Vec<(usize, Result<usize>)> = events[..came]
            .iter()
            .map(|event| {
                let slot = usize::try_from(event.data).unwrap_or(usize::MAX);
                (slot, outcome(event.result))
            })
            .collect();
        results.sort_by_key(|(slot, _)| *slot);
        Ok(results)
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: waits for what is under way, so that nothing writes to the memory any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
        // SAFETY: the whole memory, of which no reference exists.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), SLOTS * SLOT) };
    }
}

fn done(returned: c_long) -> Result<c_long> {
    if returned < 0 {
        Err(last())
    } else {
        Ok(returned)
    }
}

/// A count, or an error as a negative number.
fn outcome(result: i64) -> Result<usize> {
    usize::try_from(result).map_err(|_| {
        let number = i32::try_from(result.unsigned_abs()).unwrap_or(libc::EIO);
        Errno::from_raw_os_error(number)
    })
}
