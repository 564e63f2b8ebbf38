//! Guest memory: memfds that are shared with the daemon.
//!
//! All regions are mapped into one reserved range of our own address space,
//! at the distances that they have in the guest's. So a buffer that crosses
//! two adjacent regions is one piece here, and an address is found by one
//! subtraction. Guest addresses and our own differ, so a daemon that mixes
//! the two up fails.
//!
//! No Rust reference to the shared bytes is ever made, but for atomics.
#![expect(
    unsafe_code,
    reason = "maps memory that another process writes, and copies from and to it"
)]

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::message::MemoryRegion;

/// Where one region lies in the guest's physical address space.
#[derive(Clone, Copy, Debug)]
pub struct RegionSpec {
    /// Guest address of its first byte, a multiple of the page size.
    pub guest_address: u64,
    /// Its length, a multiple of the page size.
    pub len_bytes: u64,
}

/// One region and the file behind it.
#[derive(Debug)]
pub struct Region {
    /// Where the guest has it.
    pub spec: RegionSpec,
    /// What the daemon is told about it.
    pub message: MemoryRegion,
    file: OwnedFd,
}

impl Region {
    /// The memfd to pass to the daemon.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The memory of a guest that consists of nothing else.
#[derive(Debug)]
pub struct GuestMemory {
    base: NonNull<u8>,
    first: u64,
    span: usize,
    regions: Vec<Region>,
    next_free: AtomicU64,
}

// SAFETY: the mapping belongs to this value until it is dropped, and every
// access goes through raw copies or atomics, as the peer process writes it at
// any time anyway.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; no method hands out a plain reference to the bytes.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Makes memory of the given regions, in ascending order without overlap.
    pub fn new(specs: &[RegionSpec]) -> Result<Self> {
        let first = specs
            .first()
            .context("memory needs a region")?
            .guest_address;
        let last = specs.last().context("memory needs a region")?;
        let span = usize::try_from(last.guest_address + last.len_bytes - first)?;
        // SAFETY: a fresh reservation that no one else knows.
        let reserved = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                span,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let base = NonNull::new(reserved.cast::<u8>()).context("mmap returned null")?;
        let mut memory = Self {
            base,
            first,
            span,
            regions: Vec::new(),
            next_free: AtomicU64::new(first),
        };
        for spec in specs {
            let region = memory.map(*spec)?;
            memory.regions.push(region);
        }
        Ok(memory)
    }

