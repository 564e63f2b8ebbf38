//! Flag words of `fuse.h`, each with a type.

bitflags::bitflags! {
    /// What guest and daemon agree on in INIT (`FUSE_*` of `struct fuse_init_in`, both words).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct InitFlags: u64 {
        /// Reads may be sent before earlier ones are answered.
        const ASYNC_READ = 1 << 0;
        /// POSIX locks are sent to the daemon.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN carries `O_TRUNC` instead of a SETATTR that follows.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// LOOKUP of `.` and `..`.
        const EXPORT_SUPPORT = 1 << 4;
        /// Writes larger than a page.
        const BIG_WRITES = 1 << 5;
        /// The umask is applied by the daemon.
        const DONT_MASK = 1 << 6;
        /// `flock(2)` is sent to the daemon.
        const FLOCK_LOCKS = 1 << 10;
        /// ioctl on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// The guest drops cached pages when size or mtime changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS.
        const DO_READDIRPLUS = 1 << 13;
        /// The guest decides when READDIRPLUS is worth it.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O in parallel.
        const ASYNC_DIO = 1 << 15;
        /// The guest caches writes and owns size and mtime meanwhile.
        const WRITEBACK_CACHE = 1 << 16;
        /// OPEN may be answered ENOSYS.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// LOOKUP and READDIR of one directory in parallel.
        const PARALLEL_DIROPS = 1 << 18;
        /// The daemon drops set-id bits and capabilities (first form).
        const HANDLE_KILLPRIV = 1 << 19;
        /// POSIX ACLs.
        const POSIX_ACL = 1 << 20;
        /// The reply states `max_pages`.
        const MAX_PAGES = 1 << 22;
        /// The guest caches symlinks.
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR may be answered ENOSYS.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached pages are dropped on request only.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// The reply states `map_alignment` (DAX).
        const MAP_ALIGNMENT = 1 << 26;
        /// Mount points inside the share are announced.
        const SUBMOUNTS = 1 << 27;
        /// The daemon drops set-id bits and capabilities when the request says so.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR in its longer form.
        const SETXATTR_EXT = 1 << 29;
        /// The second word of flags is there.
        const INIT_EXT = 1 << 30;
        /// Creation carries a security label.
        const SECURITY_CTX = 1 << 32;
        /// DAX per inode.
        const HAS_INODE_DAX = 1 << 33;
        /// Creation carries the caller's supplementary group that owns the parent.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// mmap of files in direct I/O mode.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Requests of idmapped mounts.
        const ALLOW_IDMAP = 1 << 40;
    }

    /// How the guest treats an open file (`FOPEN_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FopenFlags: u32 {
        /// Bypass the guest's page cache.
        const DIRECT_IO = 1 << 0;
        /// Keep pages cached from an earlier open.
        const KEEP_CACHE = 1 << 1;
        /// Cache the directory's entries.
        const CACHE_DIR = 1 << 3;
        /// No FLUSH at close.
        const NOFLUSH = 1 << 5;
        /// Direct writes in parallel.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
    }

    /// What SETXATTR in its longer form may ask for (`FUSE_SETXATTR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct SetxattrFlags: u32 {
        /// The set-group-id bit goes with an access ACL: the caller is not in the file's group.
        const ACL_KILL_SGID = 1 << 0;
    }

    /// What stands in the flags word of `struct fuse_attr` (`FUSE_ATTR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct AttrFlags: u32 {
        /// The entry is the root of another mount; the guest gives it a device number of its own.
        const SUBMOUNT = 1 << 0;
    }

    /// What RENAME2 may ask for (`RENAME_*`, man 2 renameat2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RenameFlags: u32 {
        /// Fail if the new name exists.
        const NOREPLACE = 1 << 0;
        /// Exchange the two names.
        const EXCHANGE = 1 << 1;
        /// Leave a whiteout under the old name.
        const WHITEOUT = 1 << 2;
    }

    /// What FALLOCATE may ask for (`FALLOC_FL_*`, man 2 fallocate).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FallocateMode: u32 {
        /// Leave the size as it is.
        const KEEP_SIZE = 0x01;
        /// Free the range.
        const PUNCH_HOLE = 0x02;
        /// Remove the range and close the gap.
        const COLLAPSE_RANGE = 0x08;
        /// Zero the range.
        const ZERO_RANGE = 0x10;
        /// Insert a hole.
        const INSERT_RANGE = 0x20;
        /// Undo the sharing of blocks.
        const UNSHARE_RANGE = 0x40;
        /// Write zeroes.
        const WRITE_ZEROES = 0x80;
    }
}
