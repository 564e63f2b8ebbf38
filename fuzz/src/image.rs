//! An image of guest memory with one ring in it, and what serving it must come to.
//!
//! Three regions of one file: the first holds the ring, the second continues it in the guest's
//! addresses, the third lies close to the end of all addresses. Behind each are bytes of the file
//! that belong to nobody.

use std::ops::Range;

use virtiofs_device::fuzzing::Ring;

use crate::input::Input;

/// A region of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Where the guest has it.
    pub guest: u64,
    /// Where the front-end has it.
    pub user: u64,
    /// Where the file has it.
    pub file: usize,
    /// Its length in bytes; no multiple of a page, so that something follows it in the mapping.
    pub len: usize,
}

/// All of them.
pub const REGIONS: [Region; 3] = [
    Region {
        guest: 0x1_0000,
        user: 0x7000_0000_0000,
        file: 0,
        len: 0x3f80,
    },
    Region {
        guest: 0x1_3f80,
        user: 0x7100_0000_0000,
        file: 0x4000,
        len: 0x3f00,
    },
    Region {
        guest: u64::MAX - 0x4fff,
        user: 0x7200_0000_0000,
        file: 0x8000,
        len: 0x4000,
    },
];
/// Length of the file in bytes.
pub const FILE_BYTES: usize = 0xd000;
/// What stands in the file outside the regions.
const NOBODYS: u8 = 0x5a;

/// Where the descriptors are in the first region.
const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 0x1000;
/// Where the used ring is in the first region.
pub const USED: usize = 0x2000;
/// Where the ring ends, and what else the guest has there begins.
const RING_END: usize = 0x3000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A ring and what stands around it.
#[derive(Debug)]
pub struct Image {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Entries of the ring.
    pub size: u16,
    /// Index from which it goes on.
    pub base: u16,
}

/// What must have happened to one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its first descriptor.
    pub head: u16,
    /// Most bytes that may be said to be written.
    pub most_written: usize,
}

/// What must have happened to the ring.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: its index is nonsense.
    Broken,
    /// Each chain completed.
    Completed(Vec<Due>),
    /// The guest had the device write over what the device reads, so nothing is certain.
    Uncertain,
}

