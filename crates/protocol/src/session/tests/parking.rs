//! Requests that would sleep.

use super::*;
use crate::filesystem::Lane;

fn sleepy() -> Session<Stub> {
    let session = active(Access::ReadWrite);
    session.filesystem().sleepy.store(true, Ordering::Relaxed);
    session
}

fn park(session: &Session<Stub>, message: &Message) -> Ticket {
    let (served, room) = message.with(|request| session.serve(request));
    assert!(
        room.iter().all(|byte| *byte == 0xAA),
        "written before served"
    );
    assert!(session.filesystem().calls().is_empty(), "a side effect");
    let Served::Parked(ticket) = served else {
        panic!("{served:?}");
    };
    ticket
}

fn resume(session: &Session<Stub>, message: &Message, ticket: Ticket) -> Answered {
    let (completed, room) = message.with(|request| session.resume(request, ticket));
    Answered::read(completed.written_bytes, &room)
}

fn interrupt(session: &Session<Stub>, target: u64) {
    let interrupt = Message {
        unique: target + 1,
        ..Message::new(Opcode::Interrupt, Bytes::new().u64(target))
    };
    assert_eq!(interrupt.serve(session), Answered::NoReply);
}

#[test]
fn a_parked_request_is_served_from_the_same_bytes() {
    let session = sleepy();
    let read = Message::golden(Opcode::Read);
    let ticket = park(&session, &read);
    assert_eq!((ticket.lane(), ticket.is_hung_up()), (Lane::Store, false));
    let answered = resume(&session, &read, ticket);
    assert_eq!(answered, Answered::Body(vec![b'R'; 4096]));
    assert_eq!(session.filesystem().calls(), ["read"]);
}

#[test]
fn others_are_served_while_one_is_parked() {
    let session = sleepy();
    let fsync = Message::golden(Opcode::Fsync);
    let ticket = park(&session, &fsync);
    let getattr = Message::golden(Opcode::Getattr).serve(&session);
    assert_eq!(getattr.body_bytes(), Some(104));
    assert_eq!(resume(&session, &fsync, ticket), Answered::Body(Vec::new()));
}

#[test]
fn an_interrupt_before_its_turn_is_the_answer() {
    let session = sleepy();
    let read = Message::golden(Opcode::Read);
    let ticket = park(&session, &read);
    interrupt(&session, UNIQUE);
    let answered = resume(&session, &read, ticket);
    assert_eq!(answered, Answered::Error(Errno::INTR));
    assert!(session.filesystem().calls().is_empty());
}

#[test]
fn an_interrupt_ends_no_other_request() {
    let session = sleepy();
    let read = Message::golden(Opcode::Read);
    let ticket = park(&session, &read);
    interrupt(&session, UNIQUE + 1);
    assert_eq!(resume(&session, &read, ticket).body_bytes(), Some(4096));
    // The row is gone with its request: the number's next user is not interrupted by the past.
    interrupt(&session, UNIQUE);
    let ticket = park_again(&session, &read);
    assert_eq!(resume(&session, &read, ticket).body_bytes(), Some(4096));
}

fn park_again(session: &Session<Stub>, message: &Message) -> Ticket {
    session.filesystem().calls();
    park(session, message)
}

/// Each row: what ends all waits, and what the file system hears of it.
#[test]
fn a_hang_up_gives_up_what_is_parked() {
    type End = fn(&Session<Stub>);
    let cases: [(&str, End, &[&str]); 4] = [
        ("cancel_all", |s| s.cancel_all(HangUp::Disconnected), &[]),
        (
            "end",
            |s| s.end(HangUp::Disconnected),
            &["end Disconnected"],
        ),
        (
            "DESTROY",
            |s| drop(Message::golden(Opcode::Destroy).serve(s)),
            &["end SessionEnded"],
        ),
        (
            "a second INIT",
            |s| drop(Message::golden(Opcode::Init).serve(s)),
            &["end SessionEnded", "begin 7.38"],
        ),
    ];
    for (what, end, heard) in cases {
        let session = sleepy();
        let read = Message::golden(Opcode::Read);
        let ticket = park(&session, &read);
        end(&session);
        assert!(ticket.is_hung_up(), "{what}");
        let answered = resume(&session, &read, ticket);
        assert_eq!(answered, Answered::Error(Errno::IO), "{what}");
        assert_eq!(session.filesystem().calls(), heard, "{what}");
    }
}

