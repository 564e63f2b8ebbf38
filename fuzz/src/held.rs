//! What this process holds, and whether a run has let go of what it took.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long threads may take to end, also on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Numbers that are looked at: new descriptors get the lowest ones.
const NUMBERS: usize = 192;

/// How many descriptors are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors(usize);

impl Descriptors {
    /// Counts them, with one system call: it is done twice in each run.
    ///
    /// # Panics
    ///
    /// When the kernel does not say, or all numbers are in use.
    pub fn now() -> Self {
        let mut all: [PollFd<'_>; NUMBERS] = std::array::from_fn(|number| {
            // SAFETY: whether the number is a descriptor is all that is asked, and `poll` answers that for any.
            let number = unsafe { BorrowedFd::borrow_raw(number as i32) };
            PollFd::from_borrowed_fd(number, PollFlags::empty())
        });
        let at_once = Timespec::default();
        poll(&mut all, Some(&at_once)).expect("descriptors can be asked about");
        let is_open = |one: &&PollFd<'_>| !one.revents().contains(PollFlags::NVAL);
        let open = all.iter().filter(is_open).count();
        assert!(open < NUMBERS, "more descriptors than are looked at");
        Self(open)
    }

    /// Checks that as many are open, and no more.
    ///
    /// # Panics
    ///
    /// When some stay, or are gone.
    pub fn assert_again(self) {
        assert_eq!(Self::now(), self, "descriptors were kept, or lost");
    }
}

/// Threads of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(usize);

impl Threads {
    /// Counts them.
    pub fn now() -> Self {
        Self(std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count))
    }

    /// Waits until there are no more than these: a pool's threads end a little later than it does.
    ///
    /// # Panics
    ///
    /// When some stay.
    pub fn wait_for(self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::now();
            if now.0 <= self.0 {
                return;
            }
            assert!(Instant::now() < deadline, "{self:?} have become {now:?}");
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_stays_is_noticed() {
        let before = Descriptors::now();
        before.assert_again();
        let kept = crate::wire::event();
        assert_ne!(Descriptors::now(), before);
        drop(kept);
        before.assert_again();
    }
}
