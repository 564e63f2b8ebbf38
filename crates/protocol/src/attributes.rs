//! What a file is like, as a reply states it.

use crate::abi;
use crate::flags::AttrFlags;
use crate::ids::{Gid, Guest, NodeId, Uid};

/// How long the guest may believe what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Validity {
    /// Whole seconds.
    pub secs: u64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// Attributes of a file, in the guest's numbering of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Inode number that the guest shows.
    pub ino: u64,
    /// In bytes.
    pub size_bytes: u64,
    /// In units of 512 bytes.
    pub blocks_512: u64,
    /// Last access: seconds since 1970 and nanoseconds.
    pub atime: (i64, u32),
    /// Last change of the contents.
    pub mtime: (i64, u32),
    /// Last change of the inode.
    pub ctime: (i64, u32),
    /// Type and permissions (`st_mode`).
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub guest_uid: Guest<Uid>,
    /// Group.
    pub guest_gid: Guest<Gid>,
    /// Device number of a device node, in the kernel's 32-bit encoding (`new_encode_dev`).
    pub rdev: u32,
    /// Preferred size of I/O, in bytes.
    pub blksize_bytes: u32,
    /// Whether another mount begins here.
    pub flags: AttrFlags,
}

impl Attributes {
    /// Major and minor part of `rdev`.
    fn device_number(&self) -> (u32, u32) {
        let (major, minor) = ((self.rdev >> 8) & 0xfff, self.rdev & 0xff);
        (major, minor | ((self.rdev >> 12) & 0xf_ff00))
    }

    pub(crate) fn to_wire(self) -> abi::Attr {
        abi::Attr {
            ino: self.ino.into(),
            size: self.size_bytes.into(),
            blocks: self.blocks_512.into(),
            atime: self.atime.0.cast_unsigned().into(),
            mtime: self.mtime.0.cast_unsigned().into(),
            ctime: self.ctime.0.cast_unsigned().into(),
            atimensec: self.atime.1.into(),
            mtimensec: self.mtime.1.into(),
            ctimensec: self.ctime.1.into(),
            mode: self.mode.into(),
            nlink: self.nlink.into(),
            uid: self.guest_uid.0.0.into(),
            gid: self.guest_gid.0.0.into(),
            rdev: self.rdev.into(),
            blksize: self.blksize_bytes.into(),
            flags: self.flags.bits().into(),
        }
    }
}

/// A name that was found or made: the guest holds one more lookup of `node` when it sees this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub node: NodeId,
    /// How long name and inode belong together.
    pub entry_validity: Validity,
    /// How long the attributes hold.
    pub attr_validity: Validity,
    /// The attributes.
    pub attributes: Attributes,
}

impl Entry {
    /// Nothing stands under the name, and the guest need not ask again for so long.
    ///
    /// Node 0 is what FUSE says it with (`fuse_lookup_name`, linux/fs/fuse/dir.c); no lookup is counted.
    pub fn absent(validity: Validity) -> Self {
        Self {
            node: NodeId::from_raw(0),
            entry_validity: validity,
            attr_validity: Validity::default(),
            attributes: Attributes::default(),
        }
    }

    pub(crate) fn to_wire(self) -> abi::EntryOut {
        abi::EntryOut {
            nodeid: self.node.raw().into(),
            // A NodeId carries its slot's generation itself and is never used twice.
            generation: 0.into(),
            entry_valid: self.entry_validity.secs.into(),
            attr_valid: self.attr_validity.secs.into(),
            entry_valid_nsec: self.entry_validity.nanos.into(),
            attr_valid_nsec: self.attr_validity.nanos.into(),
            attr: self.attributes.to_wire(),
        }
    }
}

/// Answer to GETATTR and SETATTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// How long the attributes hold.
    pub validity: Validity,
    /// The attributes.
    pub attributes: Attributes,
}

impl Attr {
    pub(crate) fn to_wire(self) -> abi::AttrOut {
        abi::AttrOut {
            attr_valid: self.validity.secs.into(),
            attr_valid_nsec: self.validity.nanos.into(),
            dummy: 0.into(),
            attr: self.attributes.to_wire(),
        }
    }
}

