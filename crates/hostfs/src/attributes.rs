//! From `struct statx` and `struct stat` to what the guest is told.

use rustix::fs::{Stat, Statx, major, minor};
use virtiofs_protocol::{AttrFlags, Attributes, Gid, Uid};

use crate::idmap::{Host, Identities};

/// A device number in the kernel's 32-bit encoding (`new_encode_dev`, linux/kdev_t.h).
fn encoded_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The parts of a device number in that encoding.
pub(crate) fn decoded_device(device: u32) -> (u32, u32) {
    (
        (device & 0xf_ff00) >> 8,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    )
}

/// Translates what the host says.
pub(crate) fn attributes(stat: &Statx, identities: &Identities, flags: AttrFlags) -> Attributes {
    let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
    Attributes {
        ino: stat.stx_ino,
        size_bytes: stat.stx_size,
        blocks_512: stat.stx_blocks,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        guest_uid: identities.guest_user(Host(Uid(stat.stx_uid))),
        guest_gid: identities.guest_group(Host(Gid(stat.stx_gid))),
        rdev: encoded_device(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize_bytes: stat.stx_blksize,
        flags,
    }
}

/// As [`attributes`], of what fstat(2) says, whose fields have other widths on other processors.
#[allow(
    clippy::useless_conversion,
    reason = "a field is wider on one processor than on another"
)]
pub(crate) fn attributes_of_fstat(
    stat: &Stat,
    identities: &Identities,
    flags: AttrFlags,
) -> Attributes {
    Attributes {
        ino: stat.st_ino.into(),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        blocks_512: u64::try_from(stat.st_blocks).unwrap_or(0),
        atime: (stat.st_atime.into(), narrow(stat.st_atime_nsec)),
        mtime: (stat.st_mtime.into(), narrow(stat.st_mtime_nsec)),
        ctime: (stat.st_ctime.into(), narrow(stat.st_ctime_nsec)),
        mode: stat.st_mode,
        nlink: narrow(stat.st_nlink),
        guest_uid: identities.guest_user(Host(Uid(stat.st_uid))),
        guest_gid: identities.guest_group(Host(Gid(stat.st_gid))),
        rdev: encoded_device(major(stat.st_rdev), minor(stat.st_rdev)),
        blksize_bytes: narrow(stat.st_blksize),
        flags,
    }
}

/// A number that the kernel keeps in 32 bits, out of the wider field that it hands over.
fn narrow(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_wire() {
        for (major, minor) in [(0, 0), (1, 3), (8, 17), (0xfff, 0xf_ffff), (259, 256)] {
            assert_eq!(decoded_device(encoded_device(major, minor)), (major, minor));
        }
        assert_eq!(encoded_device(8, 1), 0x801);
    }

    #[test]
    fn both_looks_at_a_file_say_the_same() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("file");
        std::fs::write(&file, [7; 5000]).unwrap();
        let before_1970 = rustix::fs::Timespec {
            tv_sec: -12_345,
            tv_nsec: 678,
        };
        let times = rustix::fs::Timestamps {
            last_access: before_1970,
            last_modification: before_1970,
        };
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::utimensat(rustix::fs::CWD, &file, &times, flags).unwrap();
        for path in [here.path(), &file, "/dev/null".as_ref()] {
            let file = std::fs::File::open(path).unwrap();
            let (identities, flags) = (Identities::default(), AttrFlags::empty());
            let by_statx = crate::sys::stat_fd(&file).unwrap();
            let by_fstat = crate::sys::attributes_fd(&file).unwrap();
            assert_eq!(
                attributes(&by_statx, &identities, flags),
                attributes_of_fstat(&by_fstat, &identities, flags),
                "{}",
                path.display()
            );
        }
    }
}
