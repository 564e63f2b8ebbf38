//! Whose group a new file gets: what is known of a mount, and of a directory.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

/// So long a directory is believed to be as it was seen, in [`ticks`]: a tenth of what the guest
/// itself believes it by default.
const BELIEVED_TICKS: u32 = 10;

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
    /// [`ticks`] since the daemon's start, one added; zero is never.
    seen: AtomicU32,
}

impl Plain {
    pub(crate) fn note(&self, mode: u32, now: Duration) {
        let is_plain = mode & u32::from(SETGID) == 0;
        let seen = ticks(now).filter(|_| is_plain).map_or(0, |now| now + 1);
        self.seen.store(seen, Ordering::Relaxed);
    }

    pub(crate) fn is_believed(&self, now: Duration) -> bool {
        let seen = self.seen.load(Ordering::Relaxed);
        // Another thread may have seen it a moment after `now`.
        ticks(now).is_some_and(|now| seen != 0 && (now + 1).saturating_sub(seen) < BELIEVED_TICKS)
    }
}

/// Hundredths of a second; `None` after more than a year, when nothing is believed any more.
fn ticks(time: Duration) -> Option<u32> {
    let ticks = u32::try_from(time.as_millis() / 10).ok()?;
    (ticks < u32::MAX).then_some(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_a_directory_is_believed_for_a_moment() {
        let plain = Plain::default();
        let (seen, soon) = (Duration::from_secs(5), Duration::from_millis(50));
        assert!(!plain.is_believed(soon), "never looked at");
        plain.note(0o755, seen);
        assert!(plain.is_believed(seen) && plain.is_believed(seen + soon));
        assert!(!plain.is_believed(seen + Duration::from_millis(120)));
        plain.note(0o2755, seen);
        assert!(!plain.is_believed(seen), "it hands its group down");
    }

    #[test]
    fn after_years_nothing_is_believed() {
        let (plain, late) = (Plain::default(), Duration::from_secs(u64::from(u32::MAX)));
        plain.note(0o755, late);
        assert!(!plain.is_believed(late));
    }
}
