//! A guest that calls a file system as a session would, on a thread that may sleep.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

pub(crate) mod handles;
pub(crate) mod listing;
pub(crate) mod locker;
pub(crate) mod store;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use virtiofs_hostfs::{Options, PassthroughFs, SharedRoot};
use virtiofs_protocol::op::{
    self, Create, Durability, Extras, Getattr, KillPrivileges, OpenOptions, Permissions, Setattr,
    WriteOrigin,
};
use virtiofs_protocol::{
    Attributes, Caller, Cancel, Context, DirEntries, DirOffset, Entry, Errno, FallocateMode, Fh,
    FileOffset, Filesystem, GuestPages, InitFlags, IoVec, LockOwner, LookupName, Name, Negotiated,
    NodeId, Opened, Outcome, PageWriter, Patience, Refusal, RenameFlags, ReplySpace, Statistics,
    Unique,
};

pub(crate) const ROOT: NodeId = NodeId::ROOT;
pub(crate) const READ: u32 = 0;
pub(crate) const WRITE: u32 = 1;
pub(crate) const READ_WRITE: u32 = 2;

/// A guest and the share it sees.
pub(crate) struct Guest {
    pub(crate) fs: PassthroughFs,
    pub(crate) caller: Caller,
    pub(crate) negotiated: Negotiated,
    cancel: Cancel,
}

/// A name as it goes to a request.
pub(crate) fn c_name(name: impl AsRef<[u8]>) -> CString {
    CString::new(name.as_ref()).unwrap()
}

fn answer<T>(outcome: Outcome<T>) -> Result<T, Errno> {
    outcome.map_err(|refusal| match refusal {
        Refusal::Errno(errno) => errno,
        Refusal::WouldSleep(_) => panic!("a patient thread was refused"),
    })
}

/// A share as the sandbox would hand it over.
pub(crate) fn shared_root(path: &Path) -> SharedRoot {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let hold = |path: &Path| -> OwnedFd { open(path, flags, Mode::empty()).unwrap() };
    SharedRoot::new(hold(path), hold(Path::new("/proc/self/fd")))
}

impl Guest {
    pub(crate) fn on(path: &Path) -> Self {
        Self::with(path, Options::default())
    }

    pub(crate) fn with(path: &Path, options: Options) -> Self {
        Self::of(PassthroughFs::new(shared_root(path), options).unwrap())
    }

    pub(crate) fn of(fs: PassthroughFs) -> Self {
        // As the session agrees with a guest that offers both forms.
        let flags = fs.wanted() - InitFlags::HANDLE_KILLPRIV;
        Self {
            fs,
            caller: Caller::new(0, 0, 1),
            negotiated: Negotiated {
                minor: Negotiated::NEWEST_MINOR,
                flags,
            },
            cancel: Cancel::default(),
        }
    }

    /// The guest agreed to no more than this.
    pub(crate) fn without(mut self, flags: InitFlags) -> Self {
        self.negotiated.flags.remove(flags);
        self
    }

    /// A share whose descriptors are idle as soon as they were not used between two looks.
    pub(crate) fn forgetful(path: &Path) -> Self {
        let options = Options {
            descriptor_idle: Duration::ZERO,
            ..Options::default()
        };
        Self::with(path, options)
    }

    /// Lets go of every descriptor that is not needed; needs a [`Guest::forgetful`] share.
    ///
    /// Returns how many inodes hold one all the same, the root left out.
    pub(crate) fn cool(&self) -> usize {
        // What was born just now keeps its descriptor: its birth time tells it from nothing yet.
        std::thread::sleep(Duration::from_millis(40));
        while let Some(pause) = self.fs.rest() {
            std::thread::sleep(pause + Duration::from_micros(10));
        }
        self.fs.held_descriptors() - 1
    }

    /// Closes what was forgotten.
    pub(crate) fn cool_a_little(&self) {
        let _ = self.fs.rest();
    }

