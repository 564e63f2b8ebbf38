//! vhost-user messages with descriptors, to the receive loop.
#![no_main]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use rustix::pipe::{PipeFlags, pipe_with};
use virtiofs_fuzz::held::{Descriptors, Threads};
use virtiofs_fuzz::input::Input;
use virtiofs_fuzz::strict::Strict;
use virtiofs_fuzz::wire::{self, NEED_REPLY, VERSION, Wire};
use virtiofs_protocol::{Session, SessionOptions};

/// More would fill the socket with replies that nobody takes while they are written.
const MOST_MESSAGES: usize = 48;
/// More than any message takes, less than a socket does.
const MOST_DESCRIPTORS: usize = 40;
/// Length of a message without a payload.
const HEADER_BYTES: usize = 12;
/// Length of the longest message that is sent.
const LONGEST_BYTES: usize = HEADER_BYTES + 255 * 16;
/// Requests that have a reply of their own.
const ANSWERED: [u32; 6] = [1, 11, 15, 17, 24, 36];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let tag = (input.u8() & 1 != 0).then_some("share");
    let kinds = descriptor_kinds();
    let session = Arc::new(Session::new(Strict::default(), SessionOptions::default()));
    let before = Descriptors::now();
    let wire = Wire::new();
    let (mut sent, mut sent_bytes) = (0, 0);
    while !input.is_empty() && sent < MOST_MESSAGES {
        let Some(len) = send(&wire, &mut input, kinds) else {
            // Some of it may have fitted.
            sent_bytes += LONGEST_BYTES;
            break;
        };
        sent += 1;
        sent_bytes += len;
    }
    let outcome = if wire::has_threads(bytes) {
        let threads = Threads::now();
        let outcome = wire.serve_with_threads(&session, tag, || true, &[]);
        threads.wait_for();
        outcome
    } else {
        wire.serve(&session, tag)
    };
    before.assert_again();
    // A message that states too short a length is followed by what it did not cover.
    let most = sent_bytes / HEADER_BYTES;
    assert!(
        outcome.replies.len() <= most,
        "more replies than messages fit"
    );
    for (request, payload) in &outcome.replies {
        let acknowledges = payload.len() == 8 && payload[1..] == [0; 7] && payload[0] <= 1;
        assert!(
            ANSWERED.contains(request) || acknowledges,
            "a reply to {request}"
        );
        // The planted defect: a front-end that reads the configuration whole or not at all.
        let whole = *request != 24 || matches!(payload.len(), 12 | 52);
        assert!(!cfg!(feature = "planted") || whole);
    }
});

/// Sends one message; returns its length, `None` when there is no room for another.
fn send(wire: &Wire, input: &mut Input<'_>, kinds: &[OwnedFd]) -> Option<usize> {
    let request = match input.u8() {
        0xff => input.u32(),
        request => request.into(),
    };
    let control = input.u8();
    let flags = match control >> 6 {
        3 => input.u32(),
        2 => VERSION | NEED_REPLY,
        _ => VERSION,
    };
    let count = match control & 0xf {
        0xf => MOST_DESCRIPTORS,
        count => count.into(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = (0..count)
        .map(|_| kinds[usize::from(input.u8()) % kinds.len()].as_fd())
        .collect();
    let len = usize::from(input.u8()) * if control & 0x20 == 0 { 1 } else { 16 };
    let payload = input.bytes(len);
    let stated = if control & 0x10 == 0 {
        payload.len() as u32
    } else {
        input.u32()
    };
    let bytes = wire::message(request, flags, stated, payload);
    wire.send_raw(&bytes, &descriptors).then_some(bytes.len())
}

/// What a front-end may hand over; the first two are what it should.
fn descriptor_kinds() -> &'static [OwnedFd] {
    static KINDS: OnceLock<Vec<OwnedFd>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&memory, 0x1_0000).expect("a length");
        let empty = memfd_create("empty", MemfdFlags::CLOEXEC).expect("a memfd");
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (gone, _) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (socket, peer) = UnixStream::pair().expect("a socket pair");
        let path = |flags| open("/", flags | OFlags::CLOEXEC, Mode::empty()).expect("a directory");
        vec![
            wire::event(),
            memory,
            empty,
            reads,
            writes,
            gone,
            socket.into(),
            peer.into(),
            path(OFlags::DIRECTORY),
            path(OFlags::PATH),
        ]
    })
}
