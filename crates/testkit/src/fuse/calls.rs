//! The usual requests as plain calls.

use zerocopy::FromZeros;

use super::abi;
use super::client::FuseClient;
use super::reply::{DirEntry, Failure, dir_entries, dir_entries_plus};
use super::request::Request;

/// Longest directory listing asked for at once.
const LISTING: u32 = 32 << 10;

/// What Linux 6.x offers on virtio-fs, so that tests negotiate the same.
pub(super) const LINUX_INIT_FLAGS: u64 = {
    use abi::init::*;
    ASYNC_READ
        | POSIX_LOCKS
        | ATOMIC_O_TRUNC
        | EXPORT_SUPPORT
        | BIG_WRITES
        | DONT_MASK
        | FLOCK_LOCKS
        | AUTO_INVAL_DATA
        | DO_READDIRPLUS
        | READDIRPLUS_AUTO
        | ASYNC_DIO
        | WRITEBACK_CACHE
        | NO_OPEN_SUPPORT
        | PARALLEL_DIROPS
        | HANDLE_KILLPRIV
        | POSIX_ACL
        | ABORT_ERROR
        | MAX_PAGES
        | CACHE_SYMLINKS
        | NO_OPENDIR_SUPPORT
        | EXPLICIT_INVAL_DATA
        | SUBMOUNTS
        | HANDLE_KILLPRIV_V2
        | SETXATTR_EXT
        | INIT_EXT
        | CREATE_SUPP_GROUP
        | HAS_EXPIRE_ONLY
        | DIRECT_IO_ALLOW_MMAP
};

impl FuseClient {
    /// INIT as a recent Linux sends it.
    pub fn init(&mut self) -> Result<abi::InitOut, Failure> {
        self.init_with(abi::MINOR, LINUX_INIT_FLAGS)
    }

    /// INIT with any minor version and flags.
    pub fn init_with(&mut self, minor: u32, flags: u64) -> Result<abi::InitOut, Failure> {
        self.call_for(&Request::init(minor, flags))
    }

    /// DESTROY.
    pub fn destroy(&mut self) -> Result<(), Failure> {
        self.call(&Request::destroy()).map(drop)
    }

    /// LOOKUP.
    pub fn lookup(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
    ) -> Result<abi::EntryOut, Failure> {
        self.call_for(&Request::lookup(parent, name.as_ref()))
    }

    /// FORGET of `count` lookups; belongs on queue 0.
    pub fn forget(&mut self, node: u64, count: u64) -> Result<(), Failure> {
        self.send(&Request::forget(node, count))
    }

    /// BATCH_FORGET; belongs on queue 0.
    pub fn batch_forget(&mut self, forgets: &[abi::ForgetOne]) -> Result<(), Failure> {
        self.send(&Request::batch_forget(forgets))
    }

    /// GETATTR without a handle.
    pub fn getattr(&mut self, node: u64) -> Result<abi::Attr, Failure> {
        let out: abi::AttrOut = self.call_for(&Request::getattr(node, None))?;
        Ok(out.attr)
    }

    /// GETATTR of an open file.
    pub fn getattr_fh(&mut self, node: u64, fh: u64) -> Result<abi::Attr, Failure> {
        let out: abi::AttrOut = self.call_for(&Request::getattr(node, Some(fh)))?;
        Ok(out.attr)
    }

    /// SETATTR.
    pub fn setattr(&mut self, node: u64, arguments: &abi::SetattrIn) -> Result<abi::Attr, Failure> {
        let out: abi::AttrOut = self.call_for(&Request::setattr(node, arguments))?;
        Ok(out.attr)
    }

    /// READLINK.
    pub fn readlink(&mut self, node: u64) -> Result<Vec<u8>, Failure> {
        self.call_for_data(&Request::readlink(node))
    }

