//! Threads that may sleep: two lanes, so that a wait for a lock never starves the I/O that ends it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use virtiofs_protocol::{Filesystem, Lane, Session, Ticket};

use crate::chain::Chain;
use crate::used::{Completion, UsedRing};

/// A parked request on its way.
pub(crate) struct Job {
    pub(crate) chain: Chain,
    pub(crate) ticket: Ticket,
    pub(crate) used: Arc<UsedRing>,
}

/// Threads of a lane when the operator leaves it to us: they sleep, so there may be many.
const DEFAULT_THREADS: usize = 64;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct LaneState {
    queue: Mutex<Queue>,
    woken: Condvar,
}

/// The pool of one connection. Its threads start at first need and end with it.
pub(crate) struct Pool<F> {
    session: Arc<Session<F>>,
    store: Arc<LaneState>,
    lock: Arc<LaneState>,
    store_threads: usize,
}

impl<F: Filesystem + 'static> Pool<F> {
    /// `store_threads` caps the Store lane; 0 leaves it to us.
    pub(crate) fn new(session: Arc<Session<F>>, store_threads: usize) -> Self {
        let store_threads = if store_threads == 0 {
            DEFAULT_THREADS
        } else {
            store_threads
        };
        Self {
            session,
            store: Arc::default(),
            lock: Arc::default(),
            store_threads,
        }
    }

    /// Hands a job to its lane.
    pub(crate) fn submit(&self, job: Job) {
        let (lane, name, most) = match job.ticket.lane() {
            Lane::Store => (&self.store, "fs-store", self.store_threads),
            Lane::Lock => (&self.lock, "fs-lock", DEFAULT_THREADS),
        };
        let mut queue = lane.queue();
        queue.jobs.push_back(job);
        if queue.jobs.len() > queue.idle && queue.threads < most {
            queue.threads += 1;
            drop(queue);
            self.start_thread(lane, name);
        } else {
            drop(queue);
            lane.woken.notify_one();
        }
    }

    fn start_thread(&self, lane: &Arc<LaneState>, name: &str) {
        let (lane_there, session) = (Arc::clone(lane), Arc::clone(&self.session));
        let started = thread::Builder::new()
            .name(name.into())
            .spawn(move || lane_there.work(&session));
        if let Err(error) = started {
            tracing::error!(
                "no thread for work that sleeps: {error}; raise the limit of processes"
            );
            let mut queue = lane.queue();
            queue.threads -= 1;
            if queue.threads == 0 {
                // Nobody is left to do it.
                let jobs = std::mem::take(&mut queue.jobs);
                drop(queue);
                jobs.into_iter().for_each(|job| abandon(&self.session, job));
            }
        }
    }

    /// Answers what has not begun with EIO.
    pub(crate) fn abandon_waiting(&self) {
        for lane in [&self.store, &self.lock] {
            let jobs = std::mem::take(&mut lane.queue().jobs);
            jobs.into_iter().for_each(|job| abandon(&self.session, job));
        }
    }
}

impl<F> Drop for Pool<F> {
    fn drop(&mut self) {
        for lane in [&self.store, &self.lock] {
            lane.queue().closed = true;
            lane.woken.notify_all();
        }
    }
}

fn abandon<F: Filesystem>(session: &Session<F>, mut job: Job) {
    let completed = session.abandon(job.chain.request(), job.ticket);
    job.used.complete_parked(Completion {
        head: job.chain.head,
        written_bytes: completed.written_bytes,
    });
}

impl LaneState {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work<F: Filesystem>(&self, session: &Session<F>) {
        while let Some(mut job) = self.next() {
            let completed = session.resume(job.chain.request(), job.ticket);
            job.used.complete_parked(Completion {
                head: job.chain.head,
                written_bytes: completed.written_bytes,
            });
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                queue.threads -= 1;
                return None;
            }
            queue.idle += 1;
            queue = self
                .woken
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}
