use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;

const PAGE: u64 = 4096;

/// Memory of a test: regions of one file each, at the front-end's addresses guest + 2^40.
pub(crate) struct Guest {
    pub(crate) memory: Arc<Memory>,
    files: Vec<OwnedFd>,
    alarm: Arc<OwnedFd>,
}

pub(crate) const USER: u64 = 1 << 40;

impl Guest {
    /// Regions at these guest addresses, of so many pages.
    pub(crate) fn new(regions: &[(u64, u64)]) -> Self {
        let alarm = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let alarm = Arc::new(alarm);
        let mut memory = Memory::default();
        let mut files = Vec::new();
        for &(guest_address, pages) in regions {
            let file = file(pages * PAGE);
            let region = Region::map(layout(guest_address, pages * PAGE), &file, &alarm);
            memory.add(region.unwrap()).unwrap();
            files.push(file);
        }
        Self {
            memory: Arc::new(memory),
            files,
            alarm,
        }
    }

    /// Writes as the guest would, through the file.
    pub(crate) fn write(&self, region: usize, offset: u64, bytes: &[u8]) {
        let count = rustix::io::pwrite(&self.files[region], bytes, offset).unwrap();
        assert_eq!(count, bytes.len());
    }

    /// Reads as the guest would.
    pub(crate) fn read(&self, region: usize, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let count = rustix::io::pread(&self.files[region], &mut bytes[..], offset).unwrap();
        assert_eq!(count, len);
        bytes
    }

    pub(crate) fn read_u16(&self, region: usize, offset: u64) -> u16 {
        u16::from_ne_bytes(self.read(region, offset, 2).try_into().unwrap())
    }
}

