//! Names, attributes and directory entries.

use zerocopy::native_endian::{U16, U32, U64};

super::wire! {
    /// `struct fuse_attr`.
    88 Attr {
        ino: U64, size: U64,
        /// In units of 512 bytes.
        blocks: U64,
        atime: U64, mtime: U64, ctime: U64, atimensec: U32, mtimensec: U32, ctimensec: U32,
        mode: U32, nlink: U32, uid: U32, gid: U32, rdev: U32, blksize: U32, flags: U32,
    }
    /// `struct fuse_entry_out`.
    128 EntryOut {
        nodeid: U64, generation: U64, entry_valid: U64, attr_valid: U64,
        entry_valid_nsec: U32, attr_valid_nsec: U32, attr: Attr,
    }
    /// `struct fuse_attr_out`.
    104 AttrOut { attr_valid: U64, attr_valid_nsec: U32, dummy: U32, attr: Attr, }
    /// `struct fuse_forget_in`.
    8 ForgetIn { nlookup: U64, }
    /// `struct fuse_forget_one`.
    16 ForgetOne { nodeid: U64, nlookup: U64, }
    /// `struct fuse_batch_forget_in`; `count` times [`ForgetOne`] follow.
    8 BatchForgetIn { count: U32, dummy: U32, }
    /// `struct fuse_getattr_in`.
    16 GetattrIn { getattr_flags: U32, dummy: U32, fh: U64, }
    /// `struct fuse_setattr_in`.
    88 SetattrIn {
        valid: U32, padding: U32, fh: U64, size: U64, lock_owner: U64, atime: U64, mtime: U64, ctime: U64,
        atimensec: U32, mtimensec: U32, ctimensec: U32, mode: U32, unused4: U32, uid: U32, gid: U32, unused5: U32,
    }
    /// `struct fuse_mknod_in`; the name follows.
    16 MknodIn { mode: U32, rdev: U32, umask: U32, padding: U32, }
    /// `struct fuse_mkdir_in`; the name follows.
    8 MkdirIn { mode: U32, umask: U32, }
    /// `struct fuse_rename_in`; old and new name follow.
    8 RenameIn { newdir: U64, }
    /// `struct fuse_rename2_in`; old and new name follow.
    16 Rename2In { newdir: U64, flags: U32, padding: U32, }
    /// `struct fuse_link_in`; the new name follows.
    8 LinkIn { oldnodeid: U64, }
    /// `struct fuse_access_in`.
    8 AccessIn { mask: U32, padding: U32, }
    /// `struct fuse_dirent`; the name follows, padded to 8 bytes.
    24 Dirent { ino: U64, off: U64, namelen: U32, type_: U32, }
    /// `struct fuse_statx_in`.
    24 StatxIn { getattr_flags: U32, reserved: U32, fh: U64, sx_flags: U32, sx_mask: U32, }
    /// `struct fuse_sx_time`.
    16 SxTime { tv_sec: U64, tv_nsec: U32, reserved: U32, }
    /// `struct fuse_statx`.
    256 Statx {
        mask: U32, blksize: U32, attributes: U64, nlink: U32, uid: U32, gid: U32, mode: U16, spare0: U16,
        ino: U64, size: U64, blocks: U64, attributes_mask: U64,
        atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: U32, rdev_minor: U32, dev_major: U32, dev_minor: U32, spare2: [U64; 14],
    }
    /// `struct fuse_statx_out`.
    288 StatxOut { attr_valid: U64, attr_valid_nsec: U32, flags: U32, spare: [U64; 2], stat: Statx, }
}
