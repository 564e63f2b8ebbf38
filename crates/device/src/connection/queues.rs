//! The queues of a connection: what was said about each, and the threads that serve them.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use virtiofs_protocol::{Filesystem, HangUp, Session};

use crate::connection::DeviceOptions;
use crate::doorbell::Doorbell;
use crate::features::{MOST_QUEUES, virtio};
use crate::memory::{Memory, RingAddresses, RingMemory};
use crate::message::request;
use crate::monitor::Monitor;
use crate::polling::{Polling, Processors};
use crate::pool::Pool;
use crate::pressure::Gauge;
use crate::ring::{AvailableRing, Notification};
use crate::used::{Call, LastWord, UsedRing, do_not_wait};
use crate::worker::{Work, Worker};

/// How long stopping queues wait, all together, for what is inside a call.
const DRAIN: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const DRAIN_STEP: Duration = Duration::from_millis(1);
/// Largest split ring (virtio 1.3, 2.7), in entries.
const MOST_ENTRIES: u32 = 32_768;

/// A request without data, where descriptors are not indirect: header, arguments, header of the reply; and one more.
const DESCRIPTORS_PER_WAIT: u16 = 4;

type Refused = &'static str;

/// One queue as described so far.
struct Queue<F> {
    size: u16,
    base: u16,
    addresses: Option<RingAddresses>,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    error: Option<OwnedFd>,
    enabled: bool,
    worker: Option<Arc<Worker<F>>>,
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self {
            size: 0,
            base: 0,
            addresses: None,
            kick: None,
            call: None,
            error: None,
            enabled: false,
            worker: None,
        }
    }
}

/// All queues.
pub(super) struct Queues<F> {
    queues: Vec<Queue<F>>,
    session: Arc<Session<F>>,
    pool: Arc<Pool<F>>,
    monitor: Monitor<F>,
    polling: Polling,
    processors: Arc<Processors>,
    features: u64,
    /// Memory tables in which rings were; late requests keep theirs.
    generations: Vec<Weak<Memory>>,
    late: usize,
}

