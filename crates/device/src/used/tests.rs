use super::*;

#[cfg(model)]
mod model;

#[test]
fn the_driver_is_called_when_its_event_index_is_passed() {
    let cases = [
        (0, 1, 0, true),
        (1, 1, 0, false),
        (5, 16, 0, true),
        (16, 16, 0, false),
        (65_535, 0, 65_535, true),
        (65_530, 2, 65_528, true),
        (3, 2, 65_528, false),
    ];
    for (event, new, old, want) in cases {
        assert_eq!(
            passes(event, new, old),
            want,
            "event {event}, {old} -> {new}"
        );
    }
}

use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};

use crate::chain::tests::{guest, ring};
use crate::memory::tests::Guest;

const PAGE: u64 = 4096;
/// Offsets in the file of the first region: see `chain::tests::ring`.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = PAGE;
const USED: u64 = 2 * PAGE;
const SIZE: u16 = 8;

fn event() -> (OwnedFd, Call) {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let call = Call::new(event.try_clone().unwrap()).unwrap();
    (event, call)
}

/// How often an eventfd was signalled since the last time.
fn signals(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(event, &mut count[..]) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

fn used_entry(guest: &Guest, slot: u16) -> (u32, u32) {
    let bytes = guest.read(0, USED + 4 + 8 * u64::from(slot), 8);
    let [a, b, c, d, e, f, g, h] = bytes.try_into().unwrap();
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}

fn done(head: u16) -> Completion {
    Completion {
        head,
        written_bytes: 100 + u32::from(head),
    }
}

#[test]
fn a_completion_survives_its_word() {
    for head in [0, 1, 0x1234, u16::MAX] {
        for written_bytes in [0, 16, 0x1234_5678, u32::MAX] {
            let completion = Completion {
                head,
                written_bytes,
            };
            assert_eq!(Completion::from_bits(completion.to_bits()), completion);
        }
    }
}

#[test]
fn a_batch_is_one_index_and_at_most_one_call_also_where_the_index_wraps() {
    // Ring's index before, event index, batch, calls.
    let cases = [
        (0_u16, 0_u16, 1_u16, 1),
        (0, 0, 5, 1),
        (0, 3, 5, 1),
        (0, 5, 5, 0),
        (0, u16::MAX, 5, 0),
        (65_533, 65_534, 5, 1),
        (65_533, 1, 5, 1),
        (65_533, 2, 5, 0),
        (65_533, 65_532, 5, 0),
    ];
    for (index, event_index, batch, calls) in cases {
        let guest = guest();
        let used = UsedRing::new(ring(&guest, SIZE), index, Notification::EventIndex);
        let (event, call) = event();
        used.set_call(Some(call));
        let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
        guest.write(0, used_event, &event_index.to_ne_bytes());
        let batch: Vec<Completion> = (0..batch).map(done).collect();
        used.complete(&batch);
        let case = format!("index {index}, event {event_index}, {}", batch.len());
        assert_eq!(signals(&event), calls, "{case}");
        for (completion, at) in batch.iter().zip(0..) {
            let slot = index.wrapping_add(at) % SIZE;
            let want = (u32::from(completion.head), completion.written_bytes);
            assert_eq!(used_entry(&guest, slot), want, "{case}");
        }
        let want = index.wrapping_add(u16::try_from(batch.len()).unwrap());
        assert_eq!(guest.read_u16(0, USED + 2), want, "{case}");
    }
}

#[test]
fn without_event_index_the_drivers_flag_decides() {
    for (flags, calls) in [(0_u16, 1), (1, 0)] {
        let guest = guest();
        let used = UsedRing::new(ring(&guest, SIZE), 0, Notification::Flag);
        let (event, call) = event();
        used.set_call(Some(call));
        guest.write(0, AVAILABLE, &flags.to_ne_bytes());
        used.complete(&[done(1), done(2)]);
        assert_eq!(signals(&event), calls);
    }
}

#[test]
fn an_empty_batch_changes_nothing() {
    let guest = guest();
    let used = UsedRing::new(ring(&guest, SIZE), 7, Notification::Flag);
    let (event, call) = event();
    used.set_call(Some(call));
    used.complete(&[]);
    assert_eq!((signals(&event), guest.read_u16(0, USED + 2)), (0, 0));
}

#[test]
fn a_queue_that_is_down_is_not_written_to() {
    let guest = guest();
    let used = UsedRing::new(ring(&guest, SIZE), 0, Notification::Flag);
    used.parked(3).unwrap();
    assert!(used.take_down().is_some());
    used.complete_parked(done(3));
    used.complete(&[done(4)]);
    assert_eq!(guest.read_u16(0, USED + 2), 0);
    assert!(used.take_down().is_none(), "once");
}

#[test]
fn a_head_is_in_flight_once() {
    let guest = guest();
    let used = UsedRing::new(ring(&guest, SIZE), 0, Notification::Flag);
    used.parked(3).unwrap();
    assert_eq!(used.parked(3), Err(DeviceError::InFlight { head: 3 }));
    assert_eq!(used.parked_if(3, || Some(())), None);
    assert_eq!(used.parked_if(4, || None::<()>), None);
    assert_eq!(used.in_flight(), 1);
    used.complete_parked(done(3));
    used.parked(3).unwrap();
    assert_eq!(used.parked_if(4, || Some(())), Some(()));
    assert_eq!(used.in_flight(), 2);
}

#[test]
fn a_ring_goes_on_in_another_memory_table() {
    let (first, second) = (guest(), guest());
    let used = UsedRing::new(ring(&first, SIZE), 0, Notification::Flag);
    used.complete(&[done(1)]);
    used.parked(2).unwrap();
    assert!(used.move_to(&second.memory).is_some());
    used.complete_parked(done(2));
    assert_eq!(first.read_u16(0, USED + 2), 1);
    assert_eq!(second.read_u16(0, USED + 2), 2);
    assert_eq!(used_entry(&second, 1), (2, 102));
    let elsewhere = Guest::new(&[(1000 * PAGE, 1)]);
    assert!(used.move_to(&elsewhere.memory).is_none());
    used.complete(&[done(3)]);
    assert_eq!(second.read_u16(0, USED + 2), 2, "the queue is down");
}

#[test]
fn what_is_late_is_answered_with_eio() {
    let guest = guest();
    let used = UsedRing::new(ring(&guest, SIZE), 5, Notification::Flag);
    let (event, call) = event();
    used.set_call(Some(call));
    // Head 2: GETATTR number 77 with room for its reply. Head 6: what is no chain.
    let chain = crate::chain::tests::bytes;
    guest.write(0, DESCRIPTORS + 32, &chain(8 * PAGE, 56, 1, 3));
    guest.write(0, DESCRIPTORS + 48, &chain(9 * PAGE, 120, 2, 0));
    guest.write(0, DESCRIPTORS + 96, &chain(8, 8, 0, 0));
    let mut request = vec![0; 56];
    (request[0], request[4], request[8]) = (56, 3, 77);
    guest.write(0, 7 * PAGE, &request);
    used.parked(2).unwrap();
    used.parked(6).unwrap();
    let last_word = used.take_down().unwrap();
    let moved = Arc::new(guest.memory.withdraw());
    last_word.answer_eio(&moved);
    assert_eq!(guest.read_u16(0, USED + 2), 7);
    assert_eq!(used_entry(&guest, 5), (2, 16));
    assert_eq!(used_entry(&guest, 6), (6, 0));
    let mut want = 16_u32.to_ne_bytes().to_vec();
    want.extend_from_slice(&(-5_i32).to_ne_bytes());
    want.extend_from_slice(&77_u64.to_ne_bytes());
    assert_eq!(guest.read(0, 8 * PAGE, 16), want);
    assert_eq!(signals(&event), 2);
}

#[test]
fn a_socket_is_called_and_may_be_full_or_closed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let call = Call::new(ours.into()).unwrap();
    assert!(matches!(call, Call::Socket(_)));
    // Far more than its buffer takes: neither waits nor fails.
    for _ in 0..100_000 {
        call.signal();
    }
    let mut one = [0; 8];
    rustix::io::read(&theirs, &mut one[..]).unwrap();
    assert_eq!(u64::from_ne_bytes(one), 1);
    drop(theirs);
    // SIGPIPE is ignored by Rust's runtime and need not be by who embeds this.
    call.signal();
}

#[test]
fn a_full_eventfd_does_not_hold_the_caller_even_if_it_was_blocking() {
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let call = Call::new(event.try_clone().unwrap()).unwrap();
    call.signal();
    assert_eq!(signals(&event), u64::MAX - 1);
}

#[test]
fn what_is_no_event_is_no_ear() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"precious").unwrap();
    let open = |path: &std::path::Path, write| -> OwnedFd {
        let mut options = std::fs::File::options();
        options.read(true).write(write).open(path).unwrap().into()
    };
    assert!(Call::new(open(&path, true)).is_err());
    assert!(Call::new(open(directory.path(), false)).is_err());
    assert!(Call::new(open("/dev/null".as_ref(), true)).is_err());
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    assert!(Call::new(writer).is_ok());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
