//! Cache policies: one table from which validity, open flags and readdirplus derive.

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

const DAY_SECS: u64 = 86_400;

impl CachePolicy {
    fn row(self) -> (u64, Pages, bool) {
        match self {
            Self::Never => (0, Pages::Bypass, false),
            Self::Metadata => (DAY_SECS, Pages::Bypass, true),
            Self::Auto => (1, Pages::UntilNextOpen, true),
            Self::Always => (DAY_SECS, Pages::Keep, true),
        }
    }

    /// How long names and attributes hold.
    pub(crate) fn validity(self) -> Validity {
        Validity {
            secs: self.row().0,
            nanos: 0,
        }
    }

    /// Whether listing a directory looks its names up as well.
    pub(crate) fn readdirplus(self) -> bool {
        self.row().2
    }

    /// How the guest treats a file it opened.
    pub(crate) fn file_flags(self) -> FopenFlags {
        match self.row().1 {
            Pages::Bypass => FopenFlags::DIRECT_IO,
            Pages::UntilNextOpen => FopenFlags::empty(),
            Pages::Keep => FopenFlags::KEEP_CACHE,
        }
    }

    /// How the guest treats a directory it opened.
    pub(crate) fn directory_flags(self) -> FopenFlags {
        match self.row().1 {
            Pages::Bypass | Pages::UntilNextOpen => FopenFlags::empty(),
            Pages::Keep => FopenFlags::KEEP_CACHE | FopenFlags::CACHE_DIR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_row() {
        let cases = [
            (CachePolicy::Never, 0, FopenFlags::DIRECT_IO, false),
            (CachePolicy::Metadata, 86_400, FopenFlags::DIRECT_IO, true),
            (CachePolicy::Auto, 1, FopenFlags::empty(), true),
            (CachePolicy::Always, 86_400, FopenFlags::KEEP_CACHE, true),
        ];
        for (policy, secs, flags, plus) in cases {
            assert_eq!(policy.validity().secs, secs);
            assert_eq!(policy.file_flags(), flags);
            assert_eq!(policy.readdirplus(), plus);
        }
    }
}
