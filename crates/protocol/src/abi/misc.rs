//! Extended attributes, statistics and the rest.

use zerocopy::native_endian::{I32, U32, U64};

super::wire! {
    /// `struct fuse_kstatfs`, alone in the reply of STATFS.
    80 Kstatfs {
        blocks: U64, bfree: U64, bavail: U64, files: U64, ffree: U64,
        bsize: U32, namelen: U32, frsize: U32, padding: U32, spare: [U32; 6],
    }
    /// `struct fuse_setxattr_in` as far as it goes without SETXATTR_EXT; name and value follow.
    8 SetxattrIn { size: U32, flags: U32, }
    /// The rest of `struct fuse_setxattr_in` where SETXATTR_EXT was negotiated.
    8 SetxattrInExtended { setxattr_flags: U32, padding: U32, }
    /// `struct fuse_getxattr_in`; for GETXATTR the name follows.
    8 GetxattrIn { size: U32, padding: U32, }
    /// `struct fuse_getxattr_out`.
    8 GetxattrOut { size: U32, padding: U32, }
    /// `struct fuse_bmap_in`.
    16 BmapIn { block: U64, blocksize: U32, padding: U32, }
    /// `struct fuse_ioctl_in`; `in_size` bytes follow.
    32 IoctlIn { fh: U64, flags: U32, cmd: U32, arg: U64, in_size: U32, out_size: U32, }
    /// `struct fuse_ioctl_out`.
    16 IoctlOut { result: I32, flags: U32, in_iovs: U32, out_iovs: U32, }
    /// `struct fuse_poll_in`.
    24 PollIn { fh: U64, kh: U64, flags: U32, events: U32, }
    /// `struct fuse_syncfs_in`.
    8 SyncfsIn { padding: U64, }
    /// `struct fuse_setupmapping_in`.
    40 SetupmappingIn { fh: U64, foffset: U64, len: U64, flags: U64, moffset: U64, }
    /// `struct fuse_removemapping_in`; `count` times [`RemovemappingOne`] follow.
    4 RemovemappingIn { count: U32, }
    /// `struct fuse_removemapping_one`.
    16 RemovemappingOne { moffset: U64, len: U64, }
}
