//! The bytes of one request, cut as a guest likes, to a session over a file system that believes nothing.
#![no_main]

use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;
use virtiofs_fuzz::guest::Memory;
use virtiofs_fuzz::input::Input;
use virtiofs_fuzz::oracle;
use virtiofs_fuzz::seeds::{self, RequestCase};
use virtiofs_fuzz::strict::Strict;
use virtiofs_protocol::{
    HEADER_BYTES, HangUp, Head, Request, Served, Session, SessionOptions, arguments_len,
};

fuzz_target!(|bytes: &[u8]| {
    let case = RequestCase::read(&mut Input::new(bytes));
    let options = SessionOptions {
        access: case.access,
        ..SessionOptions::default()
    };
    let session = Session::new(Strict::default(), options);
    if let Some(offered) = case.offered {
        let answered = serve(&session, &case, &seeds::init(offered));
        assert!(matches!(answered, Answered::Reply), "INIT has no answer");
    }
    session
        .filesystem()
        .sleepy
        .store(case.sleepy, Ordering::Relaxed);
    let before = session.malformed_count();
    match serve(&session, &case, case.message) {
        Answered::Reply | Answered::Short => {}
        // Only requests that nobody waits for may go without an answer.
        Answered::Nothing => assert!(matches!(opcode(case.message), 2 | 36 | 42)),
    }
    assert!(session.malformed_count() <= before + 1);
});

/// What the guest sees.
enum Answered {
    Reply,
    Nothing,
    /// The device has refused the chain: less than a header.
    Short,
}

/// Lays a message out as the device does and has it served, parked or not.
fn serve(session: &Session<Strict>, case: &RequestCase<'_>, message: &[u8]) -> Answered {
    let Some((header, behind)) = message.split_first_chunk::<HEADER_BYTES>() else {
        return Answered::Short;
    };
    let len = arguments_len(header, message.len());
    assert!(len <= behind.len(), "more arguments than there are bytes");
    let (arguments, payload) = behind.split_at(len);
    let head = Head::new(header, arguments);
    let unique = head.unique().raw();
    let mut payload = Memory::readable(payload, case.cuts);
    let mut room = Memory::room(case.room_bytes, case.reply_cuts);
    let mut again = (
        Memory::readable(&payload.bytes(), case.cuts),
        Memory::room(case.room_bytes, case.reply_cuts),
    );
    let request = Request {
        head,
        payload: payload.payload(),
        reply: room.reply(),
    };
    match session.serve(request) {
        Served::Replied { written_bytes } => {
            oracle::reply(written_bytes, unique, &room);
            Answered::Reply
        }
        Served::NoReply => {
            assert!(room.bytes().iter().all(|byte| *byte == Memory::UNTOUCHED));
            Answered::Nothing
        }
        Served::Parked(ticket) => {
            assert!(case.sleepy, "parked by a file system that is awake");
            if case.hangs_up {
                session.cancel_all(HangUp::Disconnected);
            }
            // A parked chain is served from the same bytes, with the same room.
            let request = Request {
                head,
                payload: again.0.payload(),
                reply: again.1.reply(),
            };
            let completed = session.resume(request, ticket);
            let reply = oracle::reply(completed.written_bytes, unique, &again.1);
            let hung_up = reply.as_ref().is_some_and(|reply| reply.errno == 5);
            assert!(!case.hangs_up || hung_up || reply.is_none());
            Answered::Reply
        }
    }
}

fn opcode(message: &[u8]) -> u32 {
    message[4..8].try_into().map_or(0, u32::from_ne_bytes)
}
