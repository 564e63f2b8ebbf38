//! The lock of `flock(2)` that an open file has.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use virtiofs_protocol::op::LockType;
use virtiofs_protocol::{Cancel, Errno};

use super::waits::Waits;

/// The lock of one open file description.
#[derive(Debug)]
pub(crate) struct Flock(Mutex<State>);

#[derive(Debug)]
struct State {
    held: LockType,
    /// The guest has closed the file.
    is_gone: bool,
}

impl Default for Flock {
    fn default() -> Self {
        Self(Mutex::new(State {
            held: LockType::Unlock,
            is_gone: false,
        }))
    }
}

impl Flock {
    /// Takes, converts or gives back the lock.
    ///
    /// # Errors
    ///
    /// EAGAIN when another open file has it; one that was to be converted is lost then (man 2 flock).
    pub(crate) fn set(&self, file: BorrowedFd<'_>, lock_type: LockType) -> Result<(), Errno> {
        set_of(&mut self.state(), file, lock_type)
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
            let mut state = self.state();
            match set_of(&mut state, file, lock_type) {
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
        if state.held != LockType::Unlock {
            // A store that cannot unlock does so at the close.
            let _ = flock(file, FlockOperation::NonBlockingUnlock);
            state.held = LockType::Unlock;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_of(state: &mut State, file: BorrowedFd<'_>, lock_type: LockType) -> Result<(), Errno> {
    if state.is_gone {
        let _ = flock(file, FlockOperation::NonBlockingUnlock);
        return Err(Errno::BADF);
    }
    let done = flock(file, at_once(lock_type));
    match done {
        Ok(()) => state.held = lock_type,
        // The kernel gives the old one back before it looks for the new one.
        Err(Errno::AGAIN) => state.held = LockType::Unlock,
        Err(_) => {}
    }
    done
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
