//! A queue that is taken from its thread, in every order of both threads' steps.

use std::sync::Arc;

use virtiofs_testkit::orders::{Mutex, finds, holds, thread};

use super::*;

/// Heads in the order in which they were completed: by whom does not matter.
type Used = Mutex<Vec<u16>>;

/// Serves chains as a queue's thread does; returns whether it still has its seat.
fn serve(seat: &Seat, heads: &[u16], used: &Used) -> bool {
    for (&head, next) in heads.iter().zip(1..) {
        seat.enter(head, next);
        if !seat.leave() {
            // What it was inside of is completed by itself, as if it had been parked.
            used.lock().unwrap().push(head);
            return false;
        }
        seat.push(Completion {
            head,
            written_bytes: 0,
        });
    }
    true
}

fn publish(seat: &Seat, used: &Used) {
    let mut batch = Vec::new();
    seat.drain(&mut batch);
    let mut used = used.lock().unwrap();
    used.extend(batch.iter().map(|completion| completion.head));
}

/// Looks once, as the monitor does, and takes the seat if its thread is inside a call.
fn take_over(seat: &Seat, heads: &[u16], used: &Used) {
    let Some(call) = seat.call() else { return };
    let Some(taken) = seat.take(call) else { return };
    let place = usize::from(taken.next) - 1;
    assert_eq!(heads[place], call.head, "{taken:?}");
    assert_eq!(call.next, taken.next);
    let mut used = used.lock().unwrap();
    used.extend(taken.batch.iter().map(|completion| completion.head));
    // The successor goes on from there.
    used.extend(&heads[usize::from(taken.next)..]);
}

fn taken_over_at_any_moment() {
    const HEADS: [u16; 2] = [7, 5];
    let (seat, used) = (Arc::new(Seat::default()), Arc::new(Used::default()));
    let monitor = thread::spawn({
        let (seat, used) = (Arc::clone(&seat), Arc::clone(&used));
        move || {
            for _ in 0..2 {
                take_over(&seat, &HEADS, &used);
            }
        }
    });
    if serve(&seat, &HEADS, &used) {
        publish(&seat, &used);
    }
    monitor.join().unwrap();
    let mut completed = used.lock().unwrap().clone();
    completed.sort_unstable();
    assert_eq!(completed, [5, 7], "each once");
}

#[test]
fn every_chain_is_completed_once_whenever_the_queue_is_taken_over() {
    holds(taken_over_at_any_moment);
    finds("enters before it says with what", taken_over_at_any_moment);
}
