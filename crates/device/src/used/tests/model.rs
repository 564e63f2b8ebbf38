//! Chains with other threads, in every order of theirs, the monitor's and the connection's steps.

use virtiofs_testkit::orders::{finds, holds, thread};

use super::*;
use crate::seat::Seat;

fn used_ring() -> (Guest, Arc<UsedRing>) {
    let guest = guest();
    let used = UsedRing::new(ring(&guest, SIZE), 0, Notification::Flag);
    (guest, Arc::new(used))
}

/// Heads that the guest has had back by now, sorted.
fn completed(guest: &Guest) -> Vec<u16> {
    let count = guest.read_u16(0, USED + 2);
    let mut heads: Vec<u16> = (0..count)
        .map(|slot| u16::try_from(used_entry(guest, slot).0).unwrap())
        .collect();
    heads.sort_unstable();
    heads
}

/// What is in the ring and what the last word will answer: together each head once.
fn down_while_two_are_completed() {
    let (guest, used) = used_ring();
    used.parked(2).unwrap();
    used.parked(5).unwrap();
    let pool = thread::spawn({
        let used = Arc::clone(&used);
        move || used.complete_parked(done(2))
    });
    let connection = thread::spawn({
        let used = Arc::clone(&used);
        move || used.take_down().unwrap().heads
    });
    used.complete_parked(done(5));
    pool.join().unwrap();
    let mut answered = connection.join().unwrap();
    answered.extend(completed(&guest));
    answered.sort_unstable();
    assert_eq!(answered, [2, 5], "each once");
}

#[test]
fn what_is_in_flight_when_the_queue_goes_down_is_answered_once() {
    holds(down_while_two_are_completed);
    finds(
        "forgets a chain before it is completed",
        down_while_two_are_completed,
    );
}

/// As the monitor does: notes the chain as somebody else's, if its thread is still inside.
fn take_over(used: &UsedRing, seat: &Seat) {
    let Some(call) = seat.call() else { return };
    let taken = used.parked_if(call.head, || seat.take(call));
    if let Some(taken) = taken {
        used.complete(&taken.batch);
    }
}

/// As a queue's thread does, with one chain.
fn serve(used: &UsedRing, seat: &Seat) {
    seat.enter(2, 1);
    if seat.leave() {
        used.complete(&[done(2)]);
    } else {
        used.complete_parked(done(2));
    }
}

fn taken_over_in_its_only_call() {
    let (guest, used) = used_ring();
    let seat = Arc::new(Seat::default());
    let monitor = thread::spawn({
        let (used, seat) = (Arc::clone(&used), Arc::clone(&seat));
        move || take_over(&used, &seat)
    });
    serve(&used, &seat);
    monitor.join().unwrap();
    assert_eq!(completed(&guest), [2]);
    assert_eq!(used.in_flight(), 0, "nobody is left to complete it");
}

#[test]
fn a_chain_whose_queue_is_taken_over_is_in_flight_until_it_is_completed() {
    holds(taken_over_in_its_only_call);
    finds(
        "notes a chain after it may have been completed",
        taken_over_in_its_only_call,
    );
}
