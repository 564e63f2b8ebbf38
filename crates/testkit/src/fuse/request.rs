//! Builds the bytes of a request.

use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::abi::{self, opcode};

/// Who a request says it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User of the calling process.
    pub uid: u32,
    /// Group of the calling process.
    pub gid: u32,
    /// The calling process.
    pub pid: u32,
}

/// Longest argument struct (`fuse_setattr_in`), rounded up.
const BODY: usize = 128;

/// One request, not yet in guest memory.
///
/// Each constructor fills in what the kernel would; every field may then be
/// changed to what no kernel sends.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Number of the operation.
    pub opcode: u32,
    /// Inode it is about.
    pub node: u64,
    body: [u8; BODY],
    body_len: usize,
    /// Names, each of which is written with a NUL after it.
    pub names: [Option<&'a [u8]>; 2],
    /// What follows the arguments: data to write, an attribute's value.
    pub payload: &'a [u8],
    /// Extensions (`fuse_ext_header`), a multiple of eight bytes.
    pub extension: &'a [u8],
    /// Room for the fixed part of the reply after its header; `None` where
    /// the operation has no reply at all.
    pub reply_len: Option<u32>,
    /// Room for data after the fixed part.
    pub data_len: u32,
    /// What the header says instead of the true length.
    pub declared_len: Option<u32>,
}

impl<'a> Request<'a> {
    /// A request with nothing but a header, and room for a bare reply.
    #[must_use]
    pub fn new(opcode: u32, node: u64) -> Self {
        Self {
            opcode,
            node,
            body: [0; BODY],
            body_len: 0,
            names: [None, None],
            payload: &[],
            extension: &[],
            reply_len: Some(0),
            data_len: 0,
            declared_len: None,
        }
    }

    /// Appends an argument struct.
    #[must_use]
    pub fn with<T: IntoBytes + Immutable>(mut self, arguments: &T) -> Self {
        let bytes = arguments.as_bytes();
        let end = self.body_len + bytes.len();
        self.body[self.body_len..end].copy_from_slice(bytes);
        self.body_len = end;
        self
    }

    /// Appends a name.
    #[must_use]
    pub fn name(mut self, name: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let place = usize::from(self.names[0].is_some());
        self.names[place] = Some(name.as_ref());
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: &'a [u8]) -> Self {
        self.payload = payload;
        self
    }

    /// Makes room for a reply struct.
    #[must_use]
    pub fn returns<T>(mut self) -> Self {
        self.reply_len = u32::try_from(size_of::<T>()).ok();
        self
    }

    /// Makes room for reply data of variable length.
    #[must_use]
    pub fn data(mut self, len_bytes: u32) -> Self {
        self.data_len = len_bytes;
        self
    }

    /// Says that no reply is expected.
    #[must_use]
    pub fn without_reply(mut self) -> Self {
        self.reply_len = None;
        self
    }

    /// Bytes of header, arguments, names, payload and extension.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arguments_len() + self.payload.len()
    }

    /// Bytes of header, arguments, names and extension: all but the payload.
    #[must_use]
    pub fn arguments_len(&self) -> usize {
        let names: usize = self.names.iter().flatten().map(|name| name.len() + 1).sum();
        size_of::<abi::InHeader>() + self.body_len + names + self.extension.len()
    }

    /// Whether the request is empty: never, it has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes header, arguments, names and extension; returns their length.
    ///
    /// # Panics
    ///
    /// When `into` is too short.
    pub fn write_arguments(&self, into: &mut [u8], unique: u64, caller: Caller) -> usize {
        let true_len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let header = abi::InHeader {
            len: self.declared_len.unwrap_or(true_len),
            opcode: self.opcode,
            unique,
            nodeid: self.node,
            uid: caller.uid,
            gid: caller.gid,
            pid: caller.pid,
            total_extlen: u16::try_from(self.extension.len() / 8).unwrap_or(u16::MAX),
            padding: 0,
        };
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            into[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        put(header.as_bytes());
        put(&self.body[..self.body_len]);
        for name in self.names.iter().flatten() {
            put(name);
            put(&[0]);
        }
        put(self.extension);
        end
    }
}

/// One constructor for each operation, named after it.
#[expect(missing_docs, reason = "the operations are those of fuse.h")]
impl<'a> Request<'a> {
    #[must_use]
    pub fn init(minor: u32, flags: u64) -> Self {
        let arguments = abi::InitIn {
            major: abi::MAJOR,
            minor,
            max_readahead: 128 << 10,
            flags: low(flags),
            flags2: low(flags >> 32),
            unused: [0; 11],
        };
        Self::new(opcode::INIT, 0)
            .with(&arguments)
            .returns::<abi::InitOut>()
    }

