//! Takes queues over from threads that stay inside one call.
//!
//! Most calls take microseconds, and a hand-over would cost more than they do. So a queue's thread
//! works alone, and one more thread looks at all queues of a connection from time to time. It finds
//! the same call going on twice, and requests behind it: then another thread takes the queue. It
//! sleeps while every queue does, and without a clock unless something is put off until some time:
//! it keeps the time for the queues, for which setting an alarm at each sleep would cost more.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use virtiofs_protocol::Filesystem;

use crate::alertness::{Alertness, Roused, unpoisoned};
use crate::lane::Lane;
use crate::polling::Processors;
use crate::pool::DEFAULT_THREADS;
use crate::pressure::Gauge;
use crate::seat::{Call, Seat};
use crate::sync::is_alone;
use crate::worker::{Turn, Worker};

/// How often the queues are looked at while one is busy.
const TICK: Duration = Duration::from_millis(2);
/// How long a call that others wait for, and that was seen, may go on before its thread loses the
/// queue.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks at quiet queues before the monitor sleeps: waking it costs the request that does it.
const QUIET_TICKS: u32 = 3;

type Watched<F> = Mutex<Vec<Weak<Worker<F>>>>;

/// The monitor of a connection; its thread starts at first need and ends with it.
pub(crate) struct Monitor<F> {
    alertness: Arc<Alertness>,
    watched: Arc<Watched<F>>,
    scarcity: Scarcity,
    has_thread: bool,
}

/// What the monitor finds out for the queues beside its own work, because it is awake while they are.
#[derive(Clone, Debug)]
struct Scarcity {
    gauge: Gauge,
    processors: Arc<Processors>,
}

impl<F: Filesystem + 'static> Monitor<F> {
    pub(crate) fn new(gauge: Gauge, processors: Arc<Processors>) -> Self {
        Self {
            alertness: Arc::default(),
            watched: Arc::default(),
            scarcity: Scarcity { gauge, processors },
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
        if is_alone() {
            return Ok(());
        }
        if !self.has_thread {
            let scarcity = self.scarcity.clone();
            let (alertness, watched) = (Arc::clone(&self.alertness), Arc::clone(&self.watched));
            let thread = thread::Builder::new().name("fs-monitor".into());
            thread.spawn(move || run(&alertness, &watched, scarcity))?;
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

fn run<F: Filesystem + 'static>(
    alertness: &Alertness,
    watched: &Watched<F>,
    mut scarcity: Scarcity,
) {
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
            scarcity.gauge.look(Instant::now(), &scarcity.processors);
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
