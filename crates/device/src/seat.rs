//! Whose turn it is to serve a queue.
//!
//! The thread on a seat says before each request that it is inside a call, and afterwards that it is
//! not. While it is inside, the seat can be taken from it: with the ring's next index and the
//! completions that were not published yet. When the call ends at last, the thread finds its seat
//! lost, completes that one request as one that was parked, and serves the queue no more.
//!
//! No locks: the phase decides who owns the rest, and whoever changes it from `Inside` owns it next.

use crate::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use crate::sync::is_planted;
use crate::used::Completion;

/// Completions are published at so many, and before anything that waits.
pub(crate) const BATCH: usize = 16;

/// Where a thread is; the low bits of a seat's state. Above them stands the number of its calls.
const BETWEEN: u64 = 0;
const INSIDE: u64 = 1;
const ASLEEP: u64 = 2;
const LOST: u64 = 3;
const PHASE: u64 = 3;
const ONE_CALL: u64 = 4;

/// A thread's place at a queue.
#[derive(Debug)]
pub(crate) struct Seat {
    state: AtomicU64,
    next: AtomicU16,
    head: AtomicU16,
    batch: [AtomicU64; BATCH],
    batch_len: AtomicUsize,
}

/// A call that is going on, as seen at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    state: u64,
    /// The chain that is being served.
    pub(crate) head: u16,
    /// Index in the available ring behind it.
    pub(crate) next: u16,
    /// Whether completions wait behind it to be published.
    pub(crate) has_batch: bool,
}

/// What a thread lost with its seat.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Index in the available ring from which to go on.
    pub(crate) next: u16,
    /// Served, but not published.
    pub(crate) batch: Vec<Completion>,
}

impl Default for Seat {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(BETWEEN),
            next: AtomicU16::new(0),
            head: AtomicU16::new(0),
            batch: std::array::from_fn(|_| AtomicU64::new(0)),
            batch_len: AtomicUsize::new(0),
        }
    }
}

impl Seat {
    /// The seat's thread is about to serve a chain; `next` is where its successor would go on.
    pub(crate) fn enter(&self, head: u16, next: u16) {
        self.head.store(head, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
        let calls = self.state.load(Ordering::Relaxed) & !PHASE;
        let publishing = if is_planted("enters before it says with what") {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        self.state.store(calls | INSIDE, publishing);
    }

    /// The seat's thread is back; false when the seat is no longer its own.
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        let inside = self.state.load(Ordering::Relaxed) & !PHASE | INSIDE;
        let between = inside.wrapping_add(ONE_CALL) & !PHASE;
        self.state
            .compare_exchange(inside, between, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The seat's thread goes to sleep, or has woken up.
    pub(crate) fn sleep(&self) {
        self.change(ASLEEP);
    }

    /// See [`Seat::sleep`].
    pub(crate) fn wake(&self) {
        self.change(BETWEEN);
    }

    fn change(&self, phase: u64) {
        let calls = self.state.load(Ordering::Relaxed) & !PHASE;
        // Sequentially consistent: the monitor looks at it after it has said that it will sleep.
        self.state.store(calls | phase, Ordering::SeqCst);
    }

    /// Whether nobody needs to watch this seat.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.state.load(Ordering::SeqCst) & PHASE, ASLEEP | LOST)
    }

    /// The call that is going on, if one is.
    pub(crate) fn call(&self) -> Option<Call> {
        let state = self.state.load(Ordering::Acquire);
        (state & PHASE == INSIDE).then(|| Call {
            state,
            head: self.head.load(Ordering::Relaxed),
            next: self.next.load(Ordering::Relaxed),
            has_batch: self.batch_len.load(Ordering::Relaxed) > 0,
        })
    }

    /// Takes the seat from a thread that is still inside that call.
    pub(crate) fn take(&self, call: Call) -> Option<Taken> {
        let lost = call.state & !PHASE | LOST;
        self.state
            .compare_exchange(call.state, lost, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        let len = self.batch_len.load(Ordering::Relaxed);
        let batch = self.batch.iter().take(len);
        Some(Taken {
            next: self.next.load(Ordering::Relaxed),
            batch: batch
                .map(|slot| Completion::from_bits(slot.load(Ordering::Relaxed)))
                .collect(),
        })
    }

    /// Notes a completion; true when it is time to publish.
    pub(crate) fn push(&self, completion: Completion) -> bool {
        let len = self.batch_len.load(Ordering::Relaxed);
        if let Some(slot) = self.batch.get(len) {
            slot.store(completion.to_bits(), Ordering::Relaxed);
        }
        self.batch_len.store(len + 1, Ordering::Relaxed);
        len + 1 >= BATCH
    }

    /// Empties the batch into `into`.
    pub(crate) fn drain(&self, into: &mut Vec<Completion>) {
        let len = self.batch_len.swap(0, Ordering::Relaxed);
        let batch = self.batch.iter().take(len);
        into.clear();
        into.extend(batch.map(|slot| Completion::from_bits(slot.load(Ordering::Relaxed))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(model)]
    mod model;

    fn completion(head: u16) -> Completion {
        Completion {
            head,
            written_bytes: 16,
        }
    }

    #[test]
    fn a_seat_is_lost_inside_a_call_only() {
        let seat = Seat::default();
        assert!(seat.call().is_none(), "between calls");
        seat.enter(3, 4);
        let call = seat.call().unwrap();
        assert_eq!(call.head, 3);
        assert!(seat.leave());
        assert!(seat.take(call).is_none(), "the call has ended");
        seat.enter(3, 5);
        assert!(seat.take(call).is_none(), "another call of the same head");
        let call = seat.call().unwrap();
        assert!(seat.take(call).is_some());
        assert!(seat.take(call).is_none(), "taken already");
        assert!(!seat.leave(), "the thread learns of it");
        assert!(seat.is_quiet());
    }

    #[test]
    fn what_was_not_published_goes_with_the_seat() {
        let seat = Seat::default();
        assert!(!seat.push(completion(7)));
        let mut batch = Vec::new();
        seat.drain(&mut batch);
        assert_eq!(batch, [completion(7)]);
        assert!(!seat.push(completion(8)));
        assert!(!seat.push(completion(9)));
        seat.enter(1, 65_535);
        let taken = seat.take(seat.call().unwrap()).unwrap();
        assert_eq!(taken.next, 65_535);
        assert_eq!(taken.batch, [completion(8), completion(9)]);
    }

    #[test]
    fn a_full_batch_is_to_be_published() {
        let seat = Seat::default();
        let full: Vec<bool> = (0..16).map(|head| seat.push(completion(head))).collect();
        assert_eq!(full.iter().filter(|full| **full).count(), 1);
        assert_eq!(full.last(), Some(&true));
    }

    #[test]
    fn only_a_sleeping_thread_needs_no_watching() {
        let seat = Seat::default();
        assert!(!seat.is_quiet());
        seat.sleep();
        assert!(seat.is_quiet());
        seat.wake();
        assert!(!seat.is_quiet());
        seat.enter(0, 1);
        assert!(!seat.is_quiet());
    }
}