    #[must_use]
    pub fn destroy() -> Self {
        Self::new(opcode::DESTROY, 0)
    }

    #[must_use]
    pub fn lookup(parent: u64, name: &'a [u8]) -> Self {
        Self::new(opcode::LOOKUP, parent)
            .name(name)
            .returns::<abi::EntryOut>()
    }

    #[must_use]
    pub fn forget(node: u64, nlookup: u64) -> Self {
        Self::new(opcode::FORGET, node)
            .with(&abi::ForgetIn { nlookup })
            .without_reply()
    }

    #[must_use]
    pub fn batch_forget(forgets: &'a [abi::ForgetOne]) -> Self {
        let count = u32::try_from(forgets.len()).unwrap_or(u32::MAX);
        Self::new(opcode::BATCH_FORGET, 0)
            .with(&abi::BatchForgetIn { count, dummy: 0 })
            .payload(forgets.as_bytes())
            .without_reply()
    }

    #[must_use]
    pub fn getattr(node: u64, fh: Option<u64>) -> Self {
        let arguments = abi::GetattrIn {
            flags: fh.map_or(0, |_| abi::GETATTR_FH),
            dummy: 0,
            fh: fh.unwrap_or(0),
        };
        Self::new(opcode::GETATTR, node)
            .with(&arguments)
            .returns::<abi::AttrOut>()
    }

    #[must_use]
    pub fn setattr(node: u64, arguments: &abi::SetattrIn) -> Self {
        Self::new(opcode::SETATTR, node)
            .with(arguments)
            .returns::<abi::AttrOut>()
    }

    #[must_use]
    pub fn readlink(node: u64) -> Self {
        Self::new(opcode::READLINK, node).data(4096)
    }

    #[must_use]
    pub fn symlink(parent: u64, name: &'a [u8], target: &'a [u8]) -> Self {
        Self::new(opcode::SYMLINK, parent)
            .name(name)
            .name(target)
            .returns::<abi::EntryOut>()
    }

    #[must_use]
    pub fn mknod(parent: u64, name: &'a [u8], arguments: &abi::MknodIn) -> Self {
        Self::new(opcode::MKNOD, parent)
            .with(arguments)
            .name(name)
            .returns::<abi::EntryOut>()
    }

    #[must_use]
    pub fn mkdir(parent: u64, name: &'a [u8], mode: u32, umask: u32) -> Self {
        Self::new(opcode::MKDIR, parent)
            .with(&abi::MkdirIn { mode, umask })
            .name(name)
            .returns::<abi::EntryOut>()
    }

    #[must_use]
    pub fn unlink(parent: u64, name: &'a [u8]) -> Self {
        Self::new(opcode::UNLINK, parent).name(name)
    }

    #[must_use]
    pub fn rmdir(parent: u64, name: &'a [u8]) -> Self {
        Self::new(opcode::RMDIR, parent).name(name)
    }

    #[must_use]
    pub fn rename(parent: u64, name: &'a [u8], newdir: u64, newname: &'a [u8]) -> Self {
        Self::new(opcode::RENAME, parent)
            .with(&abi::RenameIn { newdir })
            .name(name)
            .name(newname)
    }

    #[must_use]
    pub fn rename2(
        parent: u64,
        name: &'a [u8],
        newdir: u64,
        newname: &'a [u8],
        flags: u32,
    ) -> Self {
        let arguments = abi::Rename2In {
            newdir,
            flags,
            padding: 0,
        };
        Self::new(opcode::RENAME2, parent)
            .with(&arguments)
            .name(name)
            .name(newname)
    }

    #[must_use]
    pub fn link(oldnodeid: u64, parent: u64, name: &'a [u8]) -> Self {
        Self::new(opcode::LINK, parent)
            .with(&abi::LinkIn { oldnodeid })
            .name(name)
            .returns::<abi::EntryOut>()
    }

    #[must_use]
    pub fn open(node: u64, flags: u32) -> Self {
        Self::new(opcode::OPEN, node)
            .with(&abi::OpenIn {
                flags,
                open_flags: 0,
            })
            .returns::<abi::OpenOut>()
    }

    #[must_use]
    pub fn create(parent: u64, name: &'a [u8], arguments: &abi::CreateIn) -> Self {
        Self::new(opcode::CREATE, parent)
            .with(arguments)
            .name(name)
            .returns::<abi::CreateOut>()
    }

    #[must_use]
    pub fn tmpfile(parent: u64, name: &'a [u8], arguments: &abi::CreateIn) -> Self {
        let mut request = Self::create(parent, name, arguments);
        request.opcode = opcode::TMPFILE;
        request
    }

