//! One queue on one thread: pop, serve, complete, sleep.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use virtiofs_protocol::{Filesystem, Served, Session};

use crate::chain::{Buffers, Chain};
use crate::error::DeviceError;
use crate::pool::{Job, Pool};
use crate::ring::AvailableRing;
use crate::used::{Call, Completion, UsedRing};

/// Completions are published at so many, and before anything that waits.
const BATCH: usize = 16;

/// Everything a queue's thread needs.
pub(crate) struct Work<F> {
    pub(crate) available: AvailableRing,
    pub(crate) used: Arc<UsedRing>,
    pub(crate) kick: OwnedFd,
    /// Signalled when the queue breaks.
    pub(crate) error: Option<OwnedFd>,
    pub(crate) session: Arc<Session<F>>,
    pub(crate) pool: Arc<Pool<F>>,
}

/// A queue that is being served.
pub(crate) struct Worker {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<u16>,
    pub(crate) used: Arc<UsedRing>,
}

impl Worker {
    /// Starts serving.
    pub(crate) fn start<F: Filesystem + 'static>(
        name: String,
        work: Work<F>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (stop_there, used) = (Arc::clone(&stop), Arc::clone(&work.used));
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || run(work, &stop_there))?;
        Ok(Self { stop, thread, used })
    }

    /// Stops popping; returns the index from which the queue would go on.
    pub(crate) fn stop(self) -> u16 {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        self.thread.join().unwrap_or(0)
    }
}

fn run<F: Filesystem + 'static>(mut work: Work<F>, stop: &OwnedFd) -> u16 {
    let mut turn = Turn {
        batch: Vec::with_capacity(BATCH),
        free: Vec::new(),
    };
    if let Err(broken) = turn.serve_until_stopped(&mut work, stop) {
        tracing::error!("a queue is broken and stops: {broken}; the guest has to reset the device");
        if let Some(error) = work.error.take() {
            Call::new(error).signal();
        }
    }
    work.used.complete(&turn.batch);
    work.available.next()
}

/// What a thread keeps between requests.
struct Turn {
    batch: Vec<Completion>,
    #[expect(
        clippy::vec_box,
        reason = "a chain keeps its box, so that moving it to a pool moves a pointer"
    )]
    free: Vec<Box<Buffers>>,
}

impl Turn {
    fn serve_until_stopped<F: Filesystem + 'static>(
        &mut self,
        work: &mut Work<F>,
        stop: &OwnedFd,
    ) -> Result<(), DeviceError> {
        loop {
            work.available.disarm();
            while let Some(head) = work.available.pop()? {
                self.serve(work, head);
                if self.batch.len() >= BATCH {
                    self.publish(&work.used);
                }
            }
            self.publish(&work.used);
            let most = work.session.rest();
            if !work.available.arm() && !sleep(&work.kick, stop, most)? {
                return Ok(());
            }
        }
    }

    fn serve<F: Filesystem + 'static>(&mut self, work: &Work<F>, head: u16) {
        let buffers = self.free.pop().unwrap_or_default();
        let mut chain = match Chain::new(&work.available.memory, head, buffers) {
            Ok(chain) => chain,
            Err((bad, buffers)) => {
                tracing::debug!("chain {head} holds no request: {bad:?}");
                self.free.push(buffers);
                self.batch.push(Completion {
                    head,
                    written_bytes: 0,
                });
                return;
            }
        };
        let written_bytes = match work.session.serve(chain.request()) {
            Served::Replied { written_bytes } => written_bytes,
            Served::NoReply => 0,
            Served::Parked(ticket) => {
                self.publish(&work.used);
                work.used.parked();
                work.pool.submit(Job {
                    chain,
                    ticket,
                    used: Arc::clone(&work.used),
                });
                return;
            }
        };
        self.batch.push(Completion {
            head,
            written_bytes,
        });
        self.free.push(chain.into_buffers());
    }

    fn publish(&mut self, used: &UsedRing) {
        used.complete(&self.batch);
        self.batch.clear();
    }
}

/// Waits for the driver's kick, or for as long as it may; false when it is time to stop.
fn sleep(kick: &OwnedFd, stop: &OwnedFd, most: Option<Duration>) -> Result<bool, DeviceError> {
    // What cannot be said as a timespec is longer than any machine runs.
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    let mut both = [
        PollFd::new(kick, PollFlags::IN),
        PollFd::new(stop, PollFlags::IN),
    ];
    match poll(&mut both, most.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(DeviceError::Kick(errno)),
    }
    if both[1].revents().contains(PollFlags::IN) {
        return Ok(false);
    }
    if both[0]
        .revents()
        .intersects(PollFlags::ERR | PollFlags::NVAL)
    {
        return Err(DeviceError::Kick(Errno::BADF));
    }
    if both[0].revents().is_empty() {
        return Ok(true);
    }
    match rustix::io::read(kick, &mut [0; 8]) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(true),
        Err(errno) => Err(DeviceError::Kick(errno)),
    }
}
