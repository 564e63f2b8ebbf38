//! One queue on one thread: pop, serve, complete, look for more, sleep.
//!
//! A thread that stays inside one call can be replaced by another one (`seat`), which goes on with
//! the queue: so a call that hangs holds neither the queue nor whoever stops it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use virtiofs_protocol::{Filesystem, Served, Session};

use crate::alertness::Alertness;
use crate::chain::{Buffers, Chain};
use crate::doorbell::Doorbell;
use crate::error::DeviceError;
use crate::polling::{Polling, Processors, Seen, Window};
use crate::pool::{Job, Pool};
use crate::ring::AvailableRing;
use crate::seat::{BATCH, Call, Seat};
use crate::sync::is_alone;
use crate::used::{Completion, UsedRing};

/// How long a queue that shall stop may be inside a call before it is stopped without its thread.
const GRACE: Duration = Duration::from_millis(1);

/// Everything that serving a queue needs.
pub(crate) struct Work<F> {
    pub(crate) used: Arc<UsedRing>,
    pub(crate) doorbell: Doorbell,
    pub(crate) polling: Polling,
    pub(crate) processors: Arc<Processors>,
    pub(crate) session: Arc<Session<F>>,
    pub(crate) pool: Arc<Pool<F>>,
    pub(crate) alertness: Arc<Alertness>,
}

/// A queue that is being served, by whatever thread.
pub(crate) struct Worker<F> {
    work: Work<F>,
    stopping: AtomicBool,
    place: Mutex<Place>,
    changed: Condvar,
}

/// Who serves the queue now.
enum Place {
    /// The thread on this seat; what it needs to begin stands beside it until it does.
    Served(Arc<Seat>, AvailableRing),
    /// Nobody: the index from which the queue would go on.
    Ended(u16),
}

/// A thread's first step: a queue and the seat at it.
pub(crate) struct Turn<F> {
    worker: Arc<Worker<F>>,
    seat: Arc<Seat>,
    available: AvailableRing,
}

impl<F: Filesystem + 'static> Worker<F> {
    /// Starts serving.
    pub(crate) fn start(
        name: String,
        work: Work<F>,
        available: AvailableRing,
    ) -> std::io::Result<Arc<Self>> {
        let seat = Arc::new(Seat::default());
        let worker = Arc::new(Self {
            work,
            stopping: AtomicBool::new(false),
            place: Mutex::new(Place::Served(Arc::clone(&seat), available.clone())),
            changed: Condvar::new(),
        });
        let turn = Turn {
            worker: Arc::clone(&worker),
            seat,
            available,
        };
        if is_alone() {
            turn.run();
            return Ok(worker);
        }
        worker.work.alertness.rouse();
        thread::Builder::new()
            .name(name)
            .spawn(move || turn.run())?;
        Ok(worker)
    }

    pub(crate) fn used(&self) -> &Arc<UsedRing> {
        &self.work.used
    }

    /// Asks the queue to stop popping, without waiting for it.
    pub(crate) fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.work.doorbell.nudge();
    }

    /// Has a thread that sleeps do what it does before it sleeps, once more.
    pub(crate) fn nudge(&self) {
        self.work.doorbell.nudge();
    }

    /// Waits until the queue has stopped popping; returns the index from which it would go on.
    ///
    /// A thread that is inside a call is not waited for: that call is in flight from then on.
    pub(crate) fn stopped(&self, deadline: Instant) -> u16 {
        self.ask_to_stop();
        loop {
            let place = self.place();
            let Place::Served(seat, _) = &*place else {
                break;
            };
            let seat = Arc::clone(seat);
            let (place, _) = self
                .changed
                .wait_timeout_while(place, GRACE, |place| matches!(place, Place::Served(..)))
                .unwrap_or_else(PoisonError::into_inner);
            if matches!(*place, Place::Ended(_)) || Instant::now() >= deadline {
                break;
            }
            drop(place);
            if let Some(call) = seat.call() {
                self.end_without(&seat, call);
            }
        }
        match &*self.place() {
            Place::Ended(next) => *next,
            // Its thread cannot even call the driver: what it would publish is given up.
            Place::Served(_, available) => available.next(),
        }
    }

    /// Takes a seat and gives it to nobody.
    fn end_without(&self, seat: &Seat, call: Call) {
        if let Some(next) = self.take(seat, call) {
            *self.place() = Place::Ended(next);
            self.changed.notify_all();
        }
    }

    /// The seat that is taken now, if any.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        match &*self.place() {
            Place::Served(seat, _) => Some(Arc::clone(seat)),
            Place::Ended(_) => None,
        }
    }

    /// Whether anything waits for a call to end.
    pub(crate) fn waits_for(&self, call: Call) -> bool {
        match &*self.place() {
            Place::Served(_, available) => {
                call.has_batch || available.clone().from(call.next).has_more()
            }
            Place::Ended(_) => false,
        }
    }

    /// Takes the queue from a thread that is still inside that call; returns another one's turn.
    pub(crate) fn take_over(self: &Arc<Self>, seat: &Seat, call: Call) -> Option<Turn<F>> {
        let mut place = self.place();
        let available = match &*place {
            Place::Served(current, available) if std::ptr::eq(&raw const **current, seat) => {
                available.clone()
            }
            Place::Served(..) | Place::Ended(_) => return None,
        };
        let next = self.take(seat, call)?;
        let (seat, available) = (Arc::new(Seat::default()), available.from(next));
        *place = Place::Served(Arc::clone(&seat), available.clone());
        Some(Turn {
            worker: Arc::clone(self),
            seat,
            available,
        })
    }

    fn take(&self, seat: &Seat, call: Call) -> Option<u16> {
        let used = &self.work.used;
        let taken = used.parked_if(call.head, || seat.take(call))?;
        used.complete(&taken.batch);
        Some(taken.next)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread keeps between requests.
struct Kept {
    window: Window,
    batch: Vec<Completion>,
    #[expect(
        clippy::vec_box,
        reason = "a chain keeps its box, so that moving it to a pool moves a pointer"
    )]
    free: Vec<Box<Buffers>>,
}

