//! Whose group a new file gets: what is known of a mount, and of a directory.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::Statx;

/// So long a directory is believed to be as it was seen: a tenth of what the guest itself believes it by default.
const BELIEVED: Duration = Duration::from_millis(100);

/// `S_ISGID` (man 7 inode).
pub(crate) const SETGID: u16 = 0o2000;

/// Whose group a new file gets on a mount, in a directory that does not hand its own down.
#[derive(Debug)]
pub(crate) struct GroupRule(AtomicU8);

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rule {
    /// No file has shown it yet.
    Unknown,
    /// The caller's.
    Callers,
    /// The directory's.
    Directorys,
}

impl GroupRule {
    /// The caller's, as on file systems that know no other way.
    pub(crate) fn callers() -> Self {
        Self(AtomicU8::new(Rule::Callers as u8))
    }

    /// The mount options decide: found out from the first file that shows it.
    pub(crate) fn unknown() -> Self {
        Self(AtomicU8::new(Rule::Unknown as u8))
    }

    pub(crate) fn is(&self, rule: Rule) -> bool {
        self.0.load(Ordering::Relaxed) == rule as u8
    }

    pub(crate) fn learn(&self, rule: Rule) {
        self.0.store(rule as u8, Ordering::Relaxed);
    }
}

/// When a directory was last seen that does not hand its group down.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// Milliseconds since the daemon's start, one added; zero is never.
    seen: AtomicU64,
}

impl Plain {
    pub(crate) fn note(&self, stat: &Statx, now: Duration) {
        let seen = if stat.stx_mode & SETGID == 0 {
            millis(now) + 1
        } else {
            0
        };
        self.seen.store(seen, Ordering::Relaxed);
    }

    pub(crate) fn is_believed(&self, now: Duration) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        // Another thread may have seen it a moment after `now`.
        seen != 0 && (millis(now) + 1).saturating_sub(seen) < millis(BELIEVED)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}
