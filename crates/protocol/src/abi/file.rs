//! Open files and directories.

use zerocopy::native_endian::{I32, U32, U64};

super::wire! {
    /// `struct fuse_open_in`.
    8 OpenIn { flags: U32, open_flags: U32, }
    /// `struct fuse_create_in`; the name follows.
    16 CreateIn { flags: U32, mode: U32, umask: U32, open_flags: U32, }
    /// `struct fuse_open_out`.
    16 OpenOut { fh: U64, open_flags: U32, backing_id: I32, }
    /// `struct fuse_release_in`.
    24 ReleaseIn { fh: U64, flags: U32, release_flags: U32, lock_owner: U64, }
    /// `struct fuse_flush_in`.
    24 FlushIn { fh: U64, unused: U32, padding: U32, lock_owner: U64, }
    /// `struct fuse_read_in`.
    40 ReadIn { fh: U64, offset: U64, size: U32, read_flags: U32, lock_owner: U64, flags: U32, padding: U32, }
    /// `struct fuse_write_in`; the data follows.
    40 WriteIn { fh: U64, offset: U64, size: U32, write_flags: U32, lock_owner: U64, flags: U32, padding: U32, }
    /// `struct fuse_write_out`.
    8 WriteOut { size: U32, padding: U32, }
    /// `struct fuse_fsync_in`.
    16 FsyncIn { fh: U64, fsync_flags: U32, padding: U32, }
    /// `struct fuse_fallocate_in`.
    32 FallocateIn { fh: U64, offset: U64, length: U64, mode: U32, padding: U32, }
    /// `struct fuse_lseek_in`.
    24 LseekIn { fh: U64, offset: U64, whence: U32, padding: U32, }
    /// `struct fuse_lseek_out`.
    8 LseekOut { offset: U64, }
    /// `struct fuse_copy_file_range_in`.
    56 CopyFileRangeIn { fh_in: U64, off_in: U64, nodeid_out: U64, fh_out: U64, off_out: U64, len: U64, flags: U64, }
    /// `struct fuse_copy_file_range_out`, the reply of the 64-bit form.
    8 CopyFileRangeOut { bytes_copied: U64, }
    /// `struct fuse_file_lock`.
    24 FileLock { start: U64, end: U64, type_: U32, pid: U32, }
    /// `struct fuse_lk_in`.
    48 LkIn { fh: U64, owner: U64, lk: FileLock, lk_flags: U32, padding: U32, }
}
