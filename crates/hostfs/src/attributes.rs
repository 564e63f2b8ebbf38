//! From `struct statx` to what the guest is told.

use rustix::fs::Statx;
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
}
