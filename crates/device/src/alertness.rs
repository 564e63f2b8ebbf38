//! How the monitor and the queues wake one another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether the monitor is looking.
#[derive(Debug, Default)]
pub(crate) struct Alertness {
    is_awake: AtomicBool,
    /// How long queues may sleep, in nanoseconds; zero is as long as they like.
    limit: AtomicU64,
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    to_wake: bool,
    to_end: bool,
}

/// Why the monitor rests no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roused {
    /// A queue has something to do.
    ByQueue,
    /// Queues have slept for as long as they may.
    ByClock,
    /// It is time to end.
    ToEnd,
}

impl Alertness {
    /// What a queue's thread was told before it sleeps: how long it may.
    pub(crate) fn look_again(&self, limit: Option<Duration>) {
        let nanos = limit.map_or(0, |limit| limit.as_nanos().max(1));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        // Read first: the line stays shared between the threads.
        if self.limit.load(Ordering::Relaxed) != nanos {
            self.limit.store(nanos, Ordering::Relaxed);
        }
    }

    /// A queue has something to do. Costs a load while the monitor is awake.
    pub(crate) fn rouse(&self) {
        if !self.is_awake.load(Ordering::SeqCst) {
            self.asked().to_wake = true;
            self.changed.notify_one();
        }
    }

    pub(crate) fn end(&self) {
        self.asked().to_end = true;
        self.changed.notify_one();
    }

    /// Sleeps until a queue has something to do, or has slept for as long as it may.
    pub(crate) fn rest(&self, is_quiet: impl Fn() -> bool) -> Roused {
        self.is_awake.store(false, Ordering::SeqCst);
        let mut asked = self.asked();
        let mut roused = Roused::ByQueue;
        // A queue that woke before it could see the flag is seen here.
        while !asked.to_wake && !asked.to_end && is_quiet() {
            let limit = self.limit.load(Ordering::Relaxed);
            if limit == 0 {
                asked = unpoisoned(self.changed.wait(asked));
                continue;
            }
            let limit = Duration::from_nanos(limit);
            let (woken, waited) = unpoisoned(self.changed.wait_timeout(asked, limit));
            asked = woken;
            if waited.timed_out() {
                roused = Roused::ByClock;
                break;
            }
        }
        self.is_awake.store(true, Ordering::SeqCst);
        asked.to_wake = false;
        if asked.to_end { Roused::ToEnd } else { roused }
    }

    /// Sleeps for a while; false when it is time to end.
    pub(crate) fn nap(&self, how_long: Duration) -> bool {
        let asked = self.asked();
        let going_on = |asked: &mut Asked| !asked.to_end;
        let (asked, _) = unpoisoned(self.changed.wait_timeout_while(asked, how_long, going_on));
        !asked.to_end
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        unpoisoned(self.asked.lock())
    }
}

/// What is guarded here is consistent at every step.
pub(crate) fn unpoisoned<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
