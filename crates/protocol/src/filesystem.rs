//! What a file system has to do: the seam between requests and the host.
//!
//! An implementation knows no queue, no pool and no thread. It may be called from many threads at
//! once. Methods that it does not have answer ENOSYS, which tells the guest not to ask again.

use std::time::Duration;

use rustix::io::Errno;

use crate::attributes::{Attr, Entry, ExtendedAttr, Statistics};
use crate::cancel::{Cancel, HangUp};
use crate::flags::{FopenFlags, InitFlags};
use crate::ids::{Caller, Fh, NodeId, Unique};
use crate::negotiated::Negotiated;
use crate::op;
use crate::pages::{GuestPages, PageWriter, Readable, Writable};
use crate::reply::DirEntries;

/// Whether the thread that serves a request may sleep for it.
#[derive(Clone, Copy, Debug)]
pub enum Patience<'a> {
    /// A queue's thread: what would sleep is refused with [`Refusal::WouldSleep`] before any side effect.
    Never,
    /// A pool's thread: sleeps until done or cancelled.
    Until(&'a Cancel),
}

/// Which threads a request waits on, so that waiting for a lock never starves the I/O that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Work of the store: slow reads, fsync, anything on a slow mount.
    Store,
    /// Waiting for locks.
    Lock,
}

/// Why an operation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It failed; the guest is told.
    Errno(Errno),
    /// It would sleep. Only under [`Patience::Never`], and only before a side effect: the request
    /// is served again from the same bytes on a thread of this lane.
    WouldSleep(Lane),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What a request brings besides its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The request's number.
    pub unique: Unique,
    /// Who asks.
    pub caller: Caller,
    /// What was agreed on in INIT.
    pub negotiated: Negotiated,
    /// Whether this thread may sleep.
    pub patience: Patience<'a>,
}

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How the guest names it from now on.
    pub handle: Fh,
    /// How the guest treats it.
    pub flags: FopenFlags,
}

/// Result of an operation.
pub type Outcome<T> = Result<T, Refusal>;

/// Answers that an operation which is not there.
fn not_there<T>() -> Outcome<T> {
    Err(Refusal::Errno(Errno::NOSYS))
}

/// A file system that a [`Session`](crate::Session) serves.
///
/// Every [`Entry`] in a reply has raised its node's lookup count before it is returned; `forget`
/// lowers it. Errors are the host kernel's, unless a method says otherwise; ESTALE says that a
/// node cannot be reached any more, EBADF that no such handle is open.
pub trait Filesystem: Send + Sync {
    /// What this file system wants to agree on with a guest that offers it.
    fn wanted(&self) -> InitFlags;

    /// A session begins: only the root is known from here on.
    ///
    /// # Errors
    ///
    /// Answered to INIT when the operator insists on what the guest does not offer.
    fn begin(&self, negotiated: Negotiated) -> Result<(), Errno>;

    /// The session is over: every node but the root, every open file and lock is dropped.
    ///
    /// A request that is still inside a call keeps what it uses.
    fn end(&self, why: HangUp);

    /// A queue's thread has answered all there was: what was put off may be done before it sleeps.
    ///
    /// Returns how long it may sleep at most before this is called again; `None` is as long as it likes.
    fn rest(&self) -> Option<Duration> {
        None
    }

    /// Finds a name; raises the lookup count of what it finds.
    fn lookup(&self, cx: &Context<'_>, parent: NodeId, op: op::Lookup<'_>) -> Outcome<Entry>;

    /// Lowers a lookup count by `count`, at most to zero. Unknown nodes are ignored.
    fn forget(&self, node: NodeId, count: u64);

