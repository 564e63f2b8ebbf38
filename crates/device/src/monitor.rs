//! Takes queues over from threads that stay inside one call.
//!
//! Most calls take microseconds, and a hand-over would cost more than they do. So a queue's thread
//! works alone, and one more thread looks at all queues of a connection from time to time. It finds
//! the same call going on twice, and requests behind it: then another thread takes the queue. It
//! sleeps while every queue does, and without a clock unless something is put off until some time:
//! it keeps the time for the queues, for which setting an alarm at each sleep would cost more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use virtiofs_protocol::Filesystem;

use crate::lane::Lane;
use crate::pool::DEFAULT_THREADS;
use crate::seat::{Call, Seat};
use crate::worker::{Turn, Worker};

/// How often the queues are looked at while one is busy.
const TICK: Duration = Duration::from_millis(2);
/// How long a call that others wait for, and that was seen, may go on before its thread loses the
/// queue.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks at quiet queues before the monitor sleeps: waking it costs the request that does it.
const QUIET_TICKS: u32 = 10;

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
enum Roused {
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

    fn end(&self) {
        self.asked().to_end = true;
        self.changed.notify_one();
    }

    /// Sleeps until a queue has something to do, or has slept for as long as it may.
    fn rest(&self, is_quiet: impl Fn() -> bool) -> Roused {
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
    fn nap(&self, how_long: Duration) -> bool {
        let asked = self.asked();
        let going_on = |asked: &mut Asked| !asked.to_end;
        let (asked, _) = unpoisoned(self.changed.wait_timeout_while(asked, how_long, going_on));
        !asked.to_end
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        unpoisoned(self.asked.lock())
    }
}

type Watched<F> = Mutex<Vec<Weak<Worker<F>>>>;

/// The monitor of a connection; its thread starts at first need and ends with it.
pub(crate) struct Monitor<F> {
    alertness: Arc<Alertness>,
    watched: Arc<Watched<F>>,
    has_thread: bool,
}

impl<F: Filesystem + 'static> Monitor<F> {
    pub(crate) fn new() -> Self {
        Self {
            alertness: Arc::default(),
            watched: Arc::default(),
            has_thread: false,
        }
    }

    pub(crate) fn alertness(&self) -> &Arc<Alertness> {
        &self.alertness
    }

    /// Watches a queue for as long as it is served.
    ///
    /// # Errors
    ///
    /// When no thread is to be had.
    pub(crate) fn watch(&mut self, worker: &Arc<Worker<F>>) -> std::io::Result<()> {
        {
            let mut watched = lock(&self.watched);
            watched.retain(|worker| worker.strong_count() > 0);
            watched.push(Arc::downgrade(worker));
        }
        if !self.has_thread {
            let (alertness, watched) = (Arc::clone(&self.alertness), Arc::clone(&self.watched));
            let thread = thread::Builder::new().name("fs-monitor".into());
            thread.spawn(move || run(&alertness, &watched))?;
            self.has_thread = true;
        }
        self.alertness.rouse();
        Ok(())
    }
}

impl<F> Drop for Monitor<F> {
    fn drop(&mut self) {
        // Not waited for: it ends within a tick.
        self.alertness.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// What is guarded here is consistent at every step.
fn unpoisoned<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

fn run<F: Filesystem + 'static>(alertness: &Alertness, watched: &Watched<F>) {
    let successors = Lane::new("fs-queue", DEFAULT_THREADS, Turn::run);
    loop {
        match alertness.rest(|| seats(watched).iter().all(|(_, seat)| seat.is_quiet())) {
            Roused::ByQueue => {}
            Roused::ByClock => {
                // Any will do; it says anew how long it may sleep.
                if let Some((worker, _)) = seats(watched).first() {
                    worker.nudge();
                }
            }
            Roused::ToEnd => return,
        }
        let mut quiet_ticks = 0;
        while quiet_ticks < QUIET_TICKS {
            let seats = seats(watched);
            let inside: Vec<_> = seats
                .iter()
                .filter_map(|(worker, seat)| Some((worker, seat, seat.call()?)))
                .filter(|(worker, _, call)| worker.waits_for(*call))
                .collect();
            if !inside.is_empty() {
                if !alertness.nap(PATIENCE) {
                    return;
                }
                for (worker, seat, call) in inside {
                    take_over(worker, seat, call, &successors);
                }
            }
            let is_quiet = seats.iter().all(|(_, seat)| seat.is_quiet());
            quiet_ticks = if is_quiet { quiet_ticks + 1 } else { 0 };
            drop(seats);
            if !alertness.nap(TICK) {
                return;
            }
        }
    }
}

fn seats<F: Filesystem + 'static>(watched: &Watched<F>) -> Vec<(Arc<Worker<F>>, Arc<Seat>)> {
    lock(watched)
        .iter()
        .filter_map(Weak::upgrade)
        .filter_map(|worker| worker.seat().map(|seat| (worker, seat)))
        .collect()
}

fn take_over<F: Filesystem + 'static>(
    worker: &Arc<Worker<F>>,
    seat: &Seat,
    call: Call,
    successors: &Lane<Turn<F>>,
) {
    if seat.call() != Some(call) || !successors.has_room() {
        return;
    }
    if let Some(turn) = worker.take_over(seat, call)
        && let Err(turns) = successors.submit(turn)
    {
        // No thread at all, not even an idle one: better late than never.
        turns.into_iter().for_each(Turn::run);
    }
}
