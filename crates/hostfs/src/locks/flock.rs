//! The lock of `flock(2)` that an open file has.
//!
//! As in the module above, calls take turns, and who closes the file waits for none. Lock order: the
//! turn before the state.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use virtiofs_protocol::op::LockType;
use virtiofs_protocol::{Cancel, Errno};

use super::waits::Waits;

/// The lock of one open file description.
#[derive(Debug, Default)]
pub(crate) struct Flock {
    turn: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: LockType,
    /// The guest has closed the file.
    is_gone: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            held: LockType::Unlock,
            is_gone: false,
        }
    }
}

impl Flock {
    /// Takes, converts or gives back the lock.
    ///
    /// # Errors
    ///
    /// EAGAIN when another open file has it; one that was to be converted is lost then (man 2 flock).
    /// EBADF when the file is closed meanwhile.
    pub(crate) fn set(&self, file: BorrowedFd<'_>, lock_type: LockType) -> Result<(), Errno> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let done = retry_on_intr(|| flock(file, at_once(lock_type)));
        let mut state = self.state();
        match done {
            Ok(()) if state.is_gone => {
                drop(state);
                give_back(file);
                return Err(Errno::BADF);
            }
            Ok(()) => state.held = lock_type,
            // The kernel gives the old one back before it looks for the new one.
            Err(Errno::AGAIN) => state.held = LockType::Unlock,
            Err(_) => {}
        }
        done
    }

    /// Waits for the lock.
    ///
    /// # Errors
    ///
    /// [`Cancel::lock_refusal`], and the kernel's.
    pub(crate) fn wait(
        &self,
        file: BorrowedFd<'_>,
        lock_type: LockType,
        (waits, cancel): (&Waits, &Cancel),
    ) -> Result<(), Errno> {
        loop {
            waits.sleep(cancel, || flock(file, sleeping(lock_type)))?;
            match self.set(file, lock_type) {
                Err(Errno::BADF) => return Err(cancel.lock_refusal().unwrap_or(Errno::BADF)),
                // Given back by another request of the file in the meantime, and taken by another.
                Err(Errno::AGAIN) => {}
                done => return done,
            }
        }
    }

    /// The file is closed: whoever still uses its description keeps no lock by that.
    pub(crate) fn release(&self, file: BorrowedFd<'_>) {
        let mut state = self.state();
        state.is_gone = true;
        let held = std::mem::replace(&mut state.held, LockType::Unlock);
        drop(state);
        if held != LockType::Unlock {
            give_back(file);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store that cannot do so does it at the close.
fn give_back(file: BorrowedFd<'_>) {
    let _ = flock(file, FlockOperation::NonBlockingUnlock);
}

fn at_once(lock_type: LockType) -> FlockOperation {
    match lock_type {
        LockType::Read => FlockOperation::NonBlockingLockShared,
        LockType::Write => FlockOperation::NonBlockingLockExclusive,
        LockType::Unlock => FlockOperation::NonBlockingUnlock,
    }
}

fn sleeping(lock_type: LockType) -> FlockOperation {
    match lock_type {
        LockType::Read => FlockOperation::LockShared,
        LockType::Write => FlockOperation::LockExclusive,
        LockType::Unlock => FlockOperation::Unlock,
    }
}