    #[must_use]
    pub fn read(node: u64, fh: u64, offset: u64, size: u32) -> Self {
        let arguments = abi::ReadIn {
            fh,
            offset,
            size,
            ..abi::ReadIn::new_zeroed()
        };
        Self::new(opcode::READ, node).with(&arguments).data(size)
    }

    #[must_use]
    pub fn write(node: u64, fh: u64, offset: u64, bytes: &'a [u8]) -> Self {
        let arguments = abi::WriteIn {
            fh,
            offset,
            size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            ..abi::WriteIn::new_zeroed()
        };
        Self::write_with(node, &arguments, bytes)
    }

    #[must_use]
    pub fn write_with(node: u64, arguments: &abi::WriteIn, bytes: &'a [u8]) -> Self {
        Self::new(opcode::WRITE, node)
            .with(arguments)
            .payload(bytes)
            .returns::<abi::WriteOut>()
    }

    #[must_use]
    pub fn statfs(node: u64) -> Self {
        Self::new(opcode::STATFS, node).returns::<abi::StatfsOut>()
    }

    #[must_use]
    pub fn release(node: u64, arguments: &abi::ReleaseIn) -> Self {
        Self::new(opcode::RELEASE, node).with(arguments)
    }

    #[must_use]
    pub fn flush(node: u64, fh: u64, lock_owner: u64) -> Self {
        let arguments = abi::FlushIn {
            fh,
            lock_owner,
            ..abi::FlushIn::new_zeroed()
        };
        Self::new(opcode::FLUSH, node).with(&arguments)
    }

    #[must_use]
    pub fn fsync(node: u64, fh: u64, fsync_flags: u32) -> Self {
        let arguments = abi::FsyncIn {
            fh,
            fsync_flags,
            padding: 0,
        };
        Self::new(opcode::FSYNC, node).with(&arguments)
    }

    #[must_use]
    pub fn opendir(node: u64) -> Self {
        let mut request = Self::open(node, 0);
        request.opcode = opcode::OPENDIR;
        request
    }

    #[must_use]
    pub fn readdir(node: u64, fh: u64, offset: u64, size: u32) -> Self {
        let mut request = Self::read(node, fh, offset, size);
        request.opcode = opcode::READDIR;
        request
    }

    #[must_use]
    pub fn readdirplus(node: u64, fh: u64, offset: u64, size: u32) -> Self {
        let mut request = Self::read(node, fh, offset, size);
        request.opcode = opcode::READDIRPLUS;
        request
    }

    #[must_use]
    pub fn releasedir(node: u64, fh: u64) -> Self {
        let arguments = abi::ReleaseIn {
            fh,
            ..abi::ReleaseIn::new_zeroed()
        };
        let mut request = Self::release(node, &arguments);
        request.opcode = opcode::RELEASEDIR;
        request
    }

    #[must_use]
    pub fn fsyncdir(node: u64, fh: u64, fsync_flags: u32) -> Self {
        let mut request = Self::fsync(node, fh, fsync_flags);
        request.opcode = opcode::FSYNCDIR;
        request
    }

    #[must_use]
    pub fn setxattr(node: u64, name: &'a [u8], value: &'a [u8], flags: u32) -> Self {
        let arguments = abi::SetxattrIn {
            size: u32::try_from(value.len()).unwrap_or(u32::MAX),
            flags,
            setxattr_flags: 0,
            padding: 0,
        };
        Self::new(opcode::SETXATTR, node)
            .with(&arguments)
            .name(name)
            .payload(value)
    }

    /// Size 0 asks for the size that is needed.
    #[must_use]
    pub fn getxattr(node: u64, name: &'a [u8], size: u32) -> Self {
        Self::sized_xattr(opcode::GETXATTR, node, size).name(name)
    }

    /// Size 0 asks for the size that is needed.
    #[must_use]
    pub fn listxattr(node: u64, size: u32) -> Self {
        Self::sized_xattr(opcode::LISTXATTR, node, size)
    }

    fn sized_xattr(opcode: u32, node: u64, size: u32) -> Self {
        let request = Self::new(opcode, node).with(&abi::GetxattrIn { size, padding: 0 });
        if size == 0 {
            request.returns::<abi::XattrSizeOut>()
        } else {
            request.data(size)
        }
    }

    #[must_use]
    pub fn removexattr(node: u64, name: &'a [u8]) -> Self {
        Self::new(opcode::REMOVEXATTR, node).name(name)
    }

    #[must_use]
    pub fn access(node: u64, mask: u32) -> Self {
        Self::new(opcode::ACCESS, node).with(&abi::AccessIn { mask, padding: 0 })
    }

    #[must_use]
    pub fn getlk(node: u64, arguments: &abi::LkIn) -> Self {
        Self::new(opcode::GETLK, node)
            .with(arguments)
            .returns::<abi::FileLock>()
    }

