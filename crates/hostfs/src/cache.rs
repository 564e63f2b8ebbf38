//! Cache policies: one table from which validity, open flags and readdirplus derive.

use std::time::{Duration, SystemTime};

use virtiofs_protocol::{FopenFlags, Validity};

/// How much the guest caches (`--cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nothing: the host is asked each time.
    Never,
    /// Names and attributes, no file contents.
    Metadata,
    /// Names and attributes for a second, contents until the next open.
    Auto,
    /// Everything: for shares that nobody else changes.
    Always,
    /// As [`Self::Auto`], but names and attributes hold the longer the longer a file was left alone.
    Adaptive,
}

/// How long names and attributes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// So many seconds.
    Secs(u64),
    /// A tenth of the time since the last change, within bounds.
    ByAge,
}

/// What happens to a file's pages in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// No page cache.
    Bypass,
    /// Dropped at the next open.
    UntilNextOpen,
    /// Kept across opens.
    Keep,
}

/// Whether the guest asks for a symlink's target once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// The host is asked each time.
    Asked,
    /// A target is kept with its inode. No system call changes it: what the host puts in its place
    /// is another inode, found when the name is looked up again.
    Kept,
}

const DAY_SECS: u64 = 86_400;

/// Bounds of [`Holds::ByAge`]: what `auto` gives, and what a user may wait for a change of the host to show.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// What a policy says.
struct Row {
    holds: Holds,
    /// How long a name may be thought free; 0 asks the host each time, so that a guest which waits
    /// for a file that the host is going to make sees it.
    absence_secs: u64,
    pages: Pages,
    readdirplus: bool,
    targets: Targets,
}

impl CachePolicy {
    fn row(self) -> Row {
        use Holds::{ByAge, Secs};
        let (holds, absence_secs, pages, readdirplus, targets) = match self {
            Self::Never => (Secs(0), 0, Pages::Bypass, false, Targets::Asked),
            Self::Metadata => (Secs(DAY_SECS), 0, Pages::Bypass, true, Targets::Kept),
            Self::Auto => (Secs(1), 0, Pages::UntilNextOpen, true, Targets::Kept),
            Self::Always => (Secs(DAY_SECS), DAY_SECS, Pages::Keep, true, Targets::Kept),
            Self::Adaptive => (ByAge, 1, Pages::UntilNextOpen, true, Targets::Kept),
        };
        Row {
            holds,
            absence_secs,
            pages,
            readdirplus,
            targets,
        }
    }

    /// How long names and attributes hold of what was changed last at `changed`.
    pub(crate) fn validity(self, changed: impl FnOnce() -> SystemTime) -> Validity {
        let holds = match self.row().holds {
            Holds::Secs(secs) => Duration::from_secs(secs),
            Holds::ByAge => by_age(SystemTime::now(), changed()),
        };
        Validity {
            secs: holds.as_secs(),
            nanos: holds.subsec_nanos(),
        }
    }

    /// How long the guest may think that nothing stands under a name; `None` where it asks each time.
    pub(crate) fn absence(self) -> Option<Validity> {
        let secs = self.row().absence_secs;
        (secs > 0).then_some(Validity { secs, nanos: 0 })
    }

    /// Whether listing a directory looks its names up as well.
    pub(crate) fn readdirplus(self) -> bool {
        self.row().readdirplus
    }

    /// What happens to the targets of symlinks in the guest.
    pub(crate) fn targets(self) -> Targets {
        self.row().targets
    }

    /// How the guest treats a file it opened.
    pub(crate) fn file_flags(self) -> FopenFlags {
        match self.row().pages {
            Pages::Bypass => FopenFlags::DIRECT_IO,
            Pages::UntilNextOpen => FopenFlags::empty(),
            Pages::Keep => FopenFlags::KEEP_CACHE,
        }
    }

    /// How the guest treats a directory it opened.
    pub(crate) fn directory_flags(self) -> FopenFlags {
        match self.row().pages {
            Pages::Bypass | Pages::UntilNextOpen => FopenFlags::empty(),
            Pages::Keep => FopenFlags::KEEP_CACHE | FopenFlags::CACHE_DIR,
        }
    }
}

/// A tenth of what has passed since the last change, within bounds.
///
/// A change in the future is the clock's doing, and tells no age.
fn by_age(now: SystemTime, changed: SystemTime) -> Duration {
    now.duration_since(changed)
        .map_or(LEAST, |age| (age / 10).clamp(LEAST, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_row() {
        use Targets::{Asked, Kept};
        let direct = FopenFlags::DIRECT_IO;
        let keep = FopenFlags::KEEP_CACHE;
        let none = FopenFlags::empty();
        let cases = [
            (CachePolicy::Never, (0, None), (direct, false, Asked)),
            (CachePolicy::Metadata, (86_400, None), (direct, true, Kept)),
            (CachePolicy::Auto, (1, None), (none, true, Kept)),
            (
                CachePolicy::Always,
                (86_400, Some(86_400)),
                (keep, true, Kept),
            ),
            (CachePolicy::Adaptive, (1, Some(1)), (none, true, Kept)),
        ];
        for (policy, (secs, absence_secs), (flags, plus, targets)) in cases {
            assert_eq!(policy.targets(), targets);
            assert_eq!(policy.absence().map(|held| held.secs), absence_secs);
            assert_eq!(policy.validity(SystemTime::now).secs, secs);
            assert_eq!(policy.file_flags(), flags);
            assert_eq!(policy.readdirplus(), plus);
        }
    }

    /// Each row: seconds since the last change, negative for one to come, and the least and most that it holds.
    #[test]
    fn what_was_left_alone_for_longer_holds_longer() {
        let cases = [
            (-100, 1.0, 1.0),
            (0, 1.0, 1.0),
            (10, 1.0, 1.5),
            (45, 4.5, 5.0),
            (599, 59.9, 60.0),
            (86_400, 60.0, 60.0),
        ];
        for (age_secs, least, most) in cases {
            let now = SystemTime::now();
            let age = Duration::from_secs(i64::unsigned_abs(age_secs));
            let changed = if age_secs < 0 { now + age } else { now - age };
            let held = CachePolicy::Adaptive.validity(|| changed);
            let secs = Duration::new(held.secs, held.nanos).as_secs_f64();
            assert!((least..=most).contains(&secs), "{age_secs}: {secs}");
        }
    }

    /// Whatever the clock has jumped to, and wherever it was when the file changed.
    #[test]
    fn k_by_any_clock_it_holds_for_its_bounds_and_no_longer() {
        let zero = SystemTime::UNIX_EPOCH;
        let (year, far) = (Duration::from_secs(31_536_000), Duration::new(1 << 62, 0));
        let clocks = [zero - far, zero - year, zero, zero + year, zero + far];
        for (earlier, changed) in clocks.iter().enumerate() {
            for (later, now) in clocks.iter().enumerate() {
                let held = by_age(*now, *changed);
                let want = if later > earlier { MOST } else { LEAST };
                assert_eq!(held, want, "changed at {changed:?}, now {now:?}");
            }
        }
    }
}
