//! Taking chains out of a queue, and saying when to be woken (virtio 1.3, 2.7).

use std::sync::atomic::{Ordering, fence};

use crate::error::DeviceError;
use crate::memory::RingMemory;

/// `VIRTQ_USED_F_NO_NOTIFY`.
const NO_NOTIFY: u16 = 1;

/// How the driver learns whether to kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// By an index at which to (`VIRTIO_F_EVENT_IDX`).
    EventIndex,
    /// By a flag.
    Flag,
}

/// The device's side of an available ring.
#[derive(Clone, Debug)]
pub(crate) struct AvailableRing {
    pub(crate) memory: RingMemory,
    next: u16,
    notification: Notification,
}

impl AvailableRing {
    pub(crate) fn new(memory: RingMemory, next: u16, notification: Notification) -> Self {
        Self {
            memory,
            next,
            notification,
        }
    }

    /// The same ring, to be read from another index on.
    pub(crate) fn from(self, next: u16) -> Self {
        Self { next, ..self }
    }

    /// The index from which the queue goes on when it is started again.
    pub(crate) fn next(&self) -> u16 {
        self.next
    }

    /// The first descriptor of the next chain, if there is one.
    ///
    /// # Errors
    ///
    /// An index that runs further ahead than the ring is long.
    pub(crate) fn pop(&mut self) -> Result<Option<u16>, DeviceError> {
        let size = self.memory.size();
        let ahead = self.memory.available_index().wrapping_sub(self.next);
        if ahead == 0 {
            return Ok(None);
        }
        if ahead > size {
            return Err(DeviceError::AvailableIndex { ahead, size });
        }
        let head = self.memory.available_head(self.next);
        self.next = self.next.wrapping_add(1);
        Ok(Some(head))
    }

    /// Whether a chain waits, or the ring is broken.
    pub(crate) fn has_more(&self) -> bool {
        self.memory.available_index() != self.next
    }

    /// Asks for a kick at the next chain; true when there is one already.
    pub(crate) fn arm(&self) -> bool {
        match self.notification {
            Notification::EventIndex => self.memory.set_available_event(self.next),
            Notification::Flag => self.memory.set_used_flags(0),
        }
        // The driver must see the wish before we look: else both sides wait (2.7.10).
        fence(Ordering::SeqCst);
        self.has_more()
    }

    /// No kicks, please: we are looking anyway.
    pub(crate) fn disarm(&self) {
        match self.notification {
            // The event index stays behind, and a driver past it kicks no more.
            Notification::EventIndex => {}
            Notification::Flag => self.memory.set_used_flags(NO_NOTIFY),
        }
    }
}