#[test]
fn an_abandoned_request_fails_without_being_served() {
    let session = sleepy();
    let read = Message::golden(Opcode::Read);
    let ticket = park(&session, &read);
    let (completed, room) = read.with(|request| session.abandon(request, ticket));
    let answered = Answered::read(completed.written_bytes, &room);
    assert_eq!(answered, Answered::Error(Errno::IO));
    assert!(session.filesystem().calls().is_empty());
}

/// A parked request whose room has no place for a header is completed empty.
#[test]
fn a_parked_request_without_room_is_completed_empty() {
    let session = sleepy();
    let fsync = Message::golden(Opcode::Fsync).room(15);
    let ticket = park(&session, &fsync);
    assert_eq!(resume(&session, &fsync, ticket), Answered::Empty);
}

/// Each row: what ends a wait for a lock, and its answer.
#[test]
fn a_wait_for_a_lock_ends_with_what_it_waits_for_nobody_else() {
    type End = fn(&Session<Stub>);
    let cases: [(&str, End, Option<Errno>); 9] = [
        ("nothing", |_| (), None),
        ("INTERRUPT", |s| interrupt(s, UNIQUE), Some(Errno::INTR)),
        ("INTERRUPT of another", |s| interrupt(s, 77), None),
        (
            "FLUSH of its owner",
            |s| drop(Message::golden(Opcode::Flush).serve(s)),
            Some(Errno::BADF),
        ),
        ("FLUSH of another owner", |s| drop(flush(6).serve(s)), None),
        (
            "RELEASE",
            |s| drop(Message::golden(Opcode::Release).serve(s)),
            Some(Errno::BADF),
        ),
        (
            "a queue stops",
            |s| s.cancel_lock_waits(),
            Some(Errno::NOLCK),
        ),
        (
            "the front-end leaves",
            |s| s.cancel_all(HangUp::Disconnected),
            Some(Errno::NOLCK),
        ),
        (
            "DESTROY",
            |s| drop(Message::golden(Opcode::Destroy).serve(s)),
            Some(Errno::NOLCK),
        ),
    ];
    for (what, end, errno) in cases {
        let session = sleepy();
        let setlkw = Message::golden(Opcode::Setlkw);
        let ticket = park(&session, &setlkw);
        assert_eq!(ticket.lane(), Lane::Lock, "{what}");
        end(&session);
        let heard = session.filesystem().calls();
        let told = heard.iter().any(|call| call == "look again");
        assert_eq!(told, errno.is_some(), "{what}: {heard:?}");
        let want = errno.map_or(Answered::Body(Vec::new()), Answered::Error);
        assert_eq!(resume(&session, &setlkw, ticket), want, "{what}");
    }
}

/// FLUSH by another owner than the golden one.
fn flush(owner: u64) -> Message {
    Message::new(Opcode::Flush, Bytes::new().u64(5).u64(0).u64(owner))
}

#[test]
fn what_is_no_wait_for_a_lock_goes_on_when_a_queue_stops() {
    let session = sleepy();
    let read = Message::golden(Opcode::Read);
    let ticket = park(&session, &read);
    session.cancel_lock_waits();
    assert!(session.filesystem().calls().is_empty());
    assert_eq!(resume(&session, &read, ticket).body_bytes(), Some(4096));
}

#[test]
fn too_many_waits_for_locks_are_refused_and_a_place_becomes_free_again() {
    let session = sleepy();
    let setlkw = Message::golden(Opcode::Setlkw);
    session.set_most_lock_waits(3);
    let mut tickets: Vec<Ticket> = (0..3).map(|_| park(&session, &setlkw)).collect();
    assert_eq!(setlkw.serve(&session), Answered::Error(Errno::NOLCK));
    let (completed, room) = setlkw.with(|request| session.abandon(request, tickets.pop().unwrap()));
    let answered = Answered::read(completed.written_bytes, &room);
    assert_eq!(answered, Answered::Error(Errno::NOLCK));
    park(&session, &setlkw);
}
