//! Completing chains, from any thread.
//!
//! One lock per queue, held while entries are written and never while the driver is called: a
//! descriptor to call by is the front-end's, and a call through it may not return.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};

use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};
use rustix::net::{SendFlags, send};
use virtiofs_protocol::Errno;

use crate::chain::{Buffers, Chain};
use crate::error::DeviceError;
use crate::memory::{Memory, RingMemory};
use crate::ring::Notification;
use crate::sync::{Mutex, MutexGuard, is_planted};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;

/// A chain's first descriptor and the bytes written for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) head: u16,
    pub(crate) written_bytes: u32,
}

impl Completion {
    /// The value in one word.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.head) << 32 | u64::from(self.written_bytes)
    }

    /// Reads the word.
    pub(crate) fn from_bits(bits: u64) -> Self {
        let [b0, b1, b2, b3, h0, h1, ..] = bits.to_le_bytes();
        Self {
            head: u16::from_le_bytes([h0, h1]),
            written_bytes: u32::from_le_bytes([b0, b1, b2, b3]),
        }
    }
}

#[derive(Debug)]
struct State {
    /// `None` when the queue is down: what completes late is dropped.
    ring: Option<RingMemory>,
    index: u16,
    call: Option<Arc<Call>>,
    error: Option<Call>,
    /// Heads of chains that other threads than the queue's own will complete.
    in_flight: Vec<u16>,
}

/// The device's side of a used ring. Its lock is taken once per batch.
#[derive(Debug)]
pub(crate) struct UsedRing {
    state: Mutex<State>,
    notification: Notification,
}

impl UsedRing {
    pub(crate) fn new(ring: RingMemory, index: u16, notification: Notification) -> Self {
        Self {
            state: Mutex::new(State {
                ring: Some(ring),
                index,
                call: None,
                error: None,
                in_flight: Vec::new(),
            }),
            notification,
        }
    }

    /// Notes a chain that completes later, from another thread.
    ///
    /// # Errors
    ///
    /// A head that is in flight already: no driver does that, and it would have no end.
    pub(crate) fn parked(&self, head: u16) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.in_flight.contains(&head) {
            return Err(DeviceError::InFlight { head });
        }
        state.in_flight.push(head);
        Ok(())
    }

    /// Notes a chain as [`UsedRing::parked`] does, if and when `happens` says so.
    pub(crate) fn parked_if<T>(&self, head: u16, happens: impl FnOnce() -> Option<T>) -> Option<T> {
        // Under the lock: whoever completes the chain finds it noted.
        let mut state = self.state();
        if state.in_flight.contains(&head) {
            return None;
        }
        if is_planted("notes a chain after it may have been completed") {
            drop(state);
            let happened = happens()?;
            self.state().in_flight.push(head);
            return Some(happened);
        }
        let happened = happens()?;
        state.in_flight.push(head);
        Some(happened)
    }

    /// Publishes completions with one index and at most one call.
    pub(crate) fn complete(&self, completions: &[Completion]) {
        let call = self.publish(&mut self.state(), completions);
        signal(call);
    }

    /// Publishes a completion that was noted as parked.
    pub(crate) fn complete_parked(&self, completion: Completion) {
        let call = {
            let mut state = self.state();
            state.forget(completion.head);
            if is_planted("forgets a chain before it is completed") {
                drop(state);
                state = self.state();
            }
            self.publish(&mut state, &[completion])
        };
        signal(call);
    }

    /// How many chains are with other threads.
    pub(crate) fn in_flight(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Another descriptor to call the driver by.
    pub(crate) fn set_call(&self, call: Option<Call>) {
        self.state().call = call.map(Arc::new);
    }

    /// Another descriptor by which to say that the queue is broken.
    pub(crate) fn set_error(&self, error: Option<Call>) {
        self.state().error = error;
    }

    /// Says that the queue is broken.
    pub(crate) fn signal_error(&self) {
        let error = self.state().error.take();
        if let Some(error) = error {
            error.signal();
        }
    }

    /// The same ring in another memory table; `None` takes the queue down.
    pub(crate) fn move_to(&self, memory: &Arc<Memory>) -> Option<RingMemory> {
        let mut state = self.state();
        state.ring = state.ring.as_ref()?.moved_to(memory);
        state.ring.clone()
    }

    /// The queue is down: nothing is written to its ring any more. Returns what was in flight.
    pub(crate) fn take_down(&self) -> Option<LastWord> {
        let mut state = self.state();
        Some(LastWord {
            ring: state.ring.take()?,
            index: state.index,
            heads: std::mem::take(&mut state.in_flight),
            call: state.call.clone(),
            notification: self.notification,
        })
    }

    fn publish(&self, state: &mut State, completions: &[Completion]) -> Option<Arc<Call>> {
        let ring = state.ring.as_ref()?;
        if completions.is_empty() {
            return None;
        }
        let old = state.index;
        for completion in completions {
            ring.put_used(state.index, completion.head, completion.written_bytes);
            state.index = state.index.wrapping_add(1);
        }
        ring.set_used_index(state.index);
        // The index must be seen before we look whether the driver wants a call (2.7.7.2).
        fence(Ordering::SeqCst);
        let wanted = match self.notification {
            Notification::EventIndex => passes(ring.used_event(), state.index, old),
            Notification::Flag => ring.available_flags() & NO_INTERRUPT == 0,
        };
        state.call.clone().filter(|_| wanted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, head: u16) {
        if let Some(place) = self.in_flight.iter().position(|&other| other == head) {
            self.in_flight.swap_remove(place);
        }
    }
}

/// A queue that is down, with requests that are still inside a call.
#[derive(Debug)]
pub(crate) struct LastWord {
    ring: RingMemory,
    index: u16,
    heads: Vec<u16>,
    call: Option<Arc<Call>>,
    notification: Notification,
}

impl LastWord {
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        self.ring.memory()
    }

    /// Answers what is in flight with EIO. `memory` is the guest's, where nobody else writes to it.
    pub(crate) fn answer_eio(&self, memory: &Arc<Memory>) {
        let Some(ring) = self.ring.moved_to(memory) else {
            return;
        };
        let used = UsedRing::new(ring.clone(), self.index, self.notification);
        used.state().call = self.call.clone();
        for &head in &self.heads {
            // Read again: a guest that has changed its descriptors meanwhile misleads itself.
            let written_bytes = match Chain::new(&ring, head, Box::<Buffers>::default()) {
                Ok(mut chain) => {
                    let request = chain.request();
                    let unique = request.head.unique();
                    request.reply.finish(unique, Err(Errno::IO))
                }
                Err(_) => 0,
            };
            used.complete(&[Completion {
                head,
                written_bytes,
            }]);
        }
    }
}

