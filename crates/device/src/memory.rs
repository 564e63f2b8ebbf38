//! Guest memory: mapped as the front-end describes it, a generation per memory table.
//!
//! A generation stays mapped for as long as a chain of it is in use, whatever the front-end sends
//! meanwhile. No Rust reference to guest memory exists: pieces are handed out as addresses.
//! A front-end that takes its memory away is survived (`fault`), and a connection that ends takes
//! its memory away from what is still inside a call ([`Memory::withdraw`]).
//! This is one of the four modules that may use `unsafe`.
#![expect(
    unsafe_code,
    reason = "one of the four islands: maps guest memory and reads rings in it"
)]

mod fault;
#[cfg(test)]
pub(crate) mod tests;

use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mremap, munmap};
use virtiofs_protocol::{GuestPages, IoVec, ReplySpace};

/// A region as the front-end describes it. Addresses and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionLayout {
    pub(crate) guest_address: u64,
    pub(crate) len: u64,
    pub(crate) user_address: u64,
    pub(crate) file_offset: u64,
}

/// A mapped region.
#[derive(Debug)]
pub(crate) struct Region {
    layout: RegionLayout,
    mapping: *mut u8,
    mapping_len: usize,
    /// Where the region begins in the mapping.
    skip: usize,
    watch: Option<fault::Watch>,
}

// SAFETY: a region is an address range shared with another machine; it belongs to no thread.
unsafe impl Send for Region {}
// SAFETY: as above; it gives no reference to its memory.
unsafe impl Sync for Region {}

impl Region {
    /// Maps a region of a file; `alarm` is an eventfd that is rung when the file is truncated below it.
    ///
    /// # Errors
    ///
    /// EINVAL for a layout that overflows or is empty; else the kernel's.
    pub(crate) fn map(
        layout: RegionLayout,
        file: &OwnedFd,
        alarm: &Arc<OwnedFd>,
    ) -> Result<Self, Errno> {
        let ends = [
            layout.guest_address,
            layout.user_address,
            layout.file_offset,
        ]
        .map(|start| start.checked_add(layout.len));
        if layout.len == 0 || ends.contains(&None) {
            return Err(Errno::INVAL);
        }
        // The file offset need not be a page's: map from the page's start.
        let skip = layout.file_offset % 4096;
        let mapping_len = usize::try_from(layout.len + skip).map_err(|_| Errno::INVAL)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let mapping = unsafe {
            mmap(
                ptr::null_mut(),
                mapping_len,
                protection,
                flags,
                file,
                layout.file_offset - skip,
            )
        }?;
        let mut region = Self {
            layout,
            mapping: mapping.cast(),
            mapping_len,
            skip: usize::try_from(skip).unwrap_or(0),
            watch: None,
        };
        region.watch = Some(fault::Watch::new(mapping, mapping_len, alarm)?);
        Ok(region)
    }

    /// Maps the same memory at another address, too.
    fn duplicate(&self) -> Option<Self> {
        let alarm = self.watch.as_ref()?.alarm();
        // SAFETY: with an old length of zero nothing moves: a shared mapping is mapped once more
        // (man 2 mremap), at an address of the kernel's choice.
        let mapping = unsafe {
            mremap(
                self.mapping.cast(),
                0,
                self.mapping_len,
                MremapFlags::MAYMOVE,
            )
        }
        .ok()?;
        let mut region = Self {
            layout: self.layout,
            mapping: mapping.cast(),
            mapping_len: self.mapping_len,
            skip: self.skip,
            watch: None,
        };
        region.watch = Some(fault::Watch::new(mapping, self.mapping_len, alarm).ok()?);
        Some(region)
    }

    /// From now on what is written here reaches nobody.
    fn detach(&self) {
        // SAFETY: the range is what `map` mapped: guest memory, to which no references exist.
        let replaced = unsafe { fault::replace(self.mapping.cast(), self.mapping_len) };
        if let Err(errno) = replaced {
            tracing::error!("guest memory cannot be taken away from a late request: {errno}");
        }
    }