/// How a thread's turn at a queue went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next chain.
    Chain,
    /// The queue is another thread's.
    Lost,
}

impl<F: Filesystem + 'static> Turn<F> {
    /// Serves the queue until it stops, breaks or is taken over.
    pub(crate) fn run(mut self) {
        let mut kept = Kept {
            window: Window::new(self.worker.work.polling),
            batch: Vec::with_capacity(BATCH),
            free: Vec::new(),
        };
        match self.serve_until_stopped(&mut kept) {
            Ok(Next::Lost) => return,
            Ok(Next::Chain) => self.publish(&mut kept),
            Err(broken) => {
                self.publish(&mut kept);
                self.report(broken);
            }
        }
        *self.worker.place() = Place::Ended(self.available.next());
        self.seat.sleep();
        self.worker.changed.notify_all();
    }

    fn report(&self, broken: DeviceError) {
        // Memory that the front-end took away has its own line, at the connection.
        if !self.available.memory.memory().is_poisoned() {
            tracing::error!(
                "a queue is broken and stops: {broken}; the guest has to reset the device"
            );
        }
        self.worker.work.used.signal_error();
    }

    fn serve_until_stopped(&mut self, kept: &mut Kept) -> Result<Next, DeviceError> {
        let worker = Arc::clone(&self.worker);
        let work = &worker.work;
        loop {
            self.available.disarm();
            while let Some(head) = self.available.pop()? {
                if self.serve(kept, head)? == Next::Lost {
                    return Ok(Next::Lost);
                }
                if worker.stopping.load(Ordering::Relaxed) {
                    return Ok(Next::Chain);
                }
            }
            self.publish(kept);
            work.alertness.look_again(work.session.rest());
            let open = kept.window.open(&work.processors);
            let open = open.map(|length| (Instant::now(), length));
            if let Some((since, length)) = open
                && let Some(seen) = self.look_for_more(since, length)
            {
                kept.window.caught(seen);
                continue;
            }
            if self.available.arm() {
                continue;
            }
            if is_alone() {
                return Ok(Next::Chain);
            }
            self.seat.sleep();
            let slept = work.doorbell.sleep();
            self.seat.wake();
            if worker.stopping.load(Ordering::Acquire) {
                return Ok(Next::Chain);
            }
            slept?;
            if let Some((since, _)) = open {
                kept.window.missed(since.elapsed());
            }
            work.alertness.rouse();
        }
    }

    /// Looks for the next chain for so long; says how it was seen.
    fn look_for_more(&self, since: Instant, length: Duration) -> Option<Seen> {
        let mut last = None;
        while last.unwrap_or(since).duration_since(since) < length {
            if self.available.has_more() {
                return Some(
                    last.map_or(Seen::AtOnce, |last: Instant| Seen::after(last.elapsed())),
                );
            }
            if self.worker.stopping.load(Ordering::Relaxed) {
                return None;
            }
            std::hint::spin_loop();
            last = Some(Instant::now());
        }
        None
    }

    fn serve(&mut self, kept: &mut Kept, head: u16) -> Result<Next, DeviceError> {
        let work = &self.worker.work;
        let buffers = kept.free.pop().unwrap_or_default();
        let mut chain = match Chain::new(&self.available.memory, head, buffers) {
            Ok(chain) => chain,
            Err((bad, buffers)) => {
                tracing::debug!("chain {head} holds no request: {bad:?}");
                kept.free.push(buffers);
                self.push(kept, head, 0);
                return Ok(Next::Chain);
            }
        };
        self.seat.enter(head, self.available.next());
        let served = work.session.serve(chain.request());
        let is_lost = !self.seat.leave();
        let written_bytes = match served {
            Served::Replied { written_bytes } => written_bytes,
            Served::NoReply => 0,
            Served::Parked(ticket) => {
                if !is_lost {
                    self.publish(kept);
                    if let Err(broken) = work.used.parked(head) {
                        work.session.abandon(chain.request(), ticket);
                        return Err(broken);
                    }
                }
                let used = Arc::clone(&work.used);
                work.pool.submit(Job {
                    chain,
                    ticket,
                    used,
                });
                return Ok(if is_lost { Next::Lost } else { Next::Chain });
            }
        };
        if is_lost {
            work.used.complete_parked(Completion {
                head,
                written_bytes,
            });
            return Ok(Next::Lost);
        }
        self.push(kept, head, written_bytes);
        kept.free.push(chain.into_buffers());
        Ok(Next::Chain)
    }

    fn push(&self, kept: &mut Kept, head: u16, written_bytes: u32) {
        if self.seat.push(Completion {
            head,
            written_bytes,
        }) {
            self.publish(kept);
        }
    }

    fn publish(&self, kept: &mut Kept) {
        self.seat.drain(&mut kept.batch);
        if !kept.batch.is_empty() {
            self.worker.work.used.complete(&kept.batch);
        }
    }
}
