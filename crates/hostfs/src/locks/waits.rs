//! Threads that sleep in a call for a lock, and how they are made to come back.
//!
//! A thread looks at its cancellation and then sleeps in the kernel, and a signal that comes between
//! the two is lost. So whoever cancels raises the round, wakes all who have not looked since, and a
//! thread of its own does so again until all have. It is there only while somebody has not looked.
//!
//! Signals are sent under the list's lock, to threads on the list only: none reaches a thread that
//! has gone on to something else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::thread::{Pid, gettid};
use virtiofs_protocol::{Cancel, Errno};

use crate::sys;

/// First pause before all are woken again, and the longest.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

#[derive(Debug)]
struct Sleeper {
    thread: Pid,
    /// The round in which it looked last.
    looked: u64,
}

#[derive(Debug, Default)]
struct List {
    sleepers: Vec<Sleeper>,
    round: u64,
    is_nagged: bool,
}

/// All sleepers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits(Arc<Mutex<List>>);

/// This thread is on the list until the value is dropped.
struct OnTheList<'a>(&'a Waits, Pid);

impl Drop for OnTheList<'_> {
    fn drop(&mut self) {
        let thread = self.1;
        self.0.list().sleepers.retain(|one| one.thread != thread);
    }
}

impl OnTheList<'_> {
    /// Notes that this thread looks now.
    fn look(&self) {
        let mut list = self.0.list();
        let round = list.round;
        let mine = list.sleepers.iter_mut().find(|one| one.thread == self.1);
        if let Some(mine) = mine {
            mine.looked = round;
        }
    }
}

impl Waits {
    /// Calls until the call returns or the wait is given up; the call may sleep, and is repeated after EINTR.
    ///
    /// # Errors
    ///
    /// The call's, or [`Cancel::lock_refusal`].
    pub(crate) fn sleep(
        &self,
        cancel: &Cancel,
        mut call: impl FnMut() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        sys::lock::let_wake();
        let thread = gettid();
        let looked = self.list().round;
        self.list().sleepers.push(Sleeper { thread, looked });
        let me = OnTheList(self, thread);
        loop {
            // In this order: a cancellation that is not seen now raises the round after this look.
            me.look();
            if let Some(errno) = cancel.lock_refusal() {
                return Err(errno);
            }
            match call() {
                Err(Errno::INTR) => {}
                done => return done,
            }
        }
    }

    /// Makes every sleeper look at its cancellation again.
    pub(crate) fn look_again(&self) {
        let mut list = self.list();
        list.round += 1;
        if !list.wake_late() || std::mem::replace(&mut list.is_nagged, true) {
            return;
        }
        drop(list);
        let waits = self.clone();
        let nag = thread::Builder::new().name("fs-lock-wake".into());
        if nag.spawn(move || waits.nag()).is_err() {
            // Nobody else is there to do it.
            self.nag();
        }
    }

    fn nag(&self) {
        let mut pause = PAUSE;
        loop {
            // Not `sleep`, which would be one more system call to let through; waking early is no harm.
            thread::park_timeout(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
            let mut list = self.list();
            if !list.wake_late() {
                list.is_nagged = false;
                return;
            }
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.list().sleepers.len()
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// Wakes those who have not looked in this round; returns whether there are any.
    fn wake_late(&self) -> bool {
        let late = self.sleepers.iter().filter(|one| one.looked < self.round);
        late.map(|one| sys::lock::wake(one.thread)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    use virtiofs_protocol::op::{LockRange, LockType};

    use super::*;
    use crate::sys::lock::{LAST_BYTE, Patience, set};

    const ALL: LockRange = LockRange {
        start: 0,
        end: LAST_BYTE,
    };

    /// A file, and a description that holds it locked.
    fn locked() -> (tempfile::NamedTempFile, File) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = file.reopen().unwrap();
        set(holder.as_fd(), LockType::Write, ALL, Patience::None).unwrap();
        (file, holder)
    }

    fn wait(waits: &Waits, cancel: &Cancel, file: &File) -> Result<(), Errno> {
        waits.sleep(cancel, || {
            set(file.as_fd(), LockType::Write, ALL, Patience::UntilWoken)
        })
    }

    #[test]
    fn a_wait_ends_with_the_lock() {
        sys::lock::prepare_to_wake().unwrap();
        let (file, holder) = locked();
        let (waits, cancel) = (Waits::default(), Cancel::default());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(&waits, &cancel, &file.reopen().unwrap()));
            while waits.count() == 0 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            assert!(!waiter.is_finished());
            drop(holder);
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
        assert_eq!(waits.count(), 0);
    }

    /// Cancelled at any moment on its way into the call, also when signals fly for others.
    #[test]
    fn no_cancellation_is_lost_and_no_other_wait_ends() {
        sys::lock::prepare_to_wake().unwrap();
        let (file, _holder) = locked();
        let (waits, stays) = (Waits::default(), Cancel::default());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let other = scope.spawn(|| wait(&waits, &stays, &file.reopen().unwrap()));
            let noise = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    waits.look_again();
                    thread::sleep(Duration::from_micros(100));
                }
            });
            for round in 0..500_u32 {
                let cancel = Cancel::default();
                thread::scope(|scope| {
                    let waiter = scope.spawn(|| wait(&waits, &cancel, &file.reopen().unwrap()));
                    (0..round % 50 * 20).for_each(|_| std::hint::spin_loop());
                    cancel.interrupt();
                    waits.look_again();
                    assert_eq!(waiter.join().unwrap(), Err(Errno::INTR));
                });
            }
            done.store(true, Ordering::Relaxed);
            noise.join().unwrap();
            assert!(!other.is_finished());
            stays.hang_up();
            waits.look_again();
            assert_eq!(other.join().unwrap(), Err(Errno::NOLCK));
        });
        assert_eq!(waits.count(), 0);
    }

    #[test]
    fn what_was_cancelled_before_it_began_does_not_begin() {
        let (waits, cancel) = (Waits::default(), Cancel::default());
        cancel.close();
        let refused = waits.sleep(&cancel, || panic!("called"));
        assert_eq!(refused, Err(Errno::BADF));
    }
}