    pub(crate) fn layout(&self) -> RegionLayout {
        self.layout
    }

    /// Address of the byte at `offset` and the bytes from there to the region's end.
    fn at(&self, offset: u64) -> Option<(*mut u8, usize)> {
        let left = usize::try_from(self.layout.len.checked_sub(offset)?).ok()?;
        let offset = usize::try_from(offset).ok()?;
        Some((self.mapping.wrapping_add(self.skip + offset), left))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.watch = None;
        // SAFETY: the range is exactly what `map` mapped, and whoever used it held the region.
        let unmapped = unsafe { munmap(self.mapping.cast(), self.mapping_len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// All regions of one memory table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    regions: Vec<Arc<Region>>,
}

impl Memory {
    /// Adds a region.
    ///
    /// # Errors
    ///
    /// EEXIST where it overlaps another one.
    pub(crate) fn add(&mut self, region: Region) -> Result<(), Errno> {
        let new = region.layout;
        let overlaps = |old: &Arc<Region>| {
            let old = old.layout;
            new.guest_address < old.guest_address + old.len
                && old.guest_address < new.guest_address + new.len
        };
        if self.regions.iter().any(overlaps) {
            return Err(Errno::EXIST);
        }
        self.regions.push(Arc::new(region));
        self.regions
            .sort_by_key(|region| region.layout.guest_address);
        Ok(())
    }

    /// Removes the region of this guest address, user address and length.
    pub(crate) fn remove(&mut self, layout: RegionLayout) -> bool {
        let before = self.regions.len();
        self.regions.retain(|region| {
            let held = region.layout();
            (held.guest_address, held.user_address, held.len)
                != (layout.guest_address, layout.user_address, layout.len)
        });
        self.regions.len() < before
    }

    pub(crate) fn len(&self) -> usize {
        self.regions.len()
    }

    /// Takes the guest's memory away from whoever still uses this generation; returns it at other
    /// addresses, for a last word.
    ///
    /// What such a request writes afterwards reaches nobody, but for pages that a device already
    /// writes to by itself (direct I/O).
    pub(crate) fn withdraw(&self) -> Self {
        let regions = &self.regions;
        let moved = regions
            .iter()
            .filter_map(|region| region.duplicate().map(Arc::new))
            .collect();
        regions.iter().for_each(|region| region.detach());
        Self { regions: moved }
    }

    /// Whether the front-end truncated a region, and that was noticed.
    pub(crate) fn is_poisoned(&self) -> bool {
        let poisoned =
            |region: &Arc<Region>| region.watch.as_ref().is_some_and(fault::Watch::is_poisoned);
        self.regions.iter().any(poisoned)
    }

    /// Calls `piece` with each contiguous part of a guest range; `None` where a part is not there.
    pub(crate) fn pieces(
        &self,
        mut address: u64,
        mut len: usize,
        mut piece: impl FnMut(IoVec),
    ) -> Option<()> {
        while len > 0 {
            let after = self
                .regions
                .partition_point(|region| region.layout.guest_address <= address);
            let region = self.regions.get(after.checked_sub(1)?)?;
            let (base, left) = region.at(address - region.layout.guest_address)?;
            let count = left.min(len);
            if count == 0 {
                return None;
            }
            piece(IoVec::new(base, count));
            len -= count;
            address = address.checked_add(u64::try_from(count).ok()?)?;
        }
        Some(())
    }

    /// A range in the front-end's own addresses, where rings are stated.
    fn user_range(&self, address: u64, len: usize, align: usize) -> Option<*mut u8> {
        let region = self.regions.iter().find(|region| {
            address
                .checked_sub(region.layout.user_address)
                .is_some_and(|offset| offset < region.layout.len)
        })?;
        let (base, left) = region.at(address - region.layout.user_address)?;
        (left >= len && base.addr().is_multiple_of(align)).then_some(base)
    }
}

/// A descriptor (virtio 1.3, 2.7.5), as it was at the moment it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}
const _: () = assert!(size_of::<Descriptor>() == 16);

/// The three parts of a split ring (virtio 1.3, 2.7) inside a generation of memory.
#[derive(Clone, Debug)]
pub(crate) struct RingMemory {
    memory: Arc<Memory>,
    at: RingAddresses,
    size: u16,
    descriptors: *mut u8,
    available: *mut u8,
    used: *mut u8,
}

// SAFETY: addresses inside a memory generation that the value keeps mapped; every access is atomic
// or a copy out of memory that belongs to no thread.
unsafe impl Send for RingMemory {}
// SAFETY: as above.
unsafe impl Sync for RingMemory {}

/// Where a front-end says the parts of a ring are, in its own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}

impl RingMemory {
    /// Finds a ring; `None` where a part is not there or not aligned (virtio 1.3, 2.7).
    pub(crate) fn new(memory: &Arc<Memory>, size: u16, at: RingAddresses) -> Option<Self> {
        let entries = usize::from(size);
        Some(Self {
            memory: Arc::clone(memory),
            at,
            size,
            descriptors: memory.user_range(at.descriptors, 16 * entries, 16)?,
            // flags, idx, ring, used_event; and flags, idx, ring, avail_event.
            available: memory.user_range(at.available, 6 + 2 * entries, 2)?,
            used: memory.user_range(at.used, 6 + 8 * entries, 4)?,
        })
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The same ring in another generation of memory.
    pub(crate) fn moved_to(&self, memory: &Arc<Memory>) -> Option<Self> {
        Self::new(memory, self.size, self.at)
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// A 16-bit field of the ring, shared with the driver.
    fn field(&self, part: *mut u8, offset: usize) -> &AtomicU16 {
        // SAFETY: `new` checked that the part is mapped, long enough for every offset used here and
        // aligned; an atomic may be shared with the driver, and `self` keeps the memory mapped.
        unsafe { AtomicU16::from_ptr(part.wrapping_add(offset).cast()) }
    }

    pub(crate) fn available_flags(&self) -> u16 {
        self.field(self.available, 0).load(Ordering::Relaxed)
    }

    /// Number of chains the driver has ever made available, modulo 2^16.
    pub(crate) fn available_index(&self) -> u16 {
        self.field(self.available, 2).load(Ordering::Acquire)
    }

    pub(crate) fn available_head(&self, index: u16) -> u16 {
        let slot = usize::from(index % self.size);
        self.field(self.available, 4 + 2 * slot)
            .load(Ordering::Relaxed)
    }

    /// At which used index the driver wants to be called (EVENT_IDX).
    pub(crate) fn used_event(&self) -> u16 {
        self.field(self.available, 4 + 2 * usize::from(self.size))
            .load(Ordering::Relaxed)
    }

    /// At which available index the device wants to be kicked (EVENT_IDX).
    pub(crate) fn set_available_event(&self, index: u16) {
        self.field(self.used, 4 + 8 * usize::from(self.size))
            .store(index, Ordering::SeqCst);
    }

    pub(crate) fn set_used_flags(&self, flags: u16) {
        self.field(self.used, 0).store(flags, Ordering::SeqCst);
    }

    pub(crate) fn set_used_index(&self, index: u16) {
        self.field(self.used, 2).store(index, Ordering::Release);
    }

    pub(crate) fn put_used(&self, index: u16, head: u16, written_bytes: u32) {
        let slot = usize::from(index % self.size);
        let entry = [u32::from(head), written_bytes];
        let to = self.used.wrapping_add(4 + 8 * slot);
        // SAFETY: `new` checked that the used ring has `size` entries, and `slot` is below it.
        unsafe { ptr::copy_nonoverlapping(entry.as_ptr().cast::<u8>(), to, 8) };
    }

    /// Copies a descriptor of the ring's own table out.
    pub(crate) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        let mut descriptor = Descriptor::default();
        let from = self.descriptors.wrapping_add(16 * usize::from(index));
        // SAFETY: `new` checked that the table has `size` entries, and any bytes are a descriptor.
        unsafe { ptr::copy_nonoverlapping(from, (&raw mut descriptor).cast::<u8>(), 16) };
        Some(descriptor)
    }
}

/// A table of descriptors in guest memory, found once for all that are in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndirectTable<'a> {
    memory: &'a Memory,
    address: u64,
    count: u16,
    /// Where it lies, unless it goes on in another region.
    whole: Option<*const u8>,
}

impl<'a> IndirectTable<'a> {
    pub(crate) fn new(memory: &'a Memory, address: u64, count: u16) -> Self {
        let len = 16 * usize::from(count);
        let mut whole = None;
        let found = memory.pieces(address, len, |piece| {
            whole = (piece.len_bytes() == len).then_some(piece.base().cast_const());
        });
        Self {
            memory,
            address,
            count,
            whole: whole.filter(|_| found.is_some()),
        }
    }

    /// Copies a descriptor out.
    pub(crate) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.count {
            return None;
        }
        let Some(table) = self.whole else {
            return indirect_descriptor(self.memory, self.address, index);
        };
        let mut descriptor = Descriptor::default();
        let from = table.wrapping_add(16 * usize::from(index));
        // SAFETY: `new` found the whole table in one region, which `memory` keeps mapped, and any
        // bytes are a descriptor.
        unsafe { ptr::copy_nonoverlapping(from, (&raw mut descriptor).cast::<u8>(), 16) };
        Some(descriptor)
    }
}

/// Copies a descriptor of an indirect table out of guest memory.
fn indirect_descriptor(memory: &Memory, table: u64, index: u16) -> Option<Descriptor> {
    let mut bytes = [0; 16];
    copy_out(
        memory,
        table.checked_add(16 * u64::from(index))?,
        &mut bytes,
    )?;
    let (address, rest) = bytes.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (flags, next) = rest.split_first_chunk::<2>()?;
    Some(Descriptor {
        address: u64::from_ne_bytes(*address),
        len: u32::from_ne_bytes(*len),
        flags: u16::from_ne_bytes(*flags),
        next: u16::from_ne_bytes(next.try_into().ok()?),
    })
}

/// Copies a guest range out.
fn copy_out(memory: &Memory, address: u64, to: &mut [u8]) -> Option<()> {
    let mut done = 0;
    let len = to.len();
    memory.pieces(address, len, |piece| {
        copy_piece(piece, &mut to[done..]);
        done += piece.len_bytes();
    })
}

/// Copies from the front of a piece, as much as both have; returns the count.
pub(crate) fn copy_piece(piece: IoVec, to: &mut [u8]) -> usize {
    let count = piece.len_bytes().min(to.len());
    // SAFETY: pieces are made by `Memory::pieces` of mapped memory, and chains keep it mapped; `to`
    // is a Rust slice and cannot overlap it.
    unsafe { ptr::copy_nonoverlapping(piece.base().cast_const(), to.as_mut_ptr(), count) };
    count
}

/// Copies so many bytes from the front of a piece, if it has them: a number that the compiler knows.
pub(crate) fn copy_array<const LEN: usize>(piece: IoVec, to: &mut [u8; LEN]) -> bool {
    let has_them = piece.len_bytes() >= LEN;
    if has_them {
        // SAFETY: as in `copy_piece`; the piece was seen to be long enough.
        unsafe { ptr::copy_nonoverlapping(piece.base().cast_const(), to.as_mut_ptr(), LEN) };
    }
    has_them
}

/// Makes pages of pieces that a chain keeps mapped.
pub(crate) fn pages<'a, Access>(
    memory: &'a Memory,
    pieces: &'a mut [IoVec],
) -> GuestPages<'a, Access> {
    let _kept_mapped_for_the_lifetime = memory;
    // SAFETY: the pieces were made by `Memory::pieces` of this very generation, which outlives 'a,
    // and nothing in this process makes references to guest memory.
    unsafe { GuestPages::from_iovecs(pieces) }
}

/// Room for a reply.
pub(crate) fn reply_space<'a>(
    memory: &'a Memory,
    header: &'a mut [IoVec],
    body: &'a mut [IoVec],
) -> ReplySpace<'a> {
    ReplySpace::new(pages(memory, header), pages(memory, body))
}
