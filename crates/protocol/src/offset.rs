//! Positions, lengths and times, checked once.

use crate::malformed::Malformed;

/// A position in a file, in bytes; fits `off_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileOffset(i64);

impl FileOffset {
    /// Checks a position.
    ///
    /// # Errors
    ///
    /// [`Malformed::Offset`] above `i64::MAX`: Linux has no such positions.
    pub fn new(raw: u64) -> Result<Self, Malformed> {
        i64::try_from(raw)
            .map(Self)
            .map_err(|_| Malformed::Offset { raw })
    }

    /// The position as system calls take it; never negative.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The position as an unsigned number.
    pub const fn get_u64(self) -> u64 {
        self.0.unsigned_abs()
    }
}

/// Where a directory reading goes on, as the host's file system numbered it: any 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirOffset(pub u64);

/// A point in time: seconds since 1970 (may be negative) and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub secs: i64,
    nanos: u32,
}

impl Timestamp {
    /// Checks the nanoseconds.
    ///
    /// # Errors
    ///
    /// [`Malformed::Nanoseconds`] at 10^9 and above, where some values mean "now" and "leave" to
    /// `utimensat(2)`: they have flags of their own in SETATTR.
    pub fn new(secs: u64, nanos: u32) -> Result<Self, Malformed> {
        if nanos < 1_000_000_000 {
            Ok(Self {
                secs: secs.cast_signed(),
                nanos,
            })
        } else {
            Err(Malformed::Nanoseconds { raw: nanos })
        }
    }

    /// Nanoseconds within the second.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_end_where_off_t_ends() {
        assert_eq!(FileOffset::new(0).map(FileOffset::get), Ok(0));
        assert_eq!(
            FileOffset::new(i64::MAX.unsigned_abs()).map(FileOffset::get),
            Ok(i64::MAX)
        );
        assert!(FileOffset::new(1 << 63).is_err());
        assert!(FileOffset::new(u64::MAX).is_err());
    }

    #[test]
    fn times_before_1970_are_times() {
        assert_eq!(
            Timestamp::new(u64::MAX, 5).map(|t| (t.secs, t.nanos())),
            Ok((-1, 5))
        );
        // UTIME_NOW and UTIME_OMIT (man 2 utimensat) must not slip in as nanoseconds.
        for special in [1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, u32::MAX] {
            assert!(Timestamp::new(0, special).is_err(), "{special}");
        }
    }
}