    pub(crate) fn cx(&self) -> Context<'_> {
        self.cx_of(self.caller)
    }

    pub(crate) fn cx_of(&self, caller: Caller) -> Context<'_> {
        Context {
            unique: Unique::from_raw(2),
            caller,
            negotiated: self.negotiated,
            patience: Patience::Until(&self.cancel),
        }
    }

    pub(crate) fn lookup(&self, parent: NodeId, name: impl AsRef<[u8]>) -> Result<Entry, Errno> {
        let name = c_name(name);
        let name = LookupName::Name(Name::new(&name)?);
        answer(self.fs.lookup(&self.cx(), parent, op::Lookup { name }))
    }

    /// LOOKUP of `.` or `..`.
    pub(crate) fn lookup_dots(&self, node: NodeId, name: LookupName<'_>) -> Result<Entry, Errno> {
        answer(self.fs.lookup(&self.cx(), node, op::Lookup { name }))
    }

    pub(crate) fn getattr(&self, node: NodeId) -> Result<Attributes, Errno> {
        let attr = self.fs.getattr(&self.cx(), node, Getattr { file: None });
        Ok(answer(attr)?.attributes)
    }

    pub(crate) fn setattr(&self, node: NodeId, change: Setattr) -> Result<Attributes, Errno> {
        Ok(answer(self.fs.setattr(&self.cx(), node, change))?.attributes)
    }

    pub(crate) fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; 8192];
        let mut piece = IoVec::default();
        let mut into = PageWriter::new(GuestPages::from_bytes(&mut bytes, &mut piece));
        answer(self.fs.readlink(&self.cx(), node, &mut into))?;
        let len = into.written_bytes();
        bytes.truncate(len);
        Ok(bytes)
    }

    pub(crate) fn create_as(
        &self,
        caller: Caller,
        (parent, name): (NodeId, &str),
        (guest_flags, mode): (u32, u32),
        extras: Extras<'_>,
    ) -> Result<(Entry, Opened), Errno> {
        let name = c_name(name);
        let op = Create {
            name: Name::new(&name)?,
            options: options(guest_flags),
            mode: Permissions::from_wire(mode),
            umask: Permissions::from_wire(0),
            extras,
        };
        answer(self.fs.create(&self.cx_of(caller), parent, op))
    }

    pub(crate) fn create(
        &self,
        parent: NodeId,
        name: &str,
        flags: u32,
    ) -> Result<(Entry, Fh), Errno> {
        let made = self.create_as(
            self.caller,
            (parent, name),
            (flags, 0o644),
            Extras::default(),
        );
        made.map(|(entry, opened)| (entry, opened.handle))
    }

    pub(crate) fn mkdir(&self, parent: NodeId, name: &str) -> Result<Entry, Errno> {
        self.mkdir_as(self.caller, (parent, name), 0o755)
    }

    pub(crate) fn mkdir_as(
        &self,
        caller: Caller,
        (parent, name): (NodeId, &str),
        mode: u32,
    ) -> Result<Entry, Errno> {
        let name = c_name(name);
        let op = op::Mkdir {
            name: Name::new(&name)?,
            mode: Permissions::from_wire(mode),
            umask: Permissions::from_wire(0),
            extras: Extras::default(),
        };
        answer(self.fs.mkdir(&self.cx_of(caller), parent, op))
    }

    pub(crate) fn symlink(
        &self,
        parent: NodeId,
        name: &str,
        target: &[u8],
    ) -> Result<Entry, Errno> {
        let (name, target) = (c_name(name), c_name(target));
        let op = op::Symlink {
            name: Name::new(&name)?,
            target: &target,
            extras: Extras::default(),
        };
        answer(self.fs.symlink(&self.cx(), parent, op))
    }

    pub(crate) fn link(&self, target: NodeId, parent: NodeId, name: &str) -> Result<Entry, Errno> {
        let name = c_name(name);
        let name = Name::new(&name)?;
        answer(self.fs.link(&self.cx(), parent, op::Link { target, name }))
    }

    pub(crate) fn unlink(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let name = c_name(name);
        let name = Name::new(&name)?;
        answer(self.fs.unlink(&self.cx(), parent, op::Unlink { name }))
    }

    pub(crate) fn rmdir(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let name = c_name(name);
        let name = Name::new(&name)?;
        answer(self.fs.rmdir(&self.cx(), parent, op::Rmdir { name }))
    }

    pub(crate) fn rename(
        &self,
        (parent, from): (NodeId, &str),
        (to_parent, to): (NodeId, &str),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let (from, to) = (c_name(from), c_name(to));
        let op = op::Rename {
            from: Name::new(&from)?,
            to_parent,
            to: Name::new(&to)?,
            flags,
        };
        answer(self.fs.rename(&self.cx(), parent, op))
    }

    pub(crate) fn open(&self, node: NodeId, guest_flags: u32) -> Result<Fh, Errno> {
        let options = options(guest_flags);
        let opened = self.fs.open(&self.cx(), node, op::Open { options });
        Ok(answer(opened)?.handle)
    }

    pub(crate) fn release(&self, node: NodeId, file: Fh) -> Result<(), Errno> {
        let owner = LockOwner(0);
        answer(
            self.fs
                .release(&self.cx(), node, op::Release { file, owner }),
        )
    }

    pub(crate) fn read(
        &self,
        node: NodeId,
        file: Fh,
        at: u64,
        size_bytes: usize,
    ) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; size_bytes];
        let mut piece = IoVec::default();
        let op = op::Read {
            file,
            offset: offset(at),
            size_bytes,
        };
        let into = GuestPages::from_bytes(&mut bytes, &mut piece);
        let len = answer(self.fs.read(&self.cx(), node, op, into))?;
        bytes.truncate(len);
        Ok(bytes)
    }

    pub(crate) fn flush(&self, node: NodeId, file: Fh) -> Result<(), Errno> {
        let owner = LockOwner(0);
        answer(self.fs.flush(&self.cx(), node, op::Flush { file, owner }))
    }

    /// A READ on a queue's thread: `None` where it would sleep.
    pub(crate) fn read_at_once(
        &self,
        (node, file): (NodeId, Fh),
        at: u64,
        size_bytes: usize,
    ) -> Option<Vec<u8>> {
        let mut bytes = vec![0; size_bytes];
        let mut piece = IoVec::default();
        let op = op::Read {
            file,
            offset: offset(at),
            size_bytes,
        };
        let into = GuestPages::from_bytes(&mut bytes, &mut piece);
        let cx = Context {
            patience: Patience::Never,
            ..self.cx()
        };
        match self.fs.read(&cx, node, op, into) {
            Ok(len) => {
                bytes.truncate(len);
                Some(bytes)
            }
            Err(Refusal::WouldSleep(_)) => None,
            Err(Refusal::Errno(errno)) => panic!("{errno}"),
        }
    }

    pub(crate) fn write(
        &self,
        node: NodeId,
        file: Fh,
        at: u64,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        self.write_with((node, file), at, bytes, KillPrivileges::No)
    }

    pub(crate) fn write_with(
        &self,
        open: (NodeId, Fh),
        at: u64,
        bytes: &[u8],
        kill_privileges: KillPrivileges,
    ) -> Result<usize, Errno> {
        self.write_from(open, at, bytes, (WriteOrigin::Caller, kill_privileges))
    }

    /// Writes what the guest's page cache holds.
    pub(crate) fn write_of_the_cache(
        &self,
        open: (NodeId, Fh),
        at: u64,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        let how = (WriteOrigin::PageCache, KillPrivileges::No);
        self.write_from(open, at, bytes, how)
    }

    fn write_from(
        &self,
        (node, file): (NodeId, Fh),
        at: u64,
        bytes: &[u8],
        (origin, kill_privileges): (WriteOrigin, KillPrivileges),
    ) -> Result<usize, Errno> {
        let mut bytes = bytes.to_vec();
        let mut piece = IoVec::default();
        let op = op::Write {
            file,
            offset: offset(at),
            size_bytes: bytes.len(),
            origin,
            kill_privileges,
        };
        let from = GuestPages::from_bytes(&mut bytes, &mut piece);
        answer(self.fs.write(&self.cx(), node, op, from))
    }

    /// What an open file holds from its start.
    pub(crate) fn contents(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        let file = self.open(node, READ)?;
        let bytes = self.read(node, file, 0, 1 << 16);
        self.release(node, file)?;
        bytes
    }

    pub(crate) fn opendir(&self, node: NodeId) -> Result<Fh, Errno> {
        let op = op::Opendir { guest_flags: 0 };
        Ok(answer(self.fs.opendir(&self.cx(), node, op))?.handle)
    }

    /// One READDIR of a reply buffer's size; the bytes of the reply.
    pub(crate) fn readdir_bytes(
        &self,
        (node, directory): (NodeId, Fh),
        from: u64,
        size_bytes: usize,
        kind: listing::Kind,
    ) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; size_bytes];
        let mut piece = IoVec::default();
        let pages = GuestPages::from_bytes(&mut bytes, &mut piece);
        let mut reply = ReplySpace::new(GuestPages::none(), pages);
        let mut into: DirEntries<'_> = reply.entries(size_bytes);
        let op = op::Readdir {
            directory,
            offset: DirOffset(from),
            size_bytes,
        };
        answer(match kind {
            listing::Kind::Names => self.fs.readdir(&self.cx(), node, op, &mut into),
            listing::Kind::LookedUp => self.fs.readdirplus(&self.cx(), node, op, &mut into),
        })?;
        Ok(bytes)
    }

    pub(crate) fn syncfs(&self, node: NodeId) -> Result<(), Errno> {
        answer(self.fs.syncfs(&self.cx(), node))
    }

    pub(crate) fn fsync(
        &self,
        node: NodeId,
        file: Fh,
        durability: Durability,
    ) -> Result<(), Errno> {
        let op = op::Fsync { file, durability };
        answer(self.fs.fsync(&self.cx(), node, op))
    }

    pub(crate) fn fsyncdir(&self, node: NodeId, file: Fh) -> Result<(), Errno> {
        let durability = Durability::Full;
        let op = op::Fsync { file, durability };
        answer(self.fs.fsyncdir(&self.cx(), node, op))
    }

    pub(crate) fn statfs(&self, node: NodeId) -> Result<Statistics, Errno> {
        answer(self.fs.statfs(&self.cx(), node))
    }

    pub(crate) fn fallocate(
        &self,
        (node, file): (NodeId, Fh),
        (at, length): (u64, u64),
        mode: FallocateMode,
    ) -> Result<(), Errno> {
        let (offset, length) = (offset(at), offset(length));
        let op = op::Fallocate {
            file,
            offset,
            length,
            mode,
        };
        answer(self.fs.fallocate(&self.cx(), node, op))
    }

    pub(crate) fn lseek(
        &self,
        (node, file): (NodeId, Fh),
        at: u64,
        whence: op::Whence,
    ) -> Result<u64, Errno> {
        let offset = offset(at);
        let op = op::Lseek {
            file,
            offset,
            whence,
        };
        answer(self.fs.lseek(&self.cx(), node, op))
    }

    pub(crate) fn copy(
        &self,
        (node, from, from_at): (NodeId, Fh, u64),
        (to_node, to, to_at): (NodeId, Fh, u64),
        len_bytes: u64,
    ) -> Result<u64, Errno> {
        let op = op::CopyFileRange {
            from,
            from_offset: offset(from_at),
            to_node,
            to,
            to_offset: offset(to_at),
            len_bytes,
        };
        answer(self.fs.copy_file_range(&self.cx(), node, op))
    }

    pub(crate) fn forget(&self, node: NodeId, count: u64) {
        self.fs.forget(node, count);
    }
}

pub(crate) fn options(guest_flags: u32) -> OpenOptions {
    OpenOptions {
        guest_flags,
        kill_privileges: KillPrivileges::No,
    }
}

pub(crate) fn offset(at: u64) -> FileOffset {
    FileOffset::new(at).unwrap()
}

/// Permission bits on the host.
pub(crate) fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::RWXU;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}
