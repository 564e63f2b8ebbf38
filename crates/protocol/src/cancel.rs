//! Cancellation of a parked request.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why everything that waits is given up at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The front-end closed the connection, reset the device, or the daemon is stopping.
    Disconnected,
    /// The guest ended the session: DESTROY, or INIT again after a reboot.
    SessionEnded,
}

/// A flag that a waiting request looks at whenever it wakes.
///
/// Plain values only: a parked request's row can be written down and restored.
#[derive(Debug, Default)]
pub struct Cancel(AtomicU8);

impl Cancel {
    const WAITED_FOR: u8 = 0;
    const INTERRUPTED: u8 = 1;
    const HUNG_UP: u8 = 2;

    /// Marks the request as interrupted by the guest (INTERRUPT).
    pub fn interrupt(&self) {
        // A hang-up is final; an interrupt that comes later changes nothing.
        let _ = self.0.compare_exchange(
            Self::WAITED_FOR,
            Self::INTERRUPTED,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }

    /// Marks the request as no longer waited for.
    pub fn hang_up(&self) {
        self.0.store(Self::HUNG_UP, Ordering::Release);
    }

    /// Whether the guest sent INTERRUPT for it: only then may EINTR be answered.
    pub fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::INTERRUPTED
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_hung_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::HUNG_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_outranks_an_interrupt() {
        let cancel = Cancel::default();
        assert!(!cancel.is_interrupted() && !cancel.is_hung_up());
        cancel.interrupt();
        assert!(cancel.is_interrupted());
        cancel.hang_up();
        cancel.interrupt();
        assert!(cancel.is_hung_up() && !cancel.is_interrupted());
    }
}
