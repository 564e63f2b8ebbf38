//! Completing chains, from any thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt::socket_type;
use rustix::net::{SendFlags, send};

use crate::memory::RingMemory;
use crate::ring::Notification;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;

/// A chain's first descriptor and the bytes written for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) head: u16,
    pub(crate) written_bytes: u32,
}

#[derive(Debug)]
struct State {
    /// `None` when the queue is down: what completes late is dropped.
    ring: Option<RingMemory>,
    index: u16,
    call: Option<Call>,
    /// Chains taken out and not completed yet.
    in_flight: usize,
}

/// The device's side of a used ring. One lock per queue, taken once per batch.
#[derive(Debug)]
pub(crate) struct UsedRing {
    state: Mutex<State>,
    notification: Notification,
}

impl UsedRing {
    pub(crate) fn new(
        ring: RingMemory,
        index: u16,
        call: Option<Call>,
        notification: Notification,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                ring: Some(ring),
                index,
                call,
                in_flight: 0,
            }),
            notification,
        }
    }

    /// Notes chains that complete later, from another thread.
    pub(crate) fn parked(&self) {
        self.state().in_flight += 1;
    }

    /// Publishes completions with one index and at most one call.
    pub(crate) fn complete(&self, completions: &[Completion]) {
        self.publish(&mut self.state(), completions);
    }

    /// Publishes a completion that was noted as parked.
    pub(crate) fn complete_parked(&self, completion: Completion) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        self.publish(&mut state, &[completion]);
    }

    /// How many chains are with other threads.
    pub(crate) fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// Another descriptor to call the driver by.
    pub(crate) fn set_call(&self, call: Option<Call>) {
        self.state().call = call;
    }

    /// The queue is down: nothing is written to its ring any more.
    pub(crate) fn take_down(&self) {
        self.state().ring = None;
    }

    fn publish(&self, state: &mut State, completions: &[Completion]) {
        let Some(ring) = &state.ring else { return };
        if completions.is_empty() {
            return;
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
        if let (true, Some(call)) = (wanted, &state.call) {
            call.signal();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an index went past the event index (virtio 1.3, 2.7.7.2, `vring_need_event`).
fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// By what the driver is called.
#[derive(Debug)]
pub(crate) enum Call {
    /// An eventfd.
    Event(OwnedFd),
    /// A stream socket, which user-mode Linux hands over instead.
    Socket(OwnedFd),
}

impl Call {
    /// Finds out which it is, once.
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        if socket_type(&descriptor).is_ok() {
            Self::Socket(descriptor)
        } else {
            Self::Event(descriptor)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_called_when_its_event_index_is_passed() {
        let cases = [
            (0, 1, 0, true),
            (1, 1, 0, false),
            (5, 16, 0, true),
            (16, 16, 0, false),
            (65_535, 0, 65_535, true),
            (65_530, 2, 65_528, true),
            (3, 2, 65_528, false),
        ];
        for (event, new, old, want) in cases {
            assert_eq!(
                passes(event, new, old),
                want,
                "event {event}, {old} -> {new}"
            );
        }
    }
}
