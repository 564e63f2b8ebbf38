//! Files that the guest has closed after reading, open for a moment longer: it often opens them again.
//!
//! Opening a file through `/proc/self/fd` and closing it is most of what OPEN and RELEASE cost. What
//! rests here is one open file description each, which the next OPEN has for itself: no two open
//! files of the guest share one. ADR 17 says which files may rest and what the host notices.
//!
//! A file rests for one to two periods. Its locks are held while nothing else is locked or called.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use virtiofs_protocol::NodeId;

const SHARDS: usize = 32;
/// Most files that rest in one shard; each look goes past all of them.
const MOST_IN_SHARD: usize = 16;
/// The longest period.
const PERIOD: Duration = Duration::from_secs(1);
/// When to come again where another thread is at it.
const SOON: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct File {
    node: NodeId,
    description: OwnedFd,
    /// A sweep has met it.
    was_met: bool,
}

/// All files that rest.
#[derive(Debug)]
pub(crate) struct Resting {
    shards: [Mutex<Vec<File>>; SHARDS],
    most_in_shard: usize,
    count: AtomicUsize,
    /// Microseconds after `start` at which to sweep, and zero while nothing rests.
    due: AtomicU64,
    sweeping: Mutex<()>,
    start: Instant,
    period: Duration,
}

impl Resting {
    /// Room for an eighth of a budget, at most; nothing rests where idle descriptors are not kept.
    pub(crate) fn new(budget: usize, idle: Duration) -> Self {
        let most = if idle.is_zero() {
            0
        } else {
            (budget / 8 / SHARDS).min(MOST_IN_SHARD)
        };
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            most_in_shard: most,
            count: AtomicUsize::new(0),
            due: AtomicU64::new(0),
            sweeping: Mutex::default(),
            start: Instant::now(),
            period: idle.min(PERIOD),
        }
    }

    /// Wakes a file of this node, if one rests.
    pub(crate) fn wake(&self, node: NodeId) -> Option<OwnedFd> {
        let mut shard = self.shard(node);
        let place = shard.iter().rposition(|file| file.node == node)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(shard.remove(place).description)
    }

    /// Lays a file to rest; where there is no room, the one that has rested longest is closed.
    pub(crate) fn lay(&self, node: NodeId, description: OwnedFd) {
        if self.most_in_shard == 0 {
            return;
        }
        let file = File {
            node,
            description,
            was_met: false,
        };
        let mut shard = self.shard(node);
        let oldest = (shard.len() >= self.most_in_shard).then(|| shard.remove(0));
        shard.push(file);
        drop(shard);
        if oldest.is_none() {
            // Seen by a sweep that is about to say that nothing rests, or it is seen here.
            self.count.fetch_add(1, Ordering::SeqCst);
            if self.due.load(Ordering::SeqCst) == 0 {
                self.be_due();
            }
        }
    }

    /// Closes the files of a node that the guest has forgotten.
    pub(crate) fn forget(&self, node: NodeId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.close_if(self.shard(node), |file| file.node == node);
        }
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            self.close_if(lock(shard), |_| true);
        }
    }

    /// Closes what has rested long enough; returns when to come again, if anything rests.
    pub(crate) fn sweep(&self) -> Option<Duration> {
        let due = self.due.load(Ordering::Relaxed);
        if due == 0 {
            return None;
        }
        let wait = Duration::from_micros(due).saturating_sub(self.start.elapsed());
        if !wait.is_zero() {
            return Some(wait);
        }
        let _alone = match self.sweeping.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(SOON),
        };
        for shard in &self.shards {
            let mut shard = lock(shard);
            let mut met = Vec::new();
            if shard.iter().any(|file| file.was_met) {
                met.extend(shard.extract_if(.., |file| file.was_met));
                self.count.fetch_sub(met.len(), Ordering::Relaxed);
            }
            shard.iter_mut().for_each(|file| file.was_met = true);
            drop(shard);
            drop(met);
        }
        self.due.store(0, Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.be_due();
        Some(self.period)
    }

    fn be_due(&self) {
        let at = self.start.elapsed().saturating_add(self.period);
        let at = u64::try_from(at.as_micros()).unwrap_or(u64::MAX).max(1);
        self.due.store(at, Ordering::SeqCst);
    }

    fn close_if(&self, mut shard: MutexGuard<'_, Vec<File>>, of: impl Fn(&File) -> bool) {
        let closed: Vec<File> = shard.extract_if(.., |file| of(file)).collect();
        self.count.fetch_sub(closed.len(), Ordering::Relaxed);
        drop(shard);
    }

    fn shard(&self, node: NodeId) -> MutexGuard<'_, Vec<File>> {
        let [low, ..] = node.raw().to_le_bytes();
        lock(&self.shards[usize::from(low) % SHARDS])
    }
}

