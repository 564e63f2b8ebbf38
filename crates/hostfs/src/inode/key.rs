//! By what an inode is told from every other one.

use rustix::fs::Statx;

use crate::sys::{self, STATX_MNT_ID, STATX_MNT_ID_UNIQUE};

/// `STATX_BTIME` (man 2 statx).
const STATX_BTIME: u32 = 0x800;

/// Two ticks of the slowest clock that Linux is built with (`CONFIG_HZ` 100).
const TICK_NANOS: u64 = 20_000_000;

/// How far an inode number can be trusted once no descriptor holds the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Birth time is part of an inode's identity: it tells a reused inode number.
    Birth,
    /// Only a descriptor keeps the number from being reused, so a known inode keeps one.
    Pinned,
}

/// Identity of an inode: mount, device, number, type, and the time of its birth where that is part of it.
///
/// The type belongs to it because no inode ever changes it: a number under which another type is found
/// has been reused, whatever held it, as by a server that knows its files by path. The device belongs to it: a btrfs subvolume and its snapshot share mount, number and birth time.
/// On stores whose birth times say nothing, a descriptor keeps the number from being reused, and
/// the birth time is left out, because a copy-up on overlayfs changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) mount: u64,
    device: (u32, u32),
    pub(crate) number: u64,
    kind: Kind,
    // Two fields: a pair of them would be padded to eight bytes more.
    birth_secs: i64,
    birth_nanos: u32,
}

/// The bits of a mode that are the type (`S_IFMT`, man 7 inode).
const TYPE: u16 = 0o170_000;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Known(u16),
    /// Whatever it was, nothing is it any more.
    Lost,
}

impl Key {
    pub(crate) fn new(stat: &Statx, identity: Identity) -> Self {
        let (birth_secs, birth_nanos) = match identity {
            Identity::Birth => (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
            Identity::Pinned => (0, 0),
        };
        Self {
            mount: stat.stx_mnt_id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            number: stat.stx_ino,
            kind: Kind::Known(stat.stx_mode & TYPE),
            birth_secs,
            birth_nanos,
        }
    }

    /// The same, as nothing will be found again.
    pub(crate) fn lost(self) -> Self {
        Self {
            kind: Kind::Lost,
            ..self
        }
    }

    /// Whether something lies on another mount, or on another device of the same one, as a btrfs subvolume does.
    pub(crate) fn is_elsewhere(&self, stat: &Statx) -> bool {
        self.mount != stat.stx_mnt_id || self.device != (stat.stx_dev_major, stat.stx_dev_minor)
    }

    /// Whether an inode that takes over the number might be born at the same time.
    ///
    /// Birth times are of a coarse clock, which stands still for a tick.
    pub(crate) fn is_newborn(&self) -> bool {
        self.is_newborn_at(sys::raw::coarse_time())
    }

    fn is_newborn_at(&self, (now_secs, now_nanos): (i64, i64)) -> bool {
        // Checked: a store that was made with care may tell any number.
        let nanos = |secs: i64, nanos: i64| secs.checked_mul(1_000_000_000)?.checked_add(nanos);
        let birth = nanos(self.birth_secs, self.birth_nanos.into());
        let age = birth.and_then(|birth| nanos(now_secs, now_nanos)?.checked_sub(birth));
        // Before this clock's last tick, or after it, where a kernel gives out finer times.
        age.is_some_and(|age| age.unsigned_abs() < TICK_NANOS)
    }
}

/// Whether the kernel and the store tell when an inode was born.
pub(crate) fn tells_birth(stat: &Statx) -> bool {
    stat.stx_mask & STATX_BTIME != 0
}

/// How long the number of a mount means this mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountNumber {
    /// Forever.
    Unique,
    /// For as long as the mount is there; the next mount gets the number at once.
    Reused,
    /// The kernel tells none.
    Unknown,
}

impl MountNumber {
    pub(crate) fn of(stat: &Statx) -> Self {
        if stat.stx_mask & STATX_MNT_ID_UNIQUE != 0 {
            Self::Unique
        } else if stat.stx_mask & STATX_MNT_ID != 0 {
            Self::Reused
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn born(secs: i64, nanos: u32) -> Key {
        Key {
            mount: 0,
            device: (0, 0),
            number: 0,
            kind: Kind::Known(0),
            birth_secs: secs,
            birth_nanos: nanos,
        }
    }

    #[test]
    fn the_type_is_part_of_an_identity_and_what_is_lost_is_never_found() {
        assert_eq!(size_of::<Key>(), 40, "each inode has one");
        let file = crate::sys::stat_fd(std::fs::File::open("/").unwrap()).unwrap();
        for identity in [Identity::Birth, Identity::Pinned] {
            let mut other = file;
            other.stx_mode ^= 0o777;
            assert_eq!(Key::new(&other, identity), Key::new(&file, identity));
            other.stx_mode ^= 0o040_000;
            assert_ne!(Key::new(&other, identity), Key::new(&file, identity));
            let lost = Key::new(&file, identity).lost();
            assert_ne!(lost, Key::new(&file, identity));
            assert_eq!(lost, lost.lost());
        }
    }

    #[test]
    fn k_a_newborn_is_told_by_any_clock() {
        let clocks = [
            (i64::MIN, 0),
            (-1, 999_999_999),
            (0, 0),
            (1_700_000_000, 5),
            (i64::MAX / 1_000_000_000, 0),
            (i64::MAX, 999_999_999),
        ];
        for birth in clocks {
            for now in clocks {
                let nanos = u32::try_from(birth.1).unwrap();
                // Only as far as nanoseconds of 64 bits reach is there an age at all.
                let reaches = |clock: (i64, i64)| clock.0.checked_mul(1_000_000_000).is_some();
                let near =
                    birth == now || (birth.0.unsigned_abs() <= 1 && now.0.unsigned_abs() <= 1);
                let want = near && reaches(birth) && reaches(now);
                assert_eq!(
                    born(birth.0, nanos).is_newborn_at(now),
                    want,
                    "{birth:?}, {now:?}"
                );
            }
        }
        // Set back by an hour, the clock makes no newborn of what was born before.
        assert!(!born(1_700_003_600, 0).is_newborn_at((1_700_000_000, 0)));
    }

    #[test]
    fn only_a_birth_of_just_now_is_a_newborns_whatever_the_store_tells() {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let secs = i64::try_from(now.as_secs()).unwrap();
        assert!(born(secs, now.subsec_nanos()).is_newborn());
        for (secs, nanos) in [
            (secs - 1, now.subsec_nanos()),
            (secs + 1, now.subsec_nanos()),
            (0, 0),
            (-1, 999_999_999),
            (i64::MIN, u32::MAX),
            (i64::MAX, u32::MAX),
        ] {
            assert!(!born(secs, nanos).is_newborn(), "{secs}.{nanos}");
        }
    }
}
