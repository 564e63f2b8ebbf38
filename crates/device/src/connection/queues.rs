//! The queues of a connection: what was said about each, and the threads that serve them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtiofs_protocol::{Filesystem, HangUp, Session};

use crate::features::{MOST_QUEUES, virtio};
use crate::memory::{Memory, RingAddresses, RingMemory};
use crate::message::request;
use crate::pool::Pool;
use crate::ring::{AvailableRing, Notification};
use crate::used::{Call, UsedRing};
use crate::worker::{Work, Worker};

/// How long a stopping queue waits for what is inside a call.
const DRAIN: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const DRAIN_STEP: Duration = Duration::from_millis(1);
/// Largest split ring (virtio 1.3, 2.7), in entries.
const MOST_ENTRIES: u32 = 32_768;

type Refused = &'static str;

/// One queue as described so far.
#[derive(Default)]
struct Queue {
    size: u16,
    base: u16,
    addresses: Option<RingAddresses>,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    error: Option<OwnedFd>,
    enabled: bool,
    worker: Option<Worker>,
}

/// All queues.
pub(super) struct Queues<F> {
    queues: Vec<Queue>,
    session: Arc<Session<F>>,
    pool: Arc<Pool<F>>,
    features: u64,
}

impl<F: Filesystem + 'static> Queues<F> {
    pub(super) fn new(session: Arc<Session<F>>, store_threads: usize) -> Self {
        let pool = Arc::new(Pool::new(Arc::clone(&session), store_threads));
        let queues = (0..MOST_QUEUES).map(|_| Queue::default()).collect();
        Self {
            queues,
            session,
            pool,
            features: 0,
        }
    }

    pub(super) fn session(&self) -> &Session<F> {
        &self.session
    }

    pub(super) fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    fn queue(&mut self, index: u32) -> Result<&mut Queue, Refused> {
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
                let copy = descriptor
                    .as_ref()
                    .map(OwnedFd::try_clone)
                    .transpose()
                    .map_err(|_| "no descriptor left")?;
                if let Some(worker) = &queue.worker {
                    worker.used.set_call(copy.map(Call::new));
                }
                queue.call = descriptor;
                Ok(())
            }
            request::SET_VRING_ERR => {
                queue.error = descriptor;
                Ok(())
            }
            _ if none => Err("a queue without a kick would have to be polled"),
            _ => {
                self.halt(index)?;
                self.queue(index)?.kick = descriptor;
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
            return self.halt(index);
        }
        self.start_if_ready(index, memory)
    }

    /// Starts a queue of which everything is known. Without the protocol features, a kick enables.
    fn start_if_ready(&mut self, index: u32, memory: &Arc<Memory>) -> Result<(), Refused> {
        let notification = if self.features & virtio::EVENT_IDX != 0 {
            Notification::EventIndex
        } else {
            Notification::Flag
        };
        let needs_enable = self.features & virtio::PROTOCOL_FEATURES != 0;
        let (session, pool) = (Arc::clone(&self.session), Arc::clone(&self.pool));
        let queue = self.queue(index)?;
        let (Some(addresses), Some(kick)) = (queue.addresses, &queue.kick) else {
            return Ok(());
        };
        if queue.worker.is_some() || (needs_enable && !queue.enabled) || queue.size == 0 {
            return Ok(());
        }
        let ring = RingMemory::new(memory, queue.size, addresses)
            .ok_or("the ring is not in guest memory")?;
        let clone = |descriptor: &OwnedFd| descriptor.try_clone().map_err(|_| "no descriptor left");
        let call = queue.call.as_ref().map(clone).transpose()?.map(Call::new);
        let work = Work {
            used: Arc::new(UsedRing::new(ring.clone(), queue.base, call, notification)),
            available: AvailableRing::new(ring, queue.base, notification),
            kick: clone(kick)?,
            error: queue.error.as_ref().map(clone).transpose()?,
            session,
            pool,
        };
        let name = if index == 0 {
            "fs-hiprio".to_owned()
        } else {
            format!("fs-queue-{index}")
        };
        queue.worker = Some(Worker::start(name, work).map_err(|_| "no thread left")?);
        Ok(())
    }

    /// Stops a queue and forgets its kick (GET_VRING_BASE); returns the index to go on from.
    pub(super) fn stop(&mut self, index: u32) -> Result<u16, Refused> {
        self.halt(index)?;
        let queue = self.queue(index)?;
        queue.kick = None;
        Ok(queue.base)
    }

    /// Stops serving a queue and waits for what is in flight, some seconds at most.
    fn halt(&mut self, index: u32) -> Result<(), Refused> {
        let queue = self.queue(index)?;
        let Some(worker) = queue.worker.take() else {
            return Ok(());
        };
        let used = Arc::clone(&worker.used);
        queue.base = worker.stop();
        let deadline = Instant::now() + DRAIN;
        while used.in_flight() > 0 && Instant::now() < deadline {
            std::thread::sleep(DRAIN_STEP);
        }
        let late = used.in_flight();
        used.take_down();
        if late > 0 {
            tracing::error!(
                "queue {index} stopped with {late} requests still inside a call; they are lost to the guest"
            );
        }
        Ok(())
    }

    /// The memory table changed: queues that run go on in the new generation.
    pub(super) fn restart_in(&mut self, memory: &Arc<Memory>) {
        for index in 0..MOST_QUEUES {
            let runs = self.queue(index).is_ok_and(|queue| queue.worker.is_some());
            if runs
                && self.halt(index).is_ok()
                && let Err(why) = self.start_if_ready(index, memory)
            {
                tracing::warn!("queue {index} stays stopped under the new memory table: {why}");
            }
        }
    }

    /// Stops everything and gives up what waits.
    pub(super) fn tear_down(&mut self, why: HangUp) {
        self.session.cancel_all(why);
        self.pool.abandon_waiting();
        for index in 0..MOST_QUEUES {
            // Every index is one of ours, so there is nothing to refuse.
            let _ = self.halt(index);
        }
        self.queues = (0..MOST_QUEUES).map(|_| Queue::default()).collect();
    }
}