/// Answer to STATX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedAttr {
    /// What GETATTR would say.
    pub attr: Attr,
    /// When the file was made: seconds since 1970 and nanoseconds; `None` where the store does not know.
    pub birth: Option<(i64, u32)>,
    /// The host's device number, major and minor part.
    pub device: (u32, u32),
}

/// `STATX_BASIC_STATS` and `STATX_BTIME` (linux/stat.h).
const BASIC_STATS: u32 = 0x7ff;
const BIRTH_TIME: u32 = 0x800;

impl ExtendedAttr {
    pub(crate) fn to_wire(self) -> abi::StatxOut {
        let Attr {
            validity,
            attributes: is,
        } = self.attr;
        let mask = match self.birth {
            Some(_) => BASIC_STATS | BIRTH_TIME,
            None => BASIC_STATS,
        };
        let time = |(secs, nanos): (i64, u32)| abi::SxTime {
            tv_sec: secs.cast_unsigned().into(),
            tv_nsec: nanos.into(),
            reserved: 0.into(),
        };
        let (rdev_major, rdev_minor) = is.device_number();
        abi::StatxOut {
            attr_valid: validity.secs.into(),
            attr_valid_nsec: validity.nanos.into(),
            stat: abi::Statx {
                mask: mask.into(),
                blksize: is.blksize_bytes.into(),
                nlink: is.nlink.into(),
                uid: is.guest_uid.0.0.into(),
                gid: is.guest_gid.0.0.into(),
                // `st_mode` has sixteen bits.
                mode: u16::try_from(is.mode & 0xffff).unwrap_or_default().into(),
                ino: is.ino.into(),
                size: is.size_bytes.into(),
                blocks: is.blocks_512.into(),
                atime: time(is.atime),
                btime: time(self.birth.unwrap_or_default()),
                ctime: time(is.ctime),
                mtime: time(is.mtime),
                rdev_major: rdev_major.into(),
                rdev_minor: rdev_minor.into(),
                dev_major: self.device.0.into(),
                dev_minor: self.device.1.into(),
                ..abi::Statx::default()
            },
            ..abi::StatxOut::default()
        }
    }
}

/// Answer to STATFS (man 3 statvfs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Blocks of `fragment_bytes`.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for others than the superuser.
    pub blocks_available: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred size of I/O, in bytes.
    pub block_bytes: u32,
    /// Size of a block, in bytes.
    pub fragment_bytes: u32,
    /// Longest name, in bytes.
    pub name_max: u32,
}

impl Statistics {
    pub(crate) fn to_wire(self) -> abi::Kstatfs {
        abi::Kstatfs {
            blocks: self.blocks.into(),
            bfree: self.blocks_free.into(),
            bavail: self.blocks_available.into(),
            files: self.files.into(),
            ffree: self.files_free.into(),
            bsize: self.block_bytes.into(),
            namelen: self.name_max.into(),
            frsize: self.fragment_bytes.into(),
            ..abi::Kstatfs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    /// Offsets of `struct fuse_statx_out` (fuse.h 7.39): the birth time and the device numbers are what GETATTR lacks.
    #[test]
    fn statx_states_birth_and_devices_where_linux_looks_for_them() {
        let attributes = Attributes {
            mode: 0o020_644,
            // Device 259:256 in the kernel's encoding.
            rdev: 0x11_0300,
            ..Attributes::default()
        };
        let attr = Attr {
            validity: Validity { secs: 5, nanos: 6 },
            attributes,
        };
        let known = ExtendedAttr {
            attr,
            birth: Some((-7, 8)),
            device: (9, 10),
        };
        let bytes = known.to_wire();
        let bytes = bytes.as_bytes();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| i64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((long(0), word(8)), (5, 6), "validity");
        assert_eq!(word(32), 0xfff, "mask");
        assert_eq!((long(112), word(120)), (-7, 8), "birth");
        assert_eq!((word(160), word(164)), (259, 256), "device of the node");
        assert_eq!((word(168), word(172)), (9, 10), "device of the store");
        let unknown = ExtendedAttr {
            birth: None,
            ..known
        };
        let bytes = unknown.to_wire();
        assert_eq!(bytes.stat.mask.get(), 0x7ff, "no birth is claimed");
    }
}
