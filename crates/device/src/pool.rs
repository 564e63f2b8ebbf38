//! Where requests go that sleep: two lanes, so that a wait for a lock never starves the I/O that ends it.

use std::sync::Arc;

use virtiofs_protocol::{Filesystem, Session, Ticket};

use crate::chain::Chain;
use crate::lane::Lane;
use crate::used::{Completion, UsedRing};

/// A parked request on its way.
pub(crate) struct Job {
    pub(crate) chain: Chain,
    pub(crate) ticket: Ticket,
    pub(crate) used: Arc<UsedRing>,
}

/// Threads of a lane when the operator leaves it to us: they sleep, so there may be many.
pub(crate) const DEFAULT_THREADS: usize = 64;

/// The pool of one connection. Its threads start at first need and end with it.
pub(crate) struct Pool<F> {
    session: Arc<Session<F>>,
    store: Lane<Job>,
    lock: Lane<Job>,
}

impl<F: Filesystem + 'static> Pool<F> {
    /// `store_threads` caps the Store lane; 0 leaves it to us.
    pub(crate) fn new(session: Arc<Session<F>>, store_threads: usize) -> Self {
        let store_threads = if store_threads == 0 {
            DEFAULT_THREADS
        } else {
            store_threads
        };
        let work = || {
            let session = Arc::clone(&session);
            move |job| resume(&session, job)
        };
        Self {
            store: Lane::new("fs-store", store_threads, work()),
            lock: Lane::new("fs-lock", DEFAULT_THREADS, work()),
            session,
        }
    }

    /// Hands a job to its lane.
    pub(crate) fn submit(&self, job: Job) {
        let lane = match job.ticket.lane() {
            virtiofs_protocol::Lane::Store => &self.store,
            virtiofs_protocol::Lane::Lock => &self.lock,
        };
        if let Err(jobs) = lane.submit(job) {
            // Nobody is left to do it.
            self.abandon(jobs);
        }
    }

    /// Answers what has not begun with EIO.
    pub(crate) fn abandon_waiting(&self) {
        for lane in [&self.store, &self.lock] {
            self.abandon(lane.take_waiting());
        }
    }

    fn abandon(&self, jobs: Vec<Job>) {
        for mut job in jobs {
            let completed = self.session.abandon(job.chain.request(), job.ticket);
            job.used.complete_parked(Completion {
                head: job.chain.head,
                written_bytes: completed.written_bytes,
            });
        }
    }
}

fn resume<F: Filesystem>(session: &Session<F>, mut job: Job) {
    let completed = session.resume(job.chain.request(), job.ticket);
    job.used.complete_parked(Completion {
        head: job.chain.head,
        written_bytes: completed.written_bytes,
    });
}