fn file(len: u64) -> OwnedFd {
    let file = memfd_create(c"guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len).unwrap();
    file
}

fn layout(guest_address: u64, len: u64) -> RegionLayout {
    RegionLayout {
        guest_address,
        len,
        user_address: guest_address + USER,
        file_offset: 0,
    }
}

fn map(layout: RegionLayout) -> Result<Region, Errno> {
    let alarm = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    Region::map(layout, &file(16 * PAGE), &alarm)
}

#[test]
fn a_layout_that_overflows_or_is_empty_is_no_region() {
    let good = layout(PAGE, PAGE);
    let end = u64::MAX - PAGE + 1;
    let cases = [
        ("good", good, true),
        ("empty", RegionLayout { len: 0, ..good }, false),
        (
            "guest address",
            RegionLayout {
                guest_address: end,
                ..good
            },
            false,
        ),
        (
            "user address",
            RegionLayout {
                user_address: end,
                ..good
            },
            false,
        ),
        (
            "file offset",
            RegionLayout {
                file_offset: end,
                ..good
            },
            false,
        ),
        (
            "length",
            RegionLayout {
                len: u64::MAX,
                ..good
            },
            false,
        ),
        (
            "offset inside a page",
            RegionLayout {
                file_offset: 100,
                ..good
            },
            true,
        ),
    ];
    for (what, layout, want) in cases {
        assert_eq!(map(layout).is_ok(), want, "{what}");
    }
}

#[test]
fn regions_may_touch_and_not_overlap() {
    let cases = [
        ("before", 0, 2, true),
        ("behind", 5, 1, true),
        ("the same", 2, 3, false),
        ("its first page", 1, 2, false),
        ("its last page", 4, 2, false),
        ("inside", 3, 1, false),
        ("around", 1, 6, false),
    ];
    for (what, page, pages, want) in cases {
        let mut memory = Memory::default();
        memory
            .add(map(layout(2 * PAGE, 3 * PAGE)).unwrap())
            .unwrap();
        let added = memory.add(map(layout(page * PAGE, pages * PAGE)).unwrap());
        assert_eq!(added.is_ok(), want, "{what}");
        assert_eq!(memory.len(), if want { 2 } else { 1 }, "{what}");
    }
}

#[test]
fn only_the_region_that_was_named_is_removed() {
    let held = layout(2 * PAGE, PAGE);
    let mut memory = Memory::default();
    memory.add(map(held).unwrap()).unwrap();
    memory.add(map(layout(4 * PAGE, PAGE)).unwrap()).unwrap();
    for other in [
        RegionLayout {
            guest_address: PAGE,
            ..held
        },
        RegionLayout {
            user_address: 7,
            ..held
        },
        RegionLayout {
            len: 2 * PAGE,
            ..held
        },
    ] {
        assert!(!memory.remove(other), "{other:?}");
    }
    assert!(
        memory.remove(RegionLayout {
            file_offset: 9,
            ..held
        }),
        "the offset is not compared"
    );
    assert!(!memory.remove(held), "twice");
    assert_eq!(memory.len(), 1);
}

/// Lengths of a range's pieces.
fn pieces(memory: &Memory, address: u64, len: usize) -> Option<Vec<usize>> {
    let mut lengths = Vec::new();
    memory
        .pieces(address, len, |piece| lengths.push(piece.len_bytes()))
        .map(|()| lengths)
}

#[test]
fn a_range_is_found_across_adjacent_regions_and_nowhere_else() {
    let guest = Guest::new(&[(PAGE, 1), (2 * PAGE, 2), (8 * PAGE, 1)]);
    let page = 4096_usize;
    let cases = [
        (PAGE, 10, Some(vec![10])),
        (PAGE, page, Some(vec![page])),
        (2 * PAGE - 4, 8, Some(vec![4, 4])),
        (PAGE, 3 * page, Some(vec![page, 2 * page])),
        (PAGE, 3 * page + 1, None),
        (PAGE - 1, 2, None),
        (4 * PAGE, 1, None),
        (8 * PAGE + 4095, 1, Some(vec![1])),
        (8 * PAGE + 4095, 2, None),
        (u64::MAX, 1, None),
        (u64::MAX, usize::MAX, None),
        (PAGE, usize::MAX, None),
        (0, 0, Some(vec![])),
    ];
    for (address, len, want) in cases {
        assert_eq!(
            pieces(&guest.memory, address, len),
            want,
            "{address:#x}+{len}"
        );
    }
}

#[test]
fn a_ring_lies_in_one_region_and_is_aligned() {
    let guest = Guest::new(&[(PAGE, 2)]);
    let at = |descriptors, available, used| RingAddresses {
        descriptors: USER + descriptors,
        available: USER + available,
        used: USER + used,
    };
    let (size, page) = (16_u16, PAGE);
    let cases = [
        ("well placed", at(page, page + 256, page + 512), true),
        ("overlapping", at(page, page, page), true),
        ("table at the end", at(3 * page - 256, page, page), true),
        ("table over the end", at(3 * page - 240, page, page), false),
        ("table misaligned", at(page + 8, page, page), false),
        ("available misaligned", at(page, page + 1, page), false),
        (
            "available over the end",
            at(page, 3 * page - 36, page),
            false,
        ),
        ("available at the end", at(page, 3 * page - 38, page), true),
        ("used misaligned", at(page, page, page + 2), false),
        ("used over the end", at(page, page, 3 * page - 128), false),
        ("used at the end", at(page, page, 3 * page - 136), true),
        ("before the region", at(0, page, page), false),
        ("behind the region", at(page, 3 * page, page), false),
    ];
    for (what, addresses, want) in cases {
        let ring = RingMemory::new(&guest.memory, size, addresses);
        assert_eq!(ring.is_some(), want, "{what}");
    }
    let wrapping = RingAddresses {
        descriptors: u64::MAX - 15,
        available: u64::MAX,
        used: u64::MAX,
    };
    assert!(RingMemory::new(&guest.memory, size, wrapping).is_none());
}

#[test]
fn truncated_memory_reads_as_zeroes_and_rings_the_alarm() {
    let guest = Guest::new(&[(PAGE, 2), (4 * PAGE, 1)]);
    guest.write(0, 0, b"here");
    let load = |address| {
        let mut bytes = [0xff; 4];
        copy_out(&guest.memory, address, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(&load(PAGE), b"here");
    assert!(!guest.memory.is_poisoned());
    ftruncate(&guest.files[0], 0).unwrap();
    assert_eq!(load(2 * PAGE), [0; 4]);
    assert!(guest.memory.is_poisoned());
    let mut count = [0; 8];
    assert_eq!(rustix::io::read(&*guest.alarm, &mut count[..]), Ok(8));
    // The whole region went, so one fault was all.
    assert_eq!(load(PAGE), [0; 4]);
    assert_eq!(
        rustix::io::read(&*guest.alarm, &mut count[..]),
        Err(Errno::AGAIN)
    );
}

#[test]
fn a_region_mapped_after_a_poisoned_one_is_sound() {
    let guest = Guest::new(&[(PAGE, 1)]);
    ftruncate(&guest.files[0], 0).unwrap();
    copy_out(&guest.memory, PAGE, &mut [0; 1]).unwrap();
    assert!(guest.memory.is_poisoned());
    drop(guest);
    assert!(!Guest::new(&[(PAGE, 1)]).memory.is_poisoned());
}

fn touch_truncated_memory_that_is_no_guests() -> ! {
    let _installs_the_handler = Guest::new(&[(PAGE, 1)]);
    let own = file(PAGE);
    let flags = MapFlags::SHARED;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { mmap(ptr::null_mut(), 4096, ProtFlags::READ, flags, &own, 0) }.unwrap();
    ftruncate(&own, 0).unwrap();
    // SAFETY: mapped; that the page is gone is the point.
    let byte = unsafe { at.cast::<u8>().read_volatile() };
    panic!("survived, and read {byte}");
}

/// Runs itself once more, in a process that ends by it.
#[test]
fn a_fault_outside_guest_memory_ends_the_process() {
    const IN_THE_CHILD: &str = "VIRTIOFSD_TOUCHES_TRUNCATED_MEMORY";
    if std::env::var_os(IN_THE_CHILD).is_some() {
        touch_truncated_memory_that_is_no_guests();
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--quiet"])
        .arg("memory::tests::a_fault_outside_guest_memory_ends_the_process")
        .env(IN_THE_CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status:?}");
}

#[test]
fn withdrawn_memory_is_reached_at_its_new_address_only() {
    let guest = Guest::new(&[(PAGE, 1)]);
    let mut old = Vec::new();
    guest
        .memory
        .pieces(PAGE, 8, |piece| old.push(piece))
        .unwrap();
    guest.write(0, 0, b"original");
    let moved = guest.memory.withdraw();
    let late = crate::chain::tests::put(&guest.memory, &mut old, b"too late");
    assert_eq!(late, 8);
    assert_eq!(guest.read(0, 0, 8), b"original");
    let mut new = Vec::new();
    moved.pieces(PAGE, 8, |piece| new.push(piece)).unwrap();
    crate::chain::tests::put(&moved, &mut new, b"in time!");
    assert_eq!(guest.read(0, 0, 8), b"in time!");
}

#[test]
fn a_generation_stays_mapped_for_as_long_as_it_is_used() {
    let guest = Guest::new(&[(PAGE, 1)]);
    guest.write(0, 0, b"kept");
    let user = Arc::clone(&guest.memory);
    let Guest { memory, files, .. } = guest;
    drop((memory, files));
    let mut bytes = [0; 4];
    copy_out(&user, PAGE, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    let _ = user.as_ref().regions[0].layout().file_offset;
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, [0; 4096]).unwrap();
    let alarm = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let read_only: OwnedFd = std::fs::File::open(&path).unwrap().into();
    let a_directory: OwnedFd = std::fs::File::open(directory.path()).unwrap().into();
    let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
    for (what, descriptor) in [
        ("read-only", read_only),
        ("a directory", a_directory),
        ("a pipe", pipe),
    ] {
        let mapped = Region::map(layout(PAGE, PAGE), &descriptor, &alarm);
        assert!(mapped.is_err(), "{what}");
        assert!(descriptor.as_fd().try_clone_to_owned().is_ok());
    }
}