    #[must_use]
    pub fn setlk(node: u64, arguments: &abi::LkIn) -> Self {
        Self::new(opcode::SETLK, node).with(arguments)
    }

    #[must_use]
    pub fn setlkw(node: u64, arguments: &abi::LkIn) -> Self {
        Self::new(opcode::SETLKW, node).with(arguments)
    }

    #[must_use]
    pub fn interrupt(unique: u64) -> Self {
        Self::new(opcode::INTERRUPT, 0).with(&abi::InterruptIn { unique })
    }

    #[must_use]
    pub fn bmap(node: u64, block: u64, blocksize: u32) -> Self {
        let arguments = abi::BmapIn {
            block,
            blocksize,
            padding: 0,
        };
        Self::new(opcode::BMAP, node)
            .with(&arguments)
            .returns::<u64>()
    }

    #[must_use]
    pub fn ioctl(node: u64, arguments: &abi::IoctlIn, input: &'a [u8]) -> Self {
        Self::new(opcode::IOCTL, node)
            .with(arguments)
            .payload(input)
            .returns::<[u32; 4]>()
            .data(arguments.out_size)
    }

    #[must_use]
    pub fn poll(node: u64, arguments: &abi::PollIn) -> Self {
        Self::new(opcode::POLL, node)
            .with(arguments)
            .returns::<u64>()
    }

    #[must_use]
    pub fn fallocate(node: u64, arguments: &abi::FallocateIn) -> Self {
        Self::new(opcode::FALLOCATE, node).with(arguments)
    }

    #[must_use]
    pub fn lseek(node: u64, fh: u64, offset: u64, whence: u32) -> Self {
        let arguments = abi::LseekIn {
            fh,
            offset,
            whence,
            padding: 0,
        };
        Self::new(opcode::LSEEK, node)
            .with(&arguments)
            .returns::<abi::LseekOut>()
    }

    #[must_use]
    pub fn copy_file_range(node: u64, arguments: &abi::CopyFileRangeIn) -> Self {
        Self::new(opcode::COPY_FILE_RANGE, node)
            .with(arguments)
            .returns::<abi::WriteOut>()
    }

    #[must_use]
    pub fn copy_file_range_64(node: u64, arguments: &abi::CopyFileRangeIn) -> Self {
        Self::new(opcode::COPY_FILE_RANGE_64, node)
            .with(arguments)
            .returns::<abi::CopyFileRangeOut>()
    }

    #[must_use]
    pub fn setupmapping(node: u64, arguments: &abi::SetupmappingIn) -> Self {
        Self::new(opcode::SETUPMAPPING, node).with(arguments)
    }

    /// `mappings` are pairs of window offset and length.
    #[must_use]
    pub fn removemapping(mappings: &'a [[u64; 2]]) -> Self {
        let count = u32::try_from(mappings.len()).unwrap_or(u32::MAX);
        Self::new(opcode::REMOVEMAPPING, 0)
            .with(&count)
            .payload(mappings.as_bytes())
    }

    #[must_use]
    pub fn syncfs(node: u64) -> Self {
        Self::new(opcode::SYNCFS, node).with(&abi::SyncfsIn { padding: 0 })
    }

    #[must_use]
    pub fn statx(node: u64, arguments: &abi::StatxIn) -> Self {
        let mut request = Self::new(opcode::STATX, node).with(arguments);
        request.reply_len = Some(abi::STATX_OUT_LEN);
        request
    }
}

/// The low half of a flag word.
fn low(flags: u64) -> u32 {
    u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mkdir_is_what_linux_sends() {
        let caller = Caller {
            uid: 1000,
            gid: 100,
            pid: 7,
        };
        let mut bytes = [0xaa; 256];
        let request = Request::mkdir(1, b"docs", 0o755, 0o022);
        let len = request.write_arguments(&mut bytes, 0x10, caller);
        let want = b"\x35\x00\x00\x00\x09\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\
            \x01\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00\x64\x00\x00\x00\
            \x07\x00\x00\x00\x00\x00\x00\x00\xed\x01\x00\x00\x12\x00\x00\x00docs\0";
        assert_eq!(&bytes[..len], want);
        assert_eq!((request.len(), request.reply_len), (53, Some(128)));
    }

    #[test]
    fn a_payload_counts_but_is_not_part_of_the_arguments() {
        let request = Request::write(2, 3, 4, b"12345");
        assert_eq!((request.len(), request.arguments_len()), (85, 80));
    }

    #[test]
    fn a_header_can_lie_about_its_length() {
        let mut request = Request::unlink(1, b"x");
        request.declared_len = Some(7);
        let mut bytes = [0; 64];
        request.write_arguments(&mut bytes, 1, Caller::default());
        assert_eq!(bytes[0], 7);
    }
}