    fn map(&self, spec: RegionSpec) -> Result<Region> {
        let file = memfd_create(c"guest-memory", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, spec.len_bytes)?;
        let offset = usize::try_from(spec.guest_address - self.first)?;
        let len = usize::try_from(spec.len_bytes)?;
        ensure!(
            offset + len <= self.span,
            "regions are not in ascending order"
        );
        let at = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: MAP_FIXED replaces a part of our own reservation only, as
        // checked above.
        unsafe {
            mmap(
                at.cast::<c_void>(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                &file,
                0,
            )
        }
        .context("map a guest memory region")?;
        Ok(Region {
            spec,
            message: MemoryRegion {
                guest_address: spec.guest_address,
                size: spec.len_bytes,
                user_address: u64::try_from(at.addr())?,
                mmap_offset: 0,
            },
            file,
        })
    }

    /// The regions, as they are told to the daemon.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Our own address of a guest address: what ring addresses are made of.
    #[must_use]
    pub fn user_address(&self, guest_address: u64) -> u64 {
        guest_address - self.first + self.regions[0].message.user_address
    }

    /// Takes `len_bytes` that were never given out before; never given back.
    pub fn allocate(&self, len_bytes: u64, align: u64) -> Result<u64> {
        let mut current = self.next_free.load(Ordering::Relaxed);
        loop {
            let start = self
                .regions
                .iter()
                .map(|region| {
                    current
                        .max(region.spec.guest_address)
                        .next_multiple_of(align)
                })
                .find(|start| self.holds(*start, len_bytes))
                .context("guest memory is used up")?;
            match self.next_free.compare_exchange_weak(
                current,
                start + len_bytes,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(start),
                Err(seen) => current = seen,
            }
        }
    }

    /// Takes `len_bytes`, the middle of which is where the second region starts.
    pub fn allocate_across_border(&self, len_bytes: u64) -> Result<u64> {
        let border = self
            .regions
            .get(1)
            .context("only one region")?
            .spec
            .guest_address;
        let start = border - len_bytes / 2;
        ensure!(self.holds(start, len_bytes), "regions are not adjacent");
        let before = self
            .next_free
            .fetch_max(start + len_bytes, Ordering::Relaxed);
        ensure!(before <= start, "the border is in use already");
        Ok(start)
    }

    /// Whether adjacent regions hold all of a range.
    fn holds(&self, start: u64, len_bytes: u64) -> bool {
        let Some(end) = start.checked_add(len_bytes) else {
            return false;
        };
        let mut covered = start;
        for region in &self.regions {
            let region_end = region.spec.guest_address + region.spec.len_bytes;
            if (region.spec.guest_address..region_end).contains(&covered) {
                covered = region_end;
            }
        }
        covered > start && covered >= end
    }

    /// Our address of a range, or a panic: the test asked for what is not there.
    #[inline]
    fn at(&self, start: u64, len: usize) -> *mut u8 {
        let len_bytes = len as u64;
        assert!(
            self.holds(start, len_bytes.max(1)),
            "no guest memory at {start:#x}+{len:#x}"
        );
        let offset = usize::try_from(start - self.first).expect("inside the span");
        self.base.as_ptr().wrapping_add(offset)
    }

    /// Copies bytes out of guest memory.
    #[inline]
    pub fn read(&self, start: u64, into: &mut [u8]) {
        let from = self.at(start, into.len());
        // SAFETY: `at` checked that the range is mapped; `into` is ours alone.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes into guest memory.
    #[inline]
    pub fn write(&self, start: u64, from: &[u8]) {
        let into = self.at(start, from.len());
        // SAFETY: `at` checked that the range is mapped and writable.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) }
    }

    /// Reads one value.
    #[inline]
    #[must_use]
    pub fn load<T: FromBytes + IntoBytes>(&self, start: u64) -> T {
        let mut value = T::new_zeroed();
        self.read(start, value.as_mut_bytes());
        value
    }

    /// Writes one value.
    #[inline]
    pub fn store<T: IntoBytes + Immutable>(&self, start: u64, value: &T) {
        self.write(start, value.as_bytes());
    }

    /// Copies bytes out into a new vector.
    #[must_use]
    pub fn bytes(&self, start: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(start, &mut bytes);
        bytes
    }

    /// A 16-bit field that the daemon reads or writes concurrently.
    #[inline]
    #[must_use]
    pub fn atomic_u16(&self, start: u64) -> &AtomicU16 {
        let at = self.at(start, 2).cast::<u16>();
        assert!(at.is_aligned(), "{start:#x} is odd");
        // SAFETY: mapped for as long as `self`, aligned, and only accessed
        // atomically by us (what the peer process does is no Rust access).
        unsafe { AtomicU16::from_ptr(at) }
    }

    /// `read(2)` from a descriptor straight into guest memory.
    pub fn fill_from(&self, file: BorrowedFd<'_>, start: u64, len: usize) -> Result<usize, Errno> {
        let into = self.at(start, len);
        // SAFETY: the kernel writes at most `len` bytes, checked to be mapped;
        // `MaybeUninit` elements carry no promise about them.
        let buffer = unsafe {
            std::slice::from_raw_parts_mut(into.cast::<std::mem::MaybeUninit<u8>>(), len)
        };
        let (filled, _) = rustix::io::read(file, buffer)?;
        Ok(filled.len())
    }

    /// `write(2)` to a descriptor straight from guest memory.
    pub fn drain_to(&self, file: BorrowedFd<'_>, start: u64, len: usize) -> Result<usize, Errno> {
        let from = self.at(start, len);
        // SAFETY: mapped, and the daemon has handed the bytes back: it does
        // not write a buffer that it completed.
        let bytes = unsafe { std::slice::from_raw_parts(from, len) };
        rustix::io::write(file, bytes)
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the reservation of `new`, unmapped once; every user holds an
        // `Arc` or a borrow of `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.span) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn three_regions() -> GuestMemory {
        let spec = |guest_address| RegionSpec {
            guest_address,
            len_bytes: MIB,
        };
        GuestMemory::new(&[spec(MIB), spec(2 * MIB), spec(8 * MIB)]).unwrap()
    }

    #[test]
    fn bytes_written_across_a_border_land_in_both_files() {
        let memory = three_regions();
        let at = memory.allocate_across_border(8).unwrap();
        memory.write(at, b"leftside");
        let mut tail = [0; 4];
        let mut head = [0; 4];
        rustix::io::pread(memory.regions()[0].file(), &mut tail, MIB - 4).unwrap();
        rustix::io::pread(memory.regions()[1].file(), &mut head, 0).unwrap();
        assert_eq!((&tail, &head), (b"left", b"side"));
        assert_eq!(memory.bytes(at, 8), b"leftside");
    }

    #[test]
    fn allocation_skips_the_hole_and_ends_at_the_end() {
        let memory = three_regions();
        assert_eq!(memory.allocate(2 * MIB, 4096).unwrap(), MIB);
        assert_eq!(memory.allocate(MIB, 4096).unwrap(), 8 * MIB);
        assert!(memory.allocate(1, 1).is_err());
    }

    #[test]
    #[should_panic(expected = "no guest memory")]
    fn the_hole_cannot_be_read() {
        let _ = three_regions().load::<u64>(4 * MIB);
    }
}
