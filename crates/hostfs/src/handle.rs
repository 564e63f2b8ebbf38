//! Open files and directories, by the number the guest was given.

pub(crate) mod cursor;

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use virtiofs_protocol::{Errno, Fh, NodeId};

use crate::locks::flock::Flock;
use crate::mounts::Mount;
use crate::slab::{Row, Slab, Used};
use cursor::Cursor;

/// How writes to an open file find their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Where the request says.
    Offset,
    /// At the end of the file, wherever that is when the write happens (`O_APPEND`).
    Append,
}

/// What becomes of an open file when the guest closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It is closed.
    Closed,
    /// It rests: the next OPEN of this kind finds it open.
    Rests,
}

/// What the guest may do with an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Reads,
    Writes,
    Both,
}

impl Access {
    /// As the flags of OPEN say.
    pub(crate) fn of(guest_flags: u32) -> Self {
        match OFlags::from_bits_retain(guest_flags) & OFlags::RWMODE {
            OFlags::RDONLY => Self::Reads,
            OFlags::WRONLY => Self::Writes,
            _ => Self::Both,
        }
    }
}

/// An open regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) node: NodeId,
    pub(crate) descriptor: OwnedFd,
    pub(crate) mount: Arc<Mount>,
    pub(crate) placement: Placement,
    pub(crate) access: Access,
    pub(crate) afterwards: Afterwards,
    /// Where `flock(2)` locks are taken on the host.
    pub(crate) flock: Option<Box<Flock>>,
}

// With its counts and its slot an open file takes 64 bytes; what few need stands elsewhere.
const _: () = assert!(size_of::<Row<Handle>>() <= 40);

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) node: NodeId,
    pub(crate) descriptor: OwnedFd,
    pub(crate) cursor: Box<Mutex<Cursor>>,
}

/// What a handle stands for.
#[derive(Debug)]
pub(crate) enum Handle {
    File(OpenFile),
    Directory(OpenDirectory),
}

/// Something open, for the time of a request.
#[derive(Debug)]
enum InUse {
    /// The guest has opened it.
    Kept(Used<Handle>),
    /// The guest opens nothing: it closes with the request.
    ForNow(Box<Handle>),
}

impl Deref for InUse {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        match self {
            Self::Kept(row) => &row.value,
            Self::ForNow(handle) => handle,
        }
    }
}

/// A handle that is in use.
#[derive(Debug)]
pub(crate) struct FileRef(InUse);

/// A directory's handle that is in use.
#[derive(Debug)]
pub(crate) struct DirectoryRef(InUse);

impl From<OpenFile> for FileRef {
    fn from(file: OpenFile) -> Self {
        Self(InUse::ForNow(Box::new(Handle::File(file))))
    }
}

impl From<OpenDirectory> for DirectoryRef {
    fn from(directory: OpenDirectory) -> Self {
        Self(InUse::ForNow(Box::new(Handle::Directory(directory))))
    }
}

impl FileRef {
    pub(crate) fn file(&self) -> Result<&OpenFile, Errno> {
        match &*self.0 {
            Handle::File(file) => Ok(file),
            Handle::Directory(_) => Err(Errno::BADF),
        }
    }
}

impl DirectoryRef {
    pub(crate) fn directory(&self) -> Result<&OpenDirectory, Errno> {
        match &*self.0 {
            Handle::Directory(directory) => Ok(directory),
            Handle::File(_) => Err(Errno::BADF),
        }
    }
}

/// A handle of either kind that is in use.
#[derive(Debug)]
pub(crate) struct HandleRef(InUse);

impl HandleRef {
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<FileRef> for HandleRef {
    fn from(file: FileRef) -> Self {
        Self(file.0)
    }
}

impl From<DirectoryRef> for HandleRef {
    fn from(directory: DirectoryRef) -> Self {
        Self(directory.0)
    }
}

/// All handles.
#[derive(Debug)]
pub(crate) struct Handles(Slab<Handle>);

impl Handles {
    pub(crate) fn new() -> Self {
        Self(Slab::new())
    }

    /// Gives a number to something open.
    ///
    /// # Errors
    ///
    /// ENFILE when 2^32 are open.
    pub(crate) fn insert(&self, handle: Handle) -> Result<Fh, Errno> {
        self.0
            .insert(handle)
            .map(|row| Fh::from_raw(row.number))
            .ok_or(Errno::NFILE)
    }

    /// Finds an open file.
    ///
    /// # Errors
    ///
    /// EBADF when no file of this number is open.
    pub(crate) fn file(&self, handle: Fh) -> Result<FileRef, Errno> {
        self.using(handle).map(FileRef)
    }

    /// Finds an open directory.
    ///
    /// # Errors
    ///
    /// EBADF when no directory of this number is open.
    pub(crate) fn directory(&self, handle: Fh) -> Result<DirectoryRef, Errno> {
        self.using(handle).map(DirectoryRef)
    }

    /// Finds what is open, a file or a directory.
    ///
    /// # Errors
    ///
    /// EBADF when nothing of this number is open.
    pub(crate) fn any(&self, handle: Fh) -> Result<HandleRef, Errno> {
        self.using(handle).map(HandleRef)
    }

    fn using(&self, handle: Fh) -> Result<InUse, Errno> {
        let row = self.0.using(handle.raw());
        row.map(InUse::Kept).ok_or(Errno::BADF)
    }

    /// Gives a number back; the descriptor closes when its last request is done.
    ///
    /// # Errors
    ///
    /// EBADF when nothing of this number is open.
    pub(crate) fn remove(&self, handle: Fh) -> Result<Arc<Row<Handle>>, Errno> {
        self.0.remove(handle.raw()).ok_or(Errno::BADF)
    }

    /// Something open that is this node's. Looks at all: for a node that was lost otherwise.
    pub(crate) fn any_of(&self, node: NodeId) -> Option<Arc<Row<Handle>>> {
        self.0.find(|handle| handle.node() == node)
    }

    /// Gives all numbers back, and all locks.
    pub(crate) fn clear(&self) {
        for row in self.0.clear_except(0) {
            if let Handle::File(file) = &row.value {
                file.release_flock();
            }
        }
    }
}

impl OpenFile {
    /// Its lock of `flock(2)`.
    ///
    /// # Errors
    ///
    /// ENOSYS where these are the guest's own affair: then it does not ask.
    pub(crate) fn flock(&self) -> Result<&Flock, Errno> {
        self.flock.as_deref().ok_or(Errno::NOSYS)
    }

    /// Gives the lock back, if it has one.
    pub(crate) fn release_flock(&self) {
        if let Some(lock) = &self.flock {
            lock.release(self.as_fd());
        }
    }
}

impl Handle {
    fn node(&self) -> NodeId {
        match self {
            Self::File(file) => file.node,
            Self::Directory(directory) => directory.node,
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Directory(directory) => directory.descriptor.as_fd(),
        }
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