    /// Looks at a node.
    fn getattr(&self, cx: &Context<'_>, node: NodeId, op: op::Getattr) -> Outcome<Attr>;

    /// Looks at a node, its birth included.
    fn statx(&self, _cx: &Context<'_>, _node: NodeId, _op: op::Statx) -> Outcome<ExtendedAttr> {
        not_there()
    }

    /// Carries out a command of the list; returns its output, at most `op.output_bytes` long. ENOTTY for others.
    fn ioctl(&self, _cx: &Context<'_>, _node: NodeId, _op: op::Ioctl<'_>) -> Outcome<Vec<u8>> {
        not_there()
    }

    /// Changes attributes; all or, where one fails, those before it in the order owner, mode, size, times.
    fn setattr(&self, cx: &Context<'_>, node: NodeId, op: op::Setattr) -> Outcome<Attr>;

    /// Writes a symlink's target into `into`.
    fn readlink(&self, cx: &Context<'_>, node: NodeId, into: &mut PageWriter<'_>) -> Outcome<()>;

    /// Makes a symlink.
    fn symlink(&self, cx: &Context<'_>, parent: NodeId, op: op::Symlink<'_>) -> Outcome<Entry>;

    /// Makes a file that is neither directory nor symlink.
    fn mknod(&self, cx: &Context<'_>, parent: NodeId, op: op::Mknod<'_>) -> Outcome<Entry>;

    /// Makes a directory.
    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, op: op::Mkdir<'_>) -> Outcome<Entry>;

    /// Makes a regular file, or finds one where the options are not exclusive, and opens it.
    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: op::Create<'_>,
    ) -> Outcome<(Entry, Opened)>;

    /// Makes a file without a name and opens it.
    fn tmpfile(
        &self,
        _cx: &Context<'_>,
        _parent: NodeId,
        _op: op::Tmpfile<'_>,
    ) -> Outcome<(Entry, Opened)> {
        not_there()
    }

    /// Gives a file one more name.
    fn link(&self, cx: &Context<'_>, parent: NodeId, op: op::Link<'_>) -> Outcome<Entry>;

    /// Removes a name that is no directory's.
    fn unlink(&self, cx: &Context<'_>, parent: NodeId, op: op::Unlink<'_>) -> Outcome<()>;

    /// Removes an empty directory.
    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, op: op::Rmdir<'_>) -> Outcome<()>;

    /// Moves a name.
    fn rename(&self, cx: &Context<'_>, parent: NodeId, op: op::Rename<'_>) -> Outcome<()>;

    /// Opens a regular file.
    fn open(&self, cx: &Context<'_>, node: NodeId, op: op::Open) -> Outcome<Opened>;

    /// Reads into the guest's pages, which are at most `op.size_bytes` long; returns the bytes read.
    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Read,
        into: GuestPages<'_, Writable>,
    ) -> Outcome<usize>;

    /// Writes the guest's pages, which are exactly `op.size_bytes` long; returns the bytes written.
    fn write(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Write,
        from: GuestPages<'_, Readable>,
    ) -> Outcome<usize>;

    /// A descriptor was closed in the guest.
    fn flush(&self, cx: &Context<'_>, node: NodeId, op: op::Flush) -> Outcome<()>;

    /// Puts a file on the disk.
    fn fsync(&self, cx: &Context<'_>, node: NodeId, op: op::Fsync) -> Outcome<()>;

    /// Closes a file.
    fn release(&self, cx: &Context<'_>, node: NodeId, op: op::Release) -> Outcome<()>;

    /// Opens a directory.
    fn opendir(&self, cx: &Context<'_>, node: NodeId, op: op::Opendir) -> Outcome<Opened>;

    /// Lists a directory into `into`; nothing added means its end.
    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()>;

    /// Lists a directory and looks each name up, but for `.` and `..`.
    ///
    /// Each entry that went in raised its lookup count; one that did not fit, did not.
    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()>;

    /// Puts a directory on the disk.
    fn fsyncdir(&self, cx: &Context<'_>, node: NodeId, op: op::Fsync) -> Outcome<()>;

    /// Closes a directory.
    fn releasedir(&self, cx: &Context<'_>, node: NodeId, op: op::Releasedir) -> Outcome<()>;

    /// Looks at the file system that holds a node.
    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<Statistics>;

    /// Puts the whole file system on the disk.
    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<()>;

    /// Allocates or frees blocks.
    fn fallocate(&self, cx: &Context<'_>, node: NodeId, op: op::Fallocate) -> Outcome<()>;

    /// Finds data or holes; returns the position.
    fn lseek(&self, cx: &Context<'_>, node: NodeId, op: op::Lseek) -> Outcome<u64>;

    /// Copies between files; returns the bytes copied.
    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::CopyFileRange,
    ) -> Outcome<u64>;

    /// Finds a lock that would be in the way of this one; `None` when it would be granted.
    fn getlk(
        &self,
        _cx: &Context<'_>,
        _node: NodeId,
        _op: op::Lock,
    ) -> Outcome<Option<op::HeldLock>> {
        not_there()
    }

    /// Takes or gives back a lock; EAGAIN when another owner's is in the way.
    fn setlk(&self, _cx: &Context<'_>, _node: NodeId, _op: op::Lock) -> Outcome<()> {
        not_there()
    }

    /// As [`setlk`](Self::setlk), but waits, on [`Lane::Lock`] only; [`Cancel::lock_refusal`] once it was given up.
    fn setlkw(&self, _cx: &Context<'_>, _node: NodeId, _op: op::Lock) -> Outcome<()> {
        not_there()
    }

    /// Some of the waits for locks were given up: each has to look at its [`Cancel`].
    fn look_again(&self) {}

    /// Sets an extended attribute.
    fn setxattr(&self, _cx: &Context<'_>, _node: NodeId, _op: op::Setxattr<'_>) -> Outcome<()> {
        not_there()
    }

    /// Writes an extended attribute's value into `into`, or returns its length when no room is asked for.
    fn getxattr(
        &self,
        _cx: &Context<'_>,
        _node: NodeId,
        _op: op::Getxattr<'_>,
        _into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        not_there()
    }

    /// Writes the names of all extended attributes into `into`, or returns their length when no room is asked for.
    fn listxattr(
        &self,
        _cx: &Context<'_>,
        _node: NodeId,
        _op: op::Listxattr,
        _into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        not_there()
    }

    /// Removes an extended attribute.
    fn removexattr(
        &self,
        _cx: &Context<'_>,
        _node: NodeId,
        _op: op::Removexattr<'_>,
    ) -> Outcome<()> {
        not_there()
    }
}
