//! An image of guest memory with a ring in it: mapped once and served on this thread, or through a whole connection.
#![no_main]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use virtiofs_device::fuzzing::{MappedRegion, Rig};
use virtiofs_fuzz::held::{Descriptors, Threads};
use virtiofs_fuzz::image::{self, Expected, FILE_BYTES, Image, REGIONS};
use virtiofs_fuzz::input::Input;
use virtiofs_fuzz::seeds;
use virtiofs_fuzz::serving::{Layout, serve};
use virtiofs_fuzz::strict::Strict;
use virtiofs_fuzz::wire::{self, Outcome, Wire, longs, words};
use virtiofs_protocol::{Session, SessionOptions};

const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;

/// The first of the queues for requests.
const QUEUE: u32 = 1;

/// What the first byte says.
const INIT: u8 = 1;
const WITH_EVENT_IDX: u8 = 2;
const WITH_ENABLE: u8 = 4;
const SLEEPY: u8 = 8;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let control = input.u8();
    let image = Image::read(&mut input);
    let file = memory_file();
    file.write_all_at(&image.bytes, 0)
        .expect("memory is written");
    let mut rig = rig().lock().unwrap_or_else(PoisonError::into_inner);
    let before = Descriptors::now();
    let stopped_at = if wire::has_threads(bytes) {
        serve_with_threads(&image, control)
    } else {
        begin(rig.session(), control);
        rig.serve(image.ring(features(control)))
            .expect("a ring that can be served")
    };
    before.assert_again();
    let mut after = vec![0; FILE_BYTES];
    file.read_exact_at(&mut after, 0).expect("memory is read");
    image::assert_nobodys(&after);
    check(&image, &after, control & SLEEPY != 0, stopped_at);
});

/// Queues for all runs, and their guest's memory.
fn rig() -> &'static Mutex<Rig<Strict>> {
    static RIG: OnceLock<Mutex<Rig<Strict>>> = OnceLock::new();
    RIG.get_or_init(|| {
        let session = Session::new(Strict::default(), SessionOptions::default());
        let file = memory_file().try_clone().expect("a descriptor").into();
        let rig = Rig::new(Arc::new(session), &file, &regions()).expect("memory is mapped");
        Mutex::new(rig)
    })
}

fn regions() -> [MappedRegion; REGIONS.len()] {
    let mut regions = REGIONS.map(|region| MappedRegion {
        guest_address: region.guest,
        len: region.len as u64,
        user_address: region.user,
        file_offset: region.file as u64,
    });
    if cfg!(feature = "planted") {
        // The planted defect: a front-end that shares the third region from too early on.
        regions[2].file_offset -= 0x80;
    }
    regions
}

fn features(control: u8) -> u64 {
    let mut features = VERSION_1;
    if control & WITH_EVENT_IDX != 0 {
        features |= EVENT_IDX;
    }
    if control & WITH_ENABLE != 0 {
        features |= PROTOCOL_FEATURES;
    }
    features
}

/// One memory for all runs.
fn memory_file() -> &'static File {
    static FILE: OnceLock<File> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd"));
        file.set_len(FILE_BYTES as u64).expect("a length");
        file
    })
}

fn begin(session: &Session<Strict>, control: u8) {
    if control & INIT != 0 {
        serve(session, Layout::WHOLE, &seeds::init(u64::MAX));
    }
    let sleepy = control & SLEEPY != 0;
    session.filesystem().sleepy.store(sleepy, Ordering::Relaxed);
}

/// Says where memory and the ring are, and has it started.
fn describe(wire: &Wire, image: &Image, control: u8, file: &File) {
    let mut table = words(&[REGIONS.len() as u32, 0]);
    for region in regions() {
        table.extend(longs(&[
            region.guest_address,
            region.len,
            region.user_address,
            region.file_offset,
        ]));
    }
    let [descriptors, available, used] = image.addresses();
    let (kick, call): (OwnedFd, OwnedFd) = (wire::event(), wire::event());
    wire.send(2, &longs(&[features(control)]), &[]);
    wire.send(5, &table, &[file.as_fd(); REGIONS.len()]);
    wire.send(8, &words(&[QUEUE, image.size.into()]), &[]);
    wire.send(10, &words(&[QUEUE, image.base.into()]), &[]);
    let mut addresses = words(&[QUEUE, 0]);
    addresses.extend(longs(&[descriptors, used, available, 0]));
    wire.send(9, &addresses, &[]);
    wire.send(13, &longs(&[QUEUE.into()]), &[call.as_fd()]);
    wire.send(12, &longs(&[QUEUE.into()]), &[kick.as_fd()]);
    if control & WITH_ENABLE != 0 {
        wire.send(18, &words(&[QUEUE, 1]), &[]);
    }
}

/// Lets the device's own threads serve until the ring is empty, where it is certain that it ever will be.
fn serve_with_threads(image: &Image, control: u8) -> u16 {
    let session = Arc::new(Session::new(Strict::default(), SessionOptions::default()));
    begin(&session, control);
    let end = match image.expected() {
        Expected::Completed(due) if control & SLEEPY == 0 => {
            Some(image.base.wrapping_add(due.len() as u16))
        }
        _ => None,
    };
    let is_served = || end.is_none_or(|end| published(memory_file()) == Some(end));
    let wire = Wire::new();
    describe(&wire, image, control, memory_file());
    // A queue that is told to stop leaves what it has not begun: so that is told last.
    let stop = wire::message(11, wire::VERSION, 8, &words(&[QUEUE, 0]));
    let threads = Threads::now();
    let outcome = wire.serve_with_threads(&session, None, is_served, &stop);
    threads.wait_for();
    index_stopped_at(&outcome)
}

/// What the one reply says; the ring is sound enough for the device to go on in any case.
fn index_stopped_at(outcome: &Outcome) -> u16 {
    assert!(
        outcome.ended.is_ok(),
        "the device gave up: {:?}",
        outcome.ended
    );
    let [(11, payload)] = &outcome.replies[..] else {
        panic!("not the one answer due: {:?}", outcome.replies);
    };
    u16::from_ne_bytes([payload[4], payload[5]])
}

/// The used ring's index.
fn published(file: &File) -> Option<u16> {
    let mut index = [0; 2];
    file.read_exact_at(&mut index, image::USED as u64 + 2)
        .ok()?;
    Some(u16::from_ne_bytes(index))
}

fn check(image: &Image, after: &[u8], sleepy: bool, stopped_at: u16) {
    let due = match image.expected() {
        Expected::Uncertain => return,
        // A head that is parked may not come again, and what is parked completes in any order.
        _ if sleepy => return,
        Expected::Broken => Vec::new(),
        Expected::Completed(due) => due,
    };
    let end = image.base.wrapping_add(due.len() as u16);
    assert_eq!(stopped_at, end, "the index to go on from");
    // In any order: a thread that is kept inside a call loses the queue, and completes that chain late.
    let mut left = due;
    for slot in 0..left.len() {
        let index = image.base.wrapping_add(slot as u16);
        let (published, head, written) = image::used(after, image.size, index);
        assert_eq!(published, end, "the used ring's index");
        // What is written for a head is the same each time: nothing that is read was written over.
        let place = left.iter().position(|due| u32::from(due.head) == head);
        let due = place.map(|place| left.swap_remove(place));
        assert!(
            due.is_some_and(|due| written as usize <= due.most_written),
            "completion {slot}: {written} bytes for {head}, {due:?}"
        );
    }
}