    /// SYMLINK.
    pub fn symlink(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<abi::EntryOut, Failure> {
        self.call_for(&Request::symlink(parent, name.as_ref(), target.as_ref()))
    }

    /// MKNOD with an empty umask.
    pub fn mknod(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
        rdev: u32,
    ) -> Result<abi::EntryOut, Failure> {
        let arguments = abi::MknodIn {
            mode,
            rdev,
            umask: 0,
            padding: 0,
        };
        self.call_for(&Request::mknod(parent, name.as_ref(), &arguments))
    }

    /// MKDIR with an empty umask.
    pub fn mkdir(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
    ) -> Result<abi::EntryOut, Failure> {
        self.call_for(&Request::mkdir(parent, name.as_ref(), mode, 0))
    }

    /// UNLINK.
    pub fn unlink(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.call(&Request::unlink(parent, name.as_ref())).map(drop)
    }

    /// RMDIR.
    pub fn rmdir(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.call(&Request::rmdir(parent, name.as_ref())).map(drop)
    }

    /// RENAME2 with the given `RENAME_*` flags.
    pub fn rename(
        &mut self,
        (parent, name): (u64, &[u8]),
        (newdir, newname): (u64, &[u8]),
        flags: u32,
    ) -> Result<(), Failure> {
        self.call(&Request::rename2(parent, name, newdir, newname, flags))
            .map(drop)
    }

    /// LINK.
    pub fn link(
        &mut self,
        node: u64,
        parent: u64,
        name: impl AsRef<[u8]>,
    ) -> Result<abi::EntryOut, Failure> {
        self.call_for(&Request::link(node, parent, name.as_ref()))
    }

    /// OPEN.
    pub fn open(&mut self, node: u64, flags: u32) -> Result<abi::OpenOut, Failure> {
        self.call_for(&Request::open(node, flags))
    }

    /// CREATE with an empty umask.
    pub fn create(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        flags: u32,
        mode: u32,
    ) -> Result<abi::CreateOut, Failure> {
        let arguments = abi::CreateIn {
            flags,
            mode,
            umask: 0,
            open_flags: 0,
        };
        self.call_for(&Request::create(parent, name.as_ref(), &arguments))
    }

    /// READ into a new vector.
    pub fn read(&mut self, node: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>, Failure> {
        self.call_for_data(&Request::read(node, fh, offset, size))
    }

    /// READ that leaves the bytes in guest memory and says how many there are.
    pub fn read_count(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<usize, Failure> {
        let answer = self.call(&Request::read(node, fh, offset, size))?;
        Ok(self.data_len(&answer))
    }

    /// WRITE; returns the count.
    pub fn write(&mut self, node: u64, fh: u64, offset: u64, bytes: &[u8]) -> Result<u32, Failure> {
        let out: abi::WriteOut = self.call_for(&Request::write(node, fh, offset, bytes))?;
        Ok(out.size)
    }

    /// RELEASE.
    pub fn release(&mut self, node: u64, fh: u64) -> Result<(), Failure> {
        let arguments = abi::ReleaseIn {
            fh,
            ..abi::ReleaseIn::new_zeroed()
        };
        self.call(&Request::release(node, &arguments)).map(drop)
    }

    /// FLUSH for a lock owner.
    pub fn flush(&mut self, node: u64, fh: u64, lock_owner: u64) -> Result<(), Failure> {
        self.call(&Request::flush(node, fh, lock_owner)).map(drop)
    }

    /// FSYNC of data and metadata.
    pub fn fsync(&mut self, node: u64, fh: u64) -> Result<(), Failure> {
        self.call(&Request::fsync(node, fh, 0)).map(drop)
    }

    /// STATFS.
    pub fn statfs(&mut self, node: u64) -> Result<abi::StatfsOut, Failure> {
        self.call_for(&Request::statfs(node))
    }

    /// ACCESS.
    pub fn access(&mut self, node: u64, mask: u32) -> Result<(), Failure> {
        self.call(&Request::access(node, mask)).map(drop)
    }

    /// LSEEK.
    pub fn lseek(&mut self, node: u64, fh: u64, offset: u64, whence: u32) -> Result<u64, Failure> {
        let out: abi::LseekOut = self.call_for(&Request::lseek(node, fh, offset, whence))?;
        Ok(out.offset)
    }

    /// FALLOCATE.
    pub fn fallocate(&mut self, node: u64, arguments: &abi::FallocateIn) -> Result<(), Failure> {
        self.call(&Request::fallocate(node, arguments)).map(drop)
    }

    /// COPY_FILE_RANGE; returns the count.
    pub fn copy_file_range(
        &mut self,
        node: u64,
        arguments: &abi::CopyFileRangeIn,
    ) -> Result<u32, Failure> {
        let out: abi::WriteOut = self.call_for(&Request::copy_file_range(node, arguments))?;
        Ok(out.size)
    }

    /// OPENDIR.
    pub fn opendir(&mut self, node: u64) -> Result<abi::OpenOut, Failure> {
        self.call_for(&Request::opendir(node))
    }

    /// RELEASEDIR.
    pub fn releasedir(&mut self, node: u64, fh: u64) -> Result<(), Failure> {
        self.call(&Request::releasedir(node, fh)).map(drop)
    }

    /// One READDIR.
    pub fn readdir(&mut self, node: u64, fh: u64, offset: u64) -> Result<Vec<DirEntry>, Failure> {
        let bytes = self.call_for_data(&Request::readdir(node, fh, offset, LISTING))?;
        Ok(dir_entries(&bytes))
    }

    /// One READDIRPLUS. Each entry but `.` and `..` counts as a lookup.
    pub fn readdirplus(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
    ) -> Result<Vec<DirEntry>, Failure> {
        let bytes = self.call_for_data(&Request::readdirplus(node, fh, offset, LISTING))?;
        Ok(dir_entries_plus(&bytes))
    }

    /// A whole directory: OPENDIR, READDIRPLUS until its end, RELEASEDIR.
    pub fn list(&mut self, node: u64) -> Result<Vec<DirEntry>, Failure> {
        let fh = self.opendir(node)?.fh;
        let mut all = Vec::new();
        loop {
            let offset = all.last().map_or(0, |entry: &DirEntry| entry.dirent.off);
            let some = self.readdirplus(node, fh, offset)?;
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        self.releasedir(node, fh)?;
        Ok(all)
    }

    /// The data of a reply that has no fixed part.
    fn call_for_data(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
        let answer = self.call(request)?;
        Ok(self.data(&answer))
    }
}
