//! Cancellation of a parked request.

use rustix::io::Errno;

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::is_planted;

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
    const CLOSED: u8 = 3;

    /// Marks the request as interrupted by the guest (INTERRUPT).
    pub fn interrupt(&self) {
        self.unless_given_up(Self::INTERRUPTED);
    }

    /// Marks the wait of a lock's owner that closed the file.
    pub fn close(&self) {
        self.unless_given_up(Self::CLOSED);
    }

    fn unless_given_up(&self, why: u8) {
        // The first reason is the answer, but for a hang-up, which is final.
        let _ = self
            .0
            .compare_exchange(Self::WAITED_FOR, why, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Marks the request as no longer waited for.
    pub fn hang_up(&self) {
        if is_planted("hangs up only what nobody has given up") {
            return self.unless_given_up(Self::HUNG_UP);
        }
        self.0.store(Self::HUNG_UP, Ordering::Release);
    }

    /// Whether the guest sent INTERRUPT for it: only then may EINTR be answered.
    pub fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::INTERRUPTED
    }

    /// The answer to a wait for a lock that was given up; `None` while it goes on.
    ///
    /// EBADF is what Linux answers when a file is closed while its lock is being taken
    /// (`fcntl_setlk`), ENOLCK what it answers when the other side of a remote lock is gone.
    pub fn lock_refusal(&self) -> Option<Errno> {
        match self.0.load(Ordering::Acquire) {
            Self::INTERRUPTED => Some(Errno::INTR),
            Self::CLOSED => Some(Errno::BADF),
            Self::HUNG_UP => Some(Errno::NOLCK),
            _ => None,
        }
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

    /// Each row: what befell a wait, in this order, and its answer.
    #[test]
    fn the_first_reason_is_the_answer_but_for_a_hang_up() {
        let (interrupt, close, hang_up) = (Cancel::interrupt, Cancel::close, Cancel::hang_up);
        type Reason = fn(&Cancel);
        let cases: [(&[Reason], Option<Errno>); 5] = [
            (&[], None),
            (&[interrupt, close], Some(Errno::INTR)),
            (&[close, interrupt], Some(Errno::BADF)),
            (&[interrupt, hang_up], Some(Errno::NOLCK)),
            (&[hang_up, close], Some(Errno::NOLCK)),
        ];
        for (reasons, answer) in cases {
            let cancel = Cancel::default();
            reasons.iter().for_each(|reason| reason(&cancel));
            assert_eq!(cancel.lock_refusal(), answer);
        }
    }
}
