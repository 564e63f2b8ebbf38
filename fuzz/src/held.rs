//! What this process holds, and whether a run has let go of what it took.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long threads may take to end, also on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Numbers that are looked at: new descriptors get the lowest ones.
const NUMBERS: usize = 128;

/// Descriptors that are open, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors([u64; NUMBERS / 64]);

impl Descriptors {
    /// Looks, with one system call: it is done twice in each run.
    ///
    /// # Panics
    ///
    /// When the kernel does not say.
    pub fn now() -> Self {
        let mut all: [PollFd<'_>; NUMBERS] = std::array::from_fn(|number| {
            // SAFETY: whether the number is a descriptor is all that is asked, and `poll` answers that for any.
            let number = unsafe { BorrowedFd::borrow_raw(number as i32) };
            PollFd::from_borrowed_fd(number, PollFlags::empty())
        });
        let at_once = Timespec::default();
        poll(&mut all, Some(&at_once)).expect("descriptors can be asked about");
        let mut open = [0; NUMBERS / 64];
        for (number, one) in all.iter().enumerate() {
            if !one.revents().contains(PollFlags::NVAL) {
                open[number / 64] |= 1 << (number % 64);
            }
        }
        Self(open)
    }

    /// Checks that these are open and no others.
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