fn lock(shard: &Mutex<Vec<File>>) -> MutexGuard<'_, Vec<File>> {
    // Left consistent at every step, so a panic elsewhere does not spoil it.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::from_raw(number)
    }

    fn open() -> OwnedFd {
        std::fs::File::open("/").unwrap().into()
    }

    #[test]
    fn what_rests_wakes_once_and_for_its_own_node() {
        let resting = Resting::new(4096, PERIOD);
        let file = open();
        let number = file.as_raw_fd();
        resting.lay(node(5), file);
        assert!(resting.wake(node(5 + 32)).is_none(), "in the same shard");
        assert_eq!(resting.wake(node(5)).unwrap().as_raw_fd(), number);
        assert!(resting.wake(node(5)).is_none());
        assert_eq!(resting.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn there_is_room_for_a_part_of_the_budget_and_the_oldest_goes() {
        let resting = Resting::new(512, PERIOD);
        for number in 0..10 {
            resting.lay(node(32 * number), open());
        }
        assert_eq!(resting.count.load(Ordering::Relaxed), 2);
        assert!(resting.wake(node(32 * 9)).is_some() && resting.wake(node(32 * 8)).is_some());
        for nowhere in [Resting::new(16, PERIOD), Resting::new(4096, Duration::ZERO)] {
            nowhere.lay(node(5), open());
            assert!(nowhere.wake(node(5)).is_none());
            assert_eq!(nowhere.sweep(), None);
        }
    }

    #[test]
    fn after_one_to_two_periods_it_is_closed_and_nothing_is_due() {
        let period = Duration::from_micros(1);
        let resting = Resting::new(4096, period);
        assert_eq!(resting.sweep(), None);
        resting.lay(node(5), open());
        std::thread::sleep(Duration::from_micros(50));
        assert_eq!(resting.sweep(), Some(period), "met once");
        std::thread::sleep(Duration::from_micros(50));
        assert_eq!(resting.sweep(), None);
        assert!(resting.wake(node(5)).is_none());
        resting.lay(node(5), open());
        assert!(Resting::new(4096, PERIOD).sweep().is_none());
        assert!(resting.sweep().is_some(), "due again");
    }

    #[test]
    fn a_lack_of_descriptors_ends_all_rest() {
        use rustix::fs::{Mode, OFlags, open};
        use virtiofs_protocol::Errno;

        use crate::{Options, PassthroughFs, SharedRoot};

        let share = tempfile::tempdir().unwrap();
        let hold = |path: &std::path::Path| open(path, OFlags::PATH, Mode::empty()).unwrap();
        let root = SharedRoot::new(hold(share.path()), hold("/proc/self/fd".as_ref()));
        let fs = PassthroughFs::new(root, Options::default()).unwrap();
        fs.resting.lay(node(5), self::open());
        let mut calls = 0;
        let called = fs.retried(|| {
            calls += 1;
            (calls > 1).then_some(()).ok_or(Errno::MFILE)
        });
        assert_eq!((called, calls), (Ok(()), 2));
        assert!(fs.resting.wake(node(5)).is_none());
    }

    #[test]
    fn what_is_forgotten_is_closed() {
        let resting = Resting::new(4096, PERIOD);
        for number in [5, 5, 5 + 32, 6] {
            resting.lay(node(number), open());
        }
        resting.forget(node(5));
        assert!(resting.wake(node(5)).is_none() && resting.wake(node(5 + 32)).is_some());
        resting.clear();
        assert_eq!(resting.count.load(Ordering::Relaxed), 0);
        assert!(resting.wake(node(6)).is_none());
    }
}