impl<F: Filesystem + 'static> Queues<F> {
    pub(super) fn new(session: Arc<Session<F>>, options: &DeviceOptions) -> Self {
        let pool = Arc::new(Pool::new(Arc::clone(&session), options.store_threads));
        let processors = Arc::new(Processors::new(options.processors));
        let gauge = Gauge::new(options.pressure.clone());
        let queues = (0..MOST_QUEUES).map(|_| Queue::default()).collect();
        Self {
            queues,
            session,
            pool,
            monitor: Monitor::new(gauge, Arc::clone(&processors)),
            polling: options.polling,
            processors,
            features: 0,
            generations: Vec::new(),
            late: 0,
        }
    }

    /// Requests that were given up because the store does not end them; the connection has to end.
    pub(super) fn late(&self) -> usize {
        self.late
    }

    pub(super) fn session(&self) -> &Session<F> {
        &self.session
    }

    pub(super) fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    fn queue(&mut self, index: u32) -> Result<&mut Queue<F>, Refused> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.queues.get_mut(index))
            .ok_or("no such queue")
    }

    pub(super) fn set_size(&mut self, index: u32, size: u32) -> Result<(), Refused> {
        let queue = self.queue(index)?;
        if !size.is_power_of_two() || size > MOST_ENTRIES {
            return Err("a split ring has a power of two entries, at most 32768");
        }
        queue.size = u16::try_from(size).map_err(|_| "ring too large")?;
        Ok(())
    }

    pub(super) fn set_base(&mut self, index: u32, base: u32) -> Result<(), Refused> {
        self.queue(index)?.base = u16::try_from(base).map_err(|_| "a ring's index has 16 bits")?;
        Ok(())
    }

    pub(super) fn set_addresses(
        &mut self,
        index: u32,
        addresses: RingAddresses,
    ) -> Result<(), Refused> {
        self.queue(index)?.addresses = Some(addresses);
        Ok(())
    }

    /// Takes the descriptor of SET_VRING_KICK, CALL or ERR. Bits 0 to 7 name the queue, bit 8 says
    /// that there is none.
    pub(super) fn set_descriptor(
        &mut self,
        request: u32,
        raw: u64,
        descriptor: Option<OwnedFd>,
        memory: &Arc<Memory>,
    ) -> Result<(), Refused> {
        let index = u32::try_from(raw & 0xff).map_err(|_| "no such queue")?;
        let none = raw & 0x100 != 0;
        if none == descriptor.is_some() {
            return Err("a descriptor where none was announced, or none where one was");
        }
        let queue = self.queue(index)?;
        match request {
            request::SET_VRING_CALL => {
                let call = ear(descriptor.as_ref())?;
                if let Some(worker) = &queue.worker {
                    worker.used().set_call(call);
                }
                queue.call = descriptor;
                Ok(())
            }
            request::SET_VRING_ERR => {
                let error = ear(descriptor.as_ref())?;
                if let Some(worker) = &queue.worker {
                    worker.used().set_error(error);
                }
                queue.error = descriptor;
                Ok(())
            }
            _ => {
                let kick = descriptor.ok_or("a queue without a kick would have to be polled")?;
                do_not_wait(&kick)?;
                self.halt(&[index]);
                self.queue(index)?.kick = Some(kick);
                self.start_if_ready(index, memory)
            }
        }
    }

    pub(super) fn enable(
        &mut self,
        index: u32,
        on: u32,
        memory: &Arc<Memory>,
    ) -> Result<(), Refused> {
        self.queue(index)?.enabled = on != 0;
        if on == 0 {
            self.halt(&[index]);
            return Ok(());
        }
        self.start_if_ready(index, memory)
    }

    /// Starts a queue of which everything is known. Without the protocol features, a kick enables.
    fn start_if_ready(&mut self, index: u32, memory: &Arc<Memory>) -> Result<(), Refused> {
        let notification = self.notification();
        let needs_enable = self.features & virtio::PROTOCOL_FEATURES != 0;
        let queue = self.queue(index)?;
        let Some(addresses) = queue.addresses else {
            return Ok(());
        };
        if queue.kick.is_none()
            || queue.worker.is_some()
            || (needs_enable && !queue.enabled)
            || queue.size == 0
        {
            return Ok(());
        }
        let ring = RingMemory::new(memory, queue.size, addresses)
            .ok_or("the ring is not in guest memory")?;
        let used = UsedRing::new(ring.clone(), queue.base, notification);
        used.set_call(ear(queue.call.as_ref())?);
        used.set_error(ear(queue.error.as_ref())?);
        let available = AvailableRing::new(ring, queue.base, notification);
        self.remember(memory);
        self.start(index, Arc::new(used), available)
    }

    fn remember(&mut self, memory: &Arc<Memory>) {
        let generations = &mut self.generations;
        generations.retain(|generation| generation.strong_count() > 0);
        if generations
            .last()
            .is_none_or(|last| !std::ptr::eq(last.as_ptr(), Arc::as_ptr(memory)))
        {
            generations.push(Arc::downgrade(memory));
        }
    }

    fn start(
        &mut self,
        index: u32,
        used: Arc<UsedRing>,
        available: AvailableRing,
    ) -> Result<(), Refused> {
        let (session, pool) = (Arc::clone(&self.session), Arc::clone(&self.pool));
        let alertness = Arc::clone(self.monitor.alertness());
        let processors = Arc::clone(&self.processors);
        // Nobody waits for what the high-priority queue is for.
        let polling = if index == 0 {
            Polling::Off
        } else {
            self.polling
        };
        let queue = self.queue(index)?;
        let kick = queue.kick.as_ref().ok_or("no kick")?;
        let kick = kick.try_clone().map_err(|_| "no descriptor left")?;
        let work = Work {
            used,
            doorbell: Doorbell::new(kick).map_err(|_| "a kick that cannot be waited for")?,
            polling,
            processors,
            session,
            pool,
            alertness,
        };
        let name = if index == 0 {
            "fs-hiprio".to_owned()
        } else {
            format!("fs-queue-{index}")
        };
        let worker = Worker::start(name, work, available).map_err(|_| "no thread left")?;
        queue.worker = Some(Arc::clone(&worker));
        self.count_served();
        self.bound_lock_waits();
        self.monitor.watch(&worker).map_err(|_| "no thread left")
    }

    fn count_served(&self) {
        let requests = self.queues.iter().skip(1);
        let served = requests.filter(|queue| queue.worker.is_some());
        self.processors.shared_by(served.count());
    }

    /// Keeps descriptors of the smallest request queue free from waits for locks, so that the request which
    /// ends them can be made.
    fn bound_lock_waits(&self) {
        let requests = self.queues.iter().skip(1);
        let sizes = requests.filter_map(|queue| queue.worker.as_ref().map(|_| queue.size));
        if let Some(size) = sizes.min() {
            let waits = (size / DESCRIPTORS_PER_WAIT).saturating_sub(1);
            self.session.set_most_lock_waits(waits.into());
        }
    }

    /// Stops a queue and forgets its kick (GET_VRING_BASE); returns the index to go on from.
    pub(super) fn stop(&mut self, index: u32) -> Result<u16, Refused> {
        self.queue(index)?;
        self.halt(&[index]);
        let queue = self.queue(index)?;
        queue.kick = None;
        Ok(queue.base)
    }

    /// Stops queues and waits for what is in flight, some seconds at most.
    ///
    /// What waits for a lock may do so for ever: it is given up, on all queues.
    fn halt(&mut self, indices: &[u32]) {
        self.halt_and(indices, |queues, in_flight| {
            if in_flight > 0 {
                queues.session.cancel_lock_waits();
            }
        });
    }

    /// As [`Queues::halt`]; does something about what is in flight before it waits.
    fn halt_and(&mut self, indices: &[u32], before_waiting: impl FnOnce(&Self, usize)) {
        let deadline = Instant::now() + DRAIN;
        let stopped = self.stop_popping(indices, deadline);
        let in_flight = || stopped.iter().map(|used| used.in_flight()).sum::<usize>();
        before_waiting(self, in_flight());
        while in_flight() > 0 && Instant::now() < deadline {
            // Not `sleep`, which would be one more system call to let through; waking early is no harm.
            std::thread::park_timeout(DRAIN_STEP);
        }
        let late = in_flight();
        let last_words: Vec<LastWord> =
            stopped.iter().filter_map(|used| used.take_down()).collect();
        if late > 0 {
            self.give_up(late, last_words);
        }
    }

    fn stop_popping(&mut self, indices: &[u32], deadline: Instant) -> Vec<Arc<UsedRing>> {
        let mut halting = Vec::new();
        for &index in indices {
            if let Ok(queue) = self.queue(index)
                && let Some(worker) = queue.worker.take()
            {
                // All at once, so that none waits for another's.
                worker.ask_to_stop();
                halting.push((index, worker));
            }
        }
        self.count_served();
        let mut stopped = Vec::new();
        for (index, worker) in halting {
            let base = worker.stopped(deadline);
            if let Ok(queue) = self.queue(index) {
                queue.base = base;
            }
            stopped.push(Arc::clone(worker.used()));
        }
        stopped
    }

    /// Completes late requests with EIO and takes the guest's memory away from them.
    fn give_up(&mut self, late: usize, last_words: Vec<LastWord>) {
        self.late += late;
        // The newest first: it may share regions with older ones, and the rings are in it.
        for generation in self.generations.iter().rev().filter_map(Weak::upgrade) {
            let moved = Arc::new(generation.withdraw());
            for last_word in &last_words {
                if Arc::ptr_eq(last_word.memory(), &generation) {
                    last_word.answer_eio(&moved);
                }
            }
        }
    }

    /// The memory table changed: queues that run go on in the new one. What is in flight keeps the
    /// old one for its data and is completed in the new one's ring.
    pub(super) fn move_to(&mut self, memory: &Arc<Memory>) {
        let deadline = Instant::now() + DRAIN;
        for index in 0..MOST_QUEUES {
            let stopped = self.stop_popping(&[index], deadline);
            let [used] = &stopped[..] else { continue };
            if let Err(why) = self.go_on(index, used, memory) {
                tracing::warn!("queue {index} stays stopped under the new memory table: {why}");
            }
        }
    }

    fn go_on(
        &mut self,
        index: u32,
        used: &Arc<UsedRing>,
        memory: &Arc<Memory>,
    ) -> Result<(), Refused> {
        let ring = used
            .move_to(memory)
            .ok_or("the ring is not in guest memory")?;
        let base = self.queue(index)?.base;
        let available = AvailableRing::new(ring, base, self.notification());
        self.remember(memory);
        self.start(index, Arc::clone(used), available)
    }

    /// Stops everything and gives up what waits.
    pub(super) fn tear_down(&mut self, why: HangUp) {
        let all: Vec<u32> = (0..MOST_QUEUES).collect();
        self.halt_and(&all, |queues, _| {
            queues.session.cancel_all(why);
            queues.pool.abandon_waiting();
        });
        self.queues = (0..MOST_QUEUES).map(|_| Queue::default()).collect();
    }

    fn notification(&self) -> Notification {
        if self.features & virtio::EVENT_IDX != 0 {
            Notification::EventIndex
        } else {
            Notification::Flag
        }
    }
}

/// A descriptor to tell the front-end something by.
fn ear(descriptor: Option<&OwnedFd>) -> Result<Option<Call>, Refused> {
    let copy = descriptor.map(OwnedFd::try_clone).transpose();
    copy.map_err(|_| "no descriptor left")?
        .map(Call::new)
        .transpose()
}