impl Image {
    /// Builds an image from a fuzzer's bytes.
    pub fn read(input: &mut Input<'_>) -> Self {
        let mut bytes = vec![NOBODYS; FILE_BYTES];
        for region in REGIONS {
            bytes[region.file..region.file + region.len].fill(0);
        }
        let size = 1 << (input.u8() % 8);
        let base = input.choose(&[0, 0, 1, 3, 0xffff, 0xfffe, 0x8000]);
        let heads = input.u8() % 24;
        // More than `size` is what no driver does.
        let ahead = match input.u8() {
            0xff => input.u16(),
            _ => u16::from(heads).min(size),
        };
        let mut image = Self { bytes, size, base };
        for slot in 0..u16::from(heads) {
            let head = u16::from(input.u8());
            let at = AVAILABLE + 4 + 2 * usize::from(base.wrapping_add(slot) % size);
            image.put(at, &head.to_ne_bytes());
        }
        image.put(AVAILABLE + 2, &base.wrapping_add(ahead).to_ne_bytes());
        for index in 0..usize::from(input.u8() % 64) {
            let descriptor = descriptor(input);
            image.put(DESCRIPTORS + 16 * index, &descriptor);
        }
        while !input.is_empty() {
            let region = input.choose(&REGIONS);
            let offset = usize::from(input.u16());
            let content = match input.u8() {
                // A table of descriptors of its own.
                0xff => (0..input.u8() % 16)
                    .flat_map(|_| descriptor(input))
                    .collect(),
                len => input.bytes(len.into()).to_vec(),
            };
            if let Some(room) = region.len.checked_sub(offset) {
                image.put(region.file + offset, &content[..content.len().min(room)]);
            }
        }
        // As far as the device has come before.
        image.put(USED + 2, &base.to_ne_bytes());
        image
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Addresses of descriptors, available and used ring as the front-end has them.
    pub fn addresses(&self) -> [u64; 3] {
        [DESCRIPTORS, AVAILABLE, USED].map(|at| REGIONS[0].user + at as u64)
    }

    /// The ring as a device is told about it.
    pub fn ring(&self, features: u64) -> Ring {
        Ring {
            features,
            size: self.size,
            base: self.base,
            addresses: self.addresses(),
        }
    }

    /// Says what serving the ring must come to, by rules of our own (virtio 1.3, 2.7).
    pub fn expected(&self) -> Expected {
        let ahead = self.u16(AVAILABLE + 2).wrapping_sub(self.base);
        if ahead > self.size {
            return Expected::Broken;
        }
        let (mut due, mut read, mut written) = (Vec::new(), Vec::new(), Vec::new());
        read.push(0..RING_END);
        for slot in 0..ahead {
            let at = usize::from(self.base.wrapping_add(slot) % self.size);
            let head = self.u16(AVAILABLE + 4 + 2 * at);
            let mut ranges = Ranges::default();
            let most_written = match self.walk(head, &mut ranges) {
                Some(()) => ranges.written.iter().map(ExactSizeIterator::len).sum(),
                None => {
                    ranges.written.clear();
                    0
                }
            };
            read.append(&mut ranges.read);
            written.append(&mut ranges.written);
            due.push(Due { head, most_written });
        }
        let meet = |one: &Range<usize>, other: &Range<usize>| {
            one.start < other.end && other.start < one.end
        };
        if written
            .iter()
            .any(|one| read.iter().any(|other| meet(one, other)))
        {
            return Expected::Uncertain;
        }
        Expected::Completed(due)
    }

    /// Follows a chain; `None` when there is no request in it.
    fn walk(&self, head: u16, ranges: &mut Ranges) -> Option<()> {
        let mut entry = self.entry(head)?;
        let (mut table, mut most) = (None, self.size);
        if entry.flags & INDIRECT != 0 {
            most = u16::try_from(entry.len / 16).ok()?;
            if entry.flags & NEXT != 0 || most == 0 || entry.len % 16 != 0 {
                return None;
            }
            table = Some(entry.address);
            entry = self.table_entry(entry.address, 0, ranges)?;
        }
        let mut readable = 0;
        // A table has up to 65,535 entries, and inputs that make a loop of them are many.
        let mut seen = vec![false; if table.is_some() { most.into() } else { 0 }];
        for _ in 0..most {
            let writes = entry.flags & WRITE != 0;
            if entry.flags & INDIRECT != 0 || (!writes && !ranges.written.is_empty()) {
                return None;
            }
            let parts = parts(entry.address, entry.len as usize)?;
            if writes {
                ranges.written.extend(parts);
            } else {
                readable += entry.len as usize;
                ranges.read.extend(parts);
            }
            if entry.flags & NEXT == 0 {
                return (readable >= 40).then_some(());
            }
            entry = match table {
                None => self.entry(entry.next)?,
                Some(table) => {
                    // What leads back leads nowhere, however often it is followed.
                    let is_first = !std::mem::replace(seen.get_mut(usize::from(entry.next))?, true);
                    is_first.then_some(())?;
                    self.table_entry(table, entry.next, ranges)?
                }
            };
        }
        None
    }

    /// An entry of an indirect table, which may lie across regions.
    fn table_entry(&self, table: u64, index: u16, ranges: &mut Ranges) -> Option<Entry> {
        let parts = parts(table.checked_add(16 * u64::from(index))?, 16)?;
        let (mut bytes, mut at) = ([0; 16], 0);
        for part in &parts {
            bytes[at..at + part.len()].copy_from_slice(&self.bytes[part.clone()]);
            at += part.len();
        }
        ranges.read.extend(parts);
        Some(Entry::of(&bytes))
    }

    fn entry(&self, index: u16) -> Option<Entry> {
        let at = DESCRIPTORS + 16 * usize::from(index);
        (index < self.size).then(|| Entry::of(&self.bytes[at..at + 16]))
    }
}

/// The used ring in the file's bytes: its index and the entries of the last round.
pub fn used(bytes: &[u8], size: u16, index: u16) -> (u16, u32, u32) {
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let at = USED + 4 + 8 * usize::from(index % size);
    let published = u16::from_ne_bytes([bytes[USED + 2], bytes[USED + 3]]);
    (published, word(at), word(at + 4))
}

/// Checks that nothing outside the regions was touched.
///
/// # Panics
///
/// When something was.
pub fn assert_nobodys(bytes: &[u8]) {
    // As long as any gap; compared as a whole, which is not counted byte by byte as coverage.
    static UNTOUCHED: [u8; 0x2000] = [NOBODYS; 0x2000];
    let mut end = 0;
    let starts = REGIONS.iter().map(|region| region.file);
    let ends = REGIONS.iter().map(|region| region.file + region.len);
    for (start, next_end) in starts.chain([FILE_BYTES]).zip(ends.chain([FILE_BYTES])) {
        assert!(
            bytes[end..start] == UNTOUCHED[..start - end],
            "written behind a region"
        );
        end = next_end;
    }
}

#[derive(Debug, Default)]
struct Ranges {
    read: Vec<Range<usize>>,
    written: Vec<Range<usize>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Entry {
    fn of(bytes: &[u8]) -> Self {
        Self {
            address: u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes")),
            len: u32::from_ne_bytes(bytes[8..12].try_into().expect("four bytes")),
            flags: u16::from_ne_bytes([bytes[12], bytes[13]]),
            next: u16::from_ne_bytes([bytes[14], bytes[15]]),
        }
    }
}

/// Where a guest range is in the file; `None` where a part of it is not memory.
fn parts(address: u64, len: usize) -> Option<Vec<Range<usize>>> {
    let (mut address, mut left) = (address, len);
    let mut parts = Vec::new();
    while left > 0 {
        let (region, offset) = REGIONS.iter().find_map(|region| {
            let offset = usize::try_from(address.checked_sub(region.guest)?).ok()?;
            (offset < region.len).then_some((region, offset))
        })?;
        let count = left.min(region.len - offset);
        parts.push(region.file + offset..region.file + offset + count);
        address = address.checked_add(count as u64)?;
        left -= count;
    }
    Some(parts)
}

/// A descriptor: mostly one that points into memory.
fn descriptor(input: &mut Input<'_>) -> [u8; 16] {
    let control = input.u8();
    let address = match control & 3 {
        3 => input.u64(),
        region => REGIONS[usize::from(region)]
            .guest
            .wrapping_add(input.u16().into()),
    };
    let len = match control >> 2 & 3 {
        3 => input.u32(),
        _ => u32::from(input.u16() & 0x1fff),
    };
    let flags = u16::from(control >> 4 & 7);
    let next = u16::from(input.u8());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_ne_bytes());
    bytes[8..12].copy_from_slice(&len.to_ne_bytes());
    bytes[12..14].copy_from_slice(&flags.to_ne_bytes());
    bytes[14..].copy_from_slice(&next.to_ne_bytes());
    bytes
}
