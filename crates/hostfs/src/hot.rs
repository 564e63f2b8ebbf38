//! Which inodes hold a descriptor, so that the oldest can give theirs up, and all that are idle.
//!
//! The list's lock is never held while anything else is locked or called. A descriptor that was
//! not used for a whole period is idle. The sweep that finds these runs on a queue's thread before
//! it sleeps, in slices; it is due only while something was used since the last one, so a daemon
//! that has nothing to do is never woken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use virtiofs_protocol::NodeId;

/// Holders that a sweep looks at before it lets the queue go on.
const SLICE: usize = 64;
/// Pause between two slices.
const BETWEEN_SLICES: Duration = Duration::from_millis(2);

/// The holders, oldest first. Numbers of inodes that are gone stay until they are met.
#[derive(Debug)]
pub(crate) struct Hot {
    holders: Mutex<VecDeque<NodeId>>,
    budget: usize,
    /// A descriptor was used or came in since the last sweep began.
    stirred: AtomicBool,
    /// Microseconds after `start` at which a slice is due, and zero when none is.
    due: AtomicU64,
    /// Holders that the present sweep has not met.
    left: Mutex<usize>,
    start: Instant,
    period: Duration,
}

/// What a look at an idle inode's descriptor led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It holds none any more.
    Gone,
    /// It was used: to be looked at again.
    Used,
    /// It is needed: no use to look again before it is used.
    Needed,
}

impl Hot {
    pub(crate) fn new(budget: usize, period: Duration) -> Self {
        Self {
            holders: Mutex::default(),
            budget: budget.max(16),
            stirred: AtomicBool::new(false),
            due: AtomicU64::new(0),
            left: Mutex::new(0),
            start: Instant::now(),
            period,
        }
    }

    /// Notes a new holder; returns true when there are more than the budget.
    pub(crate) fn add(&self, node: NodeId) -> bool {
        self.stir();
        self.put_back(node) > self.budget
    }

    /// Notes a holder that was met and keeps its descriptor; returns how many there are.
    pub(crate) fn put_back(&self, node: NodeId) -> usize {
        let mut holders = self.holders();
        holders.push_back(node);
        holders.len()
    }

    /// Something was used: there will be something idle to find.
    pub(crate) fn stir(&self) {
        // Read first: the line stays shared between the threads that all find it set.
        if !self.stirred.load(Ordering::Relaxed) {
            self.stirred.store(true, Ordering::Relaxed);
        }
    }

    /// The oldest holder, no longer on the list.
    pub(crate) fn oldest(&self) -> Option<NodeId> {
        self.holders().pop_front()
    }

    /// Forgets all holders.
    pub(crate) fn clear(&self) {
        self.holders().clear();
        self.stirred.store(false, Ordering::Relaxed);
    }

    /// Sweeps when it is time to; returns when the next look is due, if one is.
    pub(crate) fn sweep(&self, look: impl FnMut(NodeId) -> Fate) -> Option<Duration> {
        let due = self.due.load(Ordering::Relaxed);
        if due == 0 && !self.stirred.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.start.elapsed();
        let wait = Duration::from_micros(due).saturating_sub(now);
        if due != 0 && !wait.is_zero() {
            return Some(wait);
        }
        let mut left = match self.left.try_lock() {
            Ok(left) => left,
            Err(TryLockError::Poisoned(left)) => left.into_inner(),
            // Another queue's thread is at it.
            Err(TryLockError::WouldBlock) => return Some(BETWEEN_SLICES),
        };
        if due != 0 {
            self.slice(&mut left, look);
        }
        let pause = if *left > 0 {
            Some(BETWEEN_SLICES)
        } else if self.stirred.swap(false, Ordering::Relaxed) {
            *left = self.holders().len();
            Some(self.period)
        } else {
            None
        };
        let next = pause.map_or(0, |pause| self.micros(now.saturating_add(pause)));
        self.due.store(next, Ordering::Relaxed);
        pause
    }

    fn slice(&self, left: &mut usize, mut look: impl FnMut(NodeId) -> Fate) {
        for _ in 0..SLICE.min(*left) {
            *left -= 1;
            let Some(node) = self.oldest() else {
                *left = 0;
                return;
            };
            match look(node) {
                Fate::Gone => {}
                Fate::Used => drop(self.add(node)),
                Fate::Needed => drop(self.put_back(node)),
            }
        }
    }

    /// Never zero, which means that nothing is due.
    fn micros(&self, at: Duration) -> u64 {
        u64::try_from(at.as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn holders(&self) -> MutexGuard<'_, VecDeque<NodeId>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn met(hot: &Hot, fate: Fate) -> (usize, Option<Duration>) {
        let mut met = 0;
        let due = hot.sweep(|_| {
            met += 1;
            fate
        });
        (met, due)
    }

    #[test]
    fn nothing_is_due_while_there_is_nothing_to_find() {
        let hot = Hot::new(16, NOW);
        assert_eq!(met(&hot, Fate::Needed), (0, None));
        hot.add(NodeId::from_raw(5));
        assert!(met(&hot, Fate::Needed).1.is_some(), "armed by the first");
        std::thread::sleep(Duration::from_micros(10));
        assert_eq!(met(&hot, Fate::Needed), (1, None), "looked at once");
        assert_eq!(met(&hot, Fate::Needed), (0, None), "and left alone");
        hot.stir();
        assert!(met(&hot, Fate::Gone).1.is_some());
        std::thread::sleep(Duration::from_micros(10));
        assert_eq!(met(&hot, Fate::Gone), (1, None));
        assert_eq!(hot.oldest(), None);
    }

    #[test]
    fn what_is_used_is_looked_at_again_and_a_period_passes_before() {
        let hot = Hot::new(16, Duration::from_secs(3600));
        hot.add(NodeId::from_raw(5));
        for _ in 0..3 {
            let (met, due) = met(&hot, Fate::Used);
            assert_eq!(met, 0);
            assert!(due.unwrap() > Duration::from_secs(3590));
        }
        let hot = Hot::new(16, NOW);
        hot.add(NodeId::from_raw(5));
        met(&hot, Fate::Used);
        for _ in 0..3 {
            std::thread::sleep(Duration::from_micros(10));
            let (met, due) = met(&hot, Fate::Used);
            assert_eq!(met, 1);
            assert!(due.is_some());
        }
    }

    #[test]
    fn many_are_looked_at_in_slices() {
        let hot = Hot::new(16, NOW);
        for number in 0..100 {
            hot.add(NodeId::from_raw(number));
        }
        met(&hot, Fate::Gone);
        std::thread::sleep(Duration::from_micros(10));
        assert_eq!(met(&hot, Fate::Gone), (SLICE, Some(BETWEEN_SLICES)));
        std::thread::sleep(BETWEEN_SLICES);
        assert_eq!(met(&hot, Fate::Gone), (100 - SLICE, None));
    }

    #[test]
    fn k_a_period_without_end_is_waited_for_and_overflows_nothing() {
        let hot = Hot::new(16, Duration::MAX);
        hot.add(NodeId::from_raw(5));
        for _ in 0..3 {
            let (met, due) = met(&hot, Fate::Gone);
            assert!(met == 0 && due.is_some_and(|due| due > Duration::from_secs(1 << 40)));
        }
    }
}
