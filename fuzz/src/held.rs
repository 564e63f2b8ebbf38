//! What this process holds, and whether a run has let go of what it took.

use std::time::{Duration, Instant};

/// How long threads may take to end, also on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many descriptors are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors(usize);

impl Descriptors {
    /// Counts them: it is done twice in each run.
    pub fn now() -> Self {
        // Since Linux 6.2 the folder's length is their number.
        let len = rustix::fs::stat("/proc/self/fd").map_or(0, |stat| stat.st_size);
        match usize::try_from(len) {
            Ok(count) if count > 0 => Self(count),
            _ => Self(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)),
        }
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
    ///
    /// # Panics
    ///
    /// When the kernel does not say how many there are.
    pub fn now() -> Self {
        // Not by listing /proc/self/task: where a thread ends meanwhile, the rest is left out.
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok());
        Self(count.expect("a number of threads"))
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
