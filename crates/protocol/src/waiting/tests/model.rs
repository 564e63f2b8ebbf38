//! The table of parked requests in every order of what may happen to one.

use std::sync::Arc;

use virtiofs_testkit::orders::{finds, holds, thread};

use super::*;

fn number() -> Unique {
    Unique::from_raw(5)
}

fn claim() -> Option<Claim> {
    Some(Claim {
        node: NodeId::from_raw(1),
        file: Fh::from_raw(2),
        owner: LockOwner(3),
        kind: LockKind::Posix,
    })
}

fn is_mine(claim: &Claim) -> bool {
    claim.file == Fh::from_raw(2)
}

/// Parked on one queue, interrupted on another.
fn interrupted_while_parked() {
    let waiting = Arc::new(Waiting::default());
    let other = thread::spawn({
        let waiting = Arc::clone(&waiting);
        move || waiting.interrupt(number())
    });
    let ticket = waiting.park(number(), Lane::Lock, claim()).unwrap();
    let found = other.join().unwrap();
    assert!(ticket.cancel().is_interrupted(), "found {found}");
    waiting.leave(&ticket);
    // Nothing is remembered of an INTERRUPT that has done its work.
    let next = waiting.park(number(), Lane::Lock, claim()).unwrap();
    assert!(!next.cancel().is_interrupted());
}

/// Interrupted, its file closed and its connection hung up at once.
fn given_up_for_every_reason() {
    let waiting = Arc::new(Waiting::default());
    let ticket = waiting.park(number(), Lane::Lock, claim()).unwrap();
    let [interrupting, closing] = [0, 1].map(|which| {
        let waiting = Arc::clone(&waiting);
        thread::spawn(move || {
            if which == 0 {
                waiting.interrupt(number())
            } else {
                waiting.close(is_mine)
            }
        })
    });
    waiting.hang_up();
    interrupting.join().unwrap();
    closing.join().unwrap();
    assert!(ticket.is_hung_up(), "{:?}", ticket.refusal());
}

/// Answered by a pool's thread while it is interrupted, closed and hung up.
fn answered_while_given_up() {
    let waiting = Arc::new(Waiting::default());
    let ticket = waiting.park(number(), Lane::Lock, claim()).unwrap();
    let answering = thread::spawn({
        let waiting = Arc::clone(&waiting);
        move || {
            let refusal = ticket.refusal();
            waiting.leave(&ticket);
            refusal
        }
    });
    let closing = thread::spawn({
        let waiting = Arc::clone(&waiting);
        move || waiting.close(is_mine)
    });
    let was_there = waiting.hang_up();
    let refusal = answering.join().unwrap();
    closing.join().unwrap();
    let possible = [None, Some(Errno::BADF), Some(Errno::NOLCK)];
    assert!(possible.contains(&refusal), "{refusal:?}");
    assert!(was_there || refusal != Some(Errno::NOLCK));
    // The place is free again, and nothing is left to be given up.
    assert_eq!(waiting.claims.load(Ordering::Relaxed), 0);
    assert!(!waiting.close(is_mine) && !waiting.hang_up());
}

#[test]
fn an_interrupt_meets_the_wait_it_names_however_they_arrive() {
    holds(interrupted_while_parked);
    finds(
        "parks what was not looked for any more",
        interrupted_while_parked,
    );
}

#[test]
fn a_hang_up_is_the_last_word() {
    holds(given_up_for_every_reason);
    finds(
        "hangs up only what nobody has given up",
        given_up_for_every_reason,
    );
}

#[test]
fn an_answer_leaves_no_row_behind_whoever_gives_up_meanwhile() {
    holds(answered_while_given_up);
    finds(
        "keeps the place of who was hung up",
        answered_while_given_up,
    );
}