/// Whether an index went past the event index (virtio 1.3, 2.7.7.2, `vring_need_event`).
fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

fn signal(call: Option<Arc<Call>>) {
    if let Some(call) = call {
        call.signal();
    }
}

/// By what the driver is called, or told that a queue is broken.
#[derive(Debug)]
pub(crate) enum Call {
    /// An eventfd.
    Event(OwnedFd),
    /// A stream socket, which user-mode Linux hands over instead.
    Socket(OwnedFd),
}

impl Call {
    /// Finds out which it is, once, and sees to it that writing does not wait.
    ///
    /// # Errors
    ///
    /// One line for the operator: what is stored somewhere is nobody's ear.
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Self, &'static str> {
        // Not by getsockopt(2), which would be one more system call to let through.
        if kind(&descriptor)? == FileType::Socket {
            return Ok(Self::Socket(descriptor));
        }
        do_not_wait(&descriptor)?;
        Ok(Self::Event(descriptor))
    }

    /// Calls. A full counter or buffer means that a call is waiting; a closed peer is noticed at
    /// the connection.
    pub(crate) fn signal(&self) {
        let one = 1_u64.to_ne_bytes();
        let _ = match self {
            Self::Event(event) => rustix::io::write(event, &one),
            Self::Socket(socket) => send(socket, &one, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
        };
    }
}

/// What a descriptor of the front-end's is.
fn kind(descriptor: impl AsFd) -> Result<FileType, &'static str> {
    statx(descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .map(|stat| FileType::from_raw_mode(stat.stx_mode.into()))
        .map_err(|_| "a descriptor that cannot be looked at")
}

/// Refuses what is no event, and makes the rest non-blocking.
pub(crate) fn do_not_wait(descriptor: impl AsFd) -> Result<(), &'static str> {
    match kind(&descriptor)? {
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::BlockDevice
        | FileType::CharacterDevice => Err("a descriptor that is no eventfd"),
        // Anonymous inodes have no type.
        FileType::Fifo | FileType::Socket | FileType::Unknown => fcntl_getfl(&descriptor)
            .and_then(|flags| fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK))
            .map_err(|_| "a descriptor that waits"),
    }
}

#[cfg(test)]
mod tests;
