//! OPEN, READ, WRITE, FLUSH and RELEASE.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl};
use virtiofs_protocol::op::{Flush, Open, OpenOptions, Read, Release, Write, WriteOrigin};
use virtiofs_protocol::{
    Context, Errno, FileOffset, FopenFlags, GuestPages, InitFlags, Lane, NodeId, Opened, Outcome,
    Patience, Readable, Refusal, Writable,
};

use crate::PassthroughFs;
use crate::handle::{Access, Afterwards, Handle, OpenFile, Placement};
use crate::inode::Node;
use crate::inode::key::Identity;
use crate::ops::openless::{NOT_OPENED, does_without_opens};
use crate::ops::{may_take_long, privileges};
use crate::options::{DirectIo, NoAtime, RemoteLocks};
use crate::sys;
use crate::sys::raw::{IOV_MAX, RWF_APPEND, RWF_NOWAIT, RwFlags, preadv2, pwritev2};

/// Bytes of a page of a file: where one begins, a short read may be the page cache's doing.
const PAGE_BYTES: u64 = 4096;

impl PassthroughFs {
    pub(crate) fn op_open(&self, cx: &Context<'_>, node: NodeId, op: Open) -> Outcome<Opened> {
        let node = self.node(cx, node)?;
        if does_without_opens(cx) {
            is_regular(&node)?;
            return Err(Refusal::Errno(Errno::NOSYS));
        }
        self.open_node(cx, &node, op.options)
    }

    pub(crate) fn open_node(
        &self,
        cx: &Context<'_>,
        node: &Node,
        options: OpenOptions,
    ) -> Outcome<Opened> {
        is_regular(node)?;
        let flags = self.host_flags(cx, options.guest_flags);
        let afterwards = self.afterwards(node, flags, options.guest_flags);
        let rested = (afterwards == Afterwards::Rests)
            .then(|| self.resting.wake(NodeId::from_raw(node.number)));
        if let Some(file) = rested.flatten() {
            return Ok(self.opened(cx, node, (file, afterwards), options.guest_flags)?);
        }
        let held = self.descriptor(node)?;
        let _without_privileges = if flags.contains(OFlags::TRUNC) {
            self.drop_renamed_capability(cx, &held)?;
            privileges::dropped_as_asked(self.service, cx, options.kill_privileges)?
        } else {
            None
        };
        let file = match self.open_again(node, held.as_fd(), flags) {
            // A file that may only grow (`chattr +a`) is opened for appending or not at all.
            Err(Errno::PERM) if placement(cx, options.guest_flags) == Placement::Append => {
                self.open_again(node, held.as_fd(), flags | OFlags::APPEND)
            }
            first => first,
        }?;
        Ok(self.opened(cx, node, (file, afterwards), options.guest_flags)?)
    }

    /// Whether a file that is opened like this may rest when it is closed, and one that rests be had for it.
    ///
    /// Only what reads, because what may write keeps the host from running a program; only where the
    /// file is the same for every open, as it is not on overlayfs after a copy-up; and only what
    /// differs in nothing from any other that was opened like this.
    fn afterwards(&self, node: &Node, flags: OFlags, guest_flags: u32) -> Afterwards {
        let mount = &node.value.mount;
        let atime = OFlags::from_bits_retain(guest_flags).contains(OFlags::NOATIME)
            && self.options.no_atime == NoAtime::PassedOn;
        let alike = flags == OFlags::RDONLY && !atime && self.options.flocks == RemoteLocks::Off;
        if alike && mount.identity == Identity::Birth && !mount.slow {
            Afterwards::Rests
        } else {
            Afterwards::Closed
        }
    }

    /// The flags that reach the host, of those the guest sent.
    ///
    /// `O_APPEND` does not, unless the host insists: Linux would ignore the offset of every write, those of the guest's page
    /// cache included (man 2 pwrite, BUGS). Each write says itself whether it appends.
    pub(crate) fn host_flags(&self, cx: &Context<'_>, guest_flags: u32) -> OFlags {
        let guest = OFlags::from_bits_retain(guest_flags);
        let mut allowed = OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC;
        if self.options.direct_io == DirectIo::PassedOn {
            allowed |= OFlags::DIRECT;
        }
        let writeback = cx.negotiated.flags.contains(InitFlags::WRITEBACK_CACHE);
        let access = match guest & OFlags::RWMODE {
            // The guest's page cache reads around what it writes.
            OFlags::WRONLY if writeback => OFlags::RDWR,
            access => access,
        };
        access | (guest & allowed)
    }

    /// Gives an open file a number.
    pub(crate) fn opened(
        &self,
        cx: &Context<'_>,
        node: &Node,
        (descriptor, afterwards): (OwnedFd, Afterwards),
        guest_flags: u32,
    ) -> Result<Opened, Errno> {
        self.leave_atime_alone(descriptor.as_fd(), guest_flags);
        let file = OpenFile {
            node: NodeId::from_raw(node.number),
            descriptor,
            mount: Arc::clone(&node.value.mount),
            placement: placement(cx, guest_flags),
            access: Access::of(guest_flags),
            afterwards,
            flock: (self.options.flocks == RemoteLocks::On).then(Box::default),
        };
        let handle = self.handles.insert(Handle::File(file))?;
        let mut flags = self.options.cache.file_flags();
        if flags.contains(FopenFlags::DIRECT_IO) {
            flags |= FopenFlags::PARALLEL_DIRECT_WRITES;
        }
        if closes_silently(cx, node, guest_flags) {
            flags |= FopenFlags::NOFLUSH;
        }
        Ok(Opened { handle, flags })
    }

    /// Asks the host to leave the time of access alone, where guest and operator want that.
    ///
    /// After opening, because the host lets only the owner and CAP_FOWNER ask for it: a daemon that
    /// may not (EPERM) has opened the file all the same, and its time of access is kept as for
    /// everybody. The guest's own kernel has asked whether its caller is the owner.
    pub(crate) fn leave_atime_alone(&self, open: BorrowedFd<'_>, guest_flags: u32) {
        let asked = OFlags::from_bits_retain(guest_flags).contains(OFlags::NOATIME);
        if !asked || self.options.no_atime == NoAtime::Ignored {
            return;
        }
        let set = fcntl_getfl(open).and_then(|flags| fcntl_setfl(open, flags | OFlags::NOATIME));
        if let Err(errno) = set {
            tracing::debug!("times of access are kept: the host refuses O_NOATIME: {errno}");
        }
    }

    pub(crate) fn op_read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Read,
        into: GuestPages<'_, Writable>,
    ) -> Outcome<usize> {
        let file = self.file_of(cx, node, op.file)?;
        let file = file.file()?;
        may_take_long(cx, &file.mount)?;
        match cx.patience {
            Patience::Never if file.mount.takes_nowait() => read_nowait(file, op, &into),
            Patience::Never | Patience::Until(_) => Ok(read_whole(file, op, &into)?),
        }
    }

    pub(crate) fn op_write(
        &self,
        cx: &Context<'_>,
        op: Write,
        from: GuestPages<'_, Readable>,
    ) -> Outcome<usize> {
        let file = self.handles.file(op.file)?;
        let file = file.file()?;
        may_take_long(cx, &file.mount)?;
        let flags = match (file.placement, op.origin) {
            (Placement::Append, WriteOrigin::Caller) => RWF_APPEND,
            // The host would append what has a place of its own, where the file may only grow.
            (Placement::Append, WriteOrigin::PageCache)
                if fcntl_getfl(file)?.contains(OFlags::APPEND) =>
            {
                return Err(Refusal::Errno(Errno::PERM));
            }
            (Placement::Append, WriteOrigin::PageCache) | (Placement::Offset, _) => 0,
        };
        self.drop_renamed_capability(cx, file)?;
        let _without_privileges =
            privileges::dropped_as_asked(self.service, cx, op.kill_privileges)?;
        let written = in_turns(op.size_bytes, from.iovecs().len(), 0, |done| {
            pwritev2(file.as_fd(), &from, done, behind(op.offset, done)?, flags)
        });
        match written {
            // What was taken is taken; the next request meets the error again.
            Err(Stopped { done, .. }) if done > 0 => Ok(done),
            Err(Stopped { errno, .. }) => Err(Refusal::Errno(errno)),
            Ok(done) => Ok(done),
        }
    }

    pub(crate) fn op_flush(&self, cx: &Context<'_>, op: Flush) -> Outcome<()> {
        if op.file == NOT_OPENED && does_without_opens(cx) {
            // Nothing was written and nothing locked: a guest asks no more.
            return Err(Refusal::Errno(Errno::NOSYS));
        }
        let file = self.handles.file(op.file)?;
        let file = file.file()?;
        may_take_long(cx, &file.mount)?;
        self.locks.flush(file.node, op.owner);
        if file.mount.slow {
            // Stores that report errors at close do so for each descriptor that is closed.
            sys::raw::close(self.retried(|| rustix::io::fcntl_dupfd_cloexec(file, 0))?)?;
        }
        Ok(())
    }

    pub(crate) fn op_release(&self, op: Release) -> Outcome<()> {
        let row = self.handles.remove(op.file)?;
        if let Handle::File(file) = &row.value {
            self.locks.release(file.node, op.file);
            file.release_flock();
        }
        // Where a request still uses it, it closes with that request.
        if let Some(Handle::File(file)) = Arc::into_inner(row).map(|row| row.value)
            && file.afterwards == Afterwards::Rests
        {
            self.resting.lay(file.node, file.descriptor);
        }
        Ok(())
    }
}

/// Refuses to open anything but a regular file.
pub(crate) fn is_regular(node: &Node) -> Result<(), Errno> {
    match node.value.kind {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink => Err(Errno::LOOP),
        // The guest's own kernel serves FIFOs, sockets and devices; here they might block or act.
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::NXIO),
    }
}

/// How the guest's writes find their place.
fn placement(cx: &Context<'_>, guest_flags: u32) -> Placement {
    let appends = OFlags::from_bits_retain(guest_flags).contains(OFlags::APPEND);
    // With a write-back cache the guest knows the size, and its offsets are exact.
    let writeback = cx.negotiated.flags.contains(InitFlags::WRITEBACK_CACHE);
    if appends && !writeback {
        Placement::Append
    } else {
        Placement::Offset
    }
}

/// Whether closing the file needs no FLUSH.
///
/// Not after a write, whose errors it tells. Not where locks are held here, which nothing else
/// gives back when a file is closed. Not on a store that has more to say at a close.
fn closes_silently(cx: &Context<'_>, node: &Node, guest_flags: u32) -> bool {
    let reads_only = OFlags::from_bits_retain(guest_flags) & OFlags::RWMODE == OFlags::RDONLY;
    let locks_here = cx.negotiated.flags.contains(InitFlags::POSIX_LOCKS);
    reads_only && !locks_here && !node.value.mount.slow
}

/// Reads what is there without sleeping; what is not there is read by a thread that may sleep.
fn read_nowait(file: &OpenFile, op: Read, into: &GuestPages<'_, Writable>) -> Outcome<usize> {
    let read = to_the_end(op.offset, into.len_bytes(), |skip| {
        read_from(file, op, into, skip, RWF_NOWAIT)
    });
    match read {
        Err(Errno::AGAIN) => Err(Refusal::WouldSleep(Lane::Store)),
        Err(Errno::OPNOTSUPP) => {
            file.mount.forgo_nowait();
            Ok(read_whole(file, op, into)?)
        }
        read => Ok(read?),
    }
}

/// Reads all that there is, however long it takes.
fn read_whole(file: &OpenFile, op: Read, into: &GuestPages<'_, Writable>) -> Result<usize, Errno> {
    to_the_end(op.offset, into.len_bytes(), |skip| {
        read_from(file, op, into, skip, 0)
    })
}

/// Repeats a read that was cut short until it is whole, at the end of the file, or an error.
///
/// A short read that ends where a page does is at the end of the file, or before a page that is not
/// in memory and may not be waited for, or before one that cannot be read. A short answer to either of
/// the latter would tell the guest that the file ends there: only nothing at all is the end.
fn to_the_end(
    offset: FileOffset,
    wanted: usize,
    mut read: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let inside_page = |done| {
        !u64::try_from(done).is_ok_and(|done| (offset.get_u64() + done).is_multiple_of(PAGE_BYTES))
    };
    let mut done = 0;
    loop {
        let reached = read(done)?;
        if reached == wanted || reached == done || inside_page(reached) {
            return Ok(reached);
        }
        done = reached;
    }
}

/// Reads what lies behind the first `skip` bytes of the request; returns the bytes with these.
fn read_from(
    file: &OpenFile,
    op: Read,
    into: &GuestPages<'_, Writable>,
    skip: usize,
    flags: RwFlags,
) -> Result<usize, Errno> {
    let read = in_turns(into.len_bytes(), into.iovecs().len(), skip, |done| {
        preadv2(file.as_fd(), into, done, behind(op.offset, done)?, flags)
    });
    read.map_err(|stopped| stopped.errno)
}

/// An error in the middle of something that takes several calls.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    /// Bytes that were moved before.
    done: usize,
    errno: Errno,
}

/// Repeats a call that takes at most [`IOV_MAX`] pieces until all is done or it comes to an end.
fn in_turns(
    wanted: usize,
    pieces: usize,
    skip: usize,
    mut call: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<usize, Stopped> {
    let mut done = skip;
    loop {
        let moved = call(done).map_err(|errno| Stopped { done, errno })?;
        done += moved;
        if moved == 0 || done >= wanted || pieces <= IOV_MAX {
            return Ok(done);
        }
    }
}

/// The position `bytes` behind an offset; EINVAL beyond the largest one, as pread(2) answers.
fn behind(offset: FileOffset, bytes: usize) -> Result<FileOffset, Errno> {
    let bytes = u64::try_from(bytes).map_err(|_| Errno::INVAL)?;
    FileOffset::new(offset.get_u64() + bytes).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row: where a read begins, what its calls come to, and what that makes of it.
    #[test]
    fn a_read_is_whole_or_ends_where_the_file_does_or_is_an_error() {
        type Row<'a> = (u64, &'a [Result<usize, Errno>], Result<usize, Errno>);
        const WANTED: usize = 3 * 4096;
        let rows: &[Row<'_>] = &[
            (0, &[Ok(WANTED)], Ok(WANTED)),
            (0, &[Ok(0)], Ok(0)),
            // Inside a page is the end.
            (0, &[Ok(5000)], Ok(5000)),
            (100, &[Ok(4096)], Ok(4096)),
            // Where a page ends it may be, if there is nothing more.
            (0, &[Ok(4096), Ok(4096)], Ok(4096)),
            (100, &[Ok(3996), Ok(3996)], Ok(3996)),
            (0, &[Ok(4096), Ok(8192), Ok(WANTED)], Ok(WANTED)),
            (0, &[Ok(4096), Ok(6000)], Ok(6000)),
            // Or the next page cannot be read.
            (0, &[Ok(4096), Err(Errno::IO)], Err(Errno::IO)),
            (0, &[Ok(4096), Err(Errno::AGAIN)], Err(Errno::AGAIN)),
            (0, &[Err(Errno::STALE)], Err(Errno::STALE)),
        ];
        for (offset, calls, want) in rows {
            let offset = FileOffset::new(*offset).unwrap();
            let mut left = calls.iter();
            let mut reached = 0;
            let got = to_the_end(offset, WANTED, |skip| {
                assert_eq!(skip, reached, "{calls:?}");
                let next = *left.next().unwrap();
                reached = next.unwrap_or(0);
                next
            });
            assert_eq!((got, left.next()), (*want, None), "{offset:?}: {calls:?}");
        }
    }

    /// Each row: bytes that each call moves, and bytes in all or what was moved before the error.
    #[test]
    fn what_takes_several_calls_tells_how_far_it_came() {
        type Row<'a> = (&'a [Result<usize, Errno>], Result<usize, (usize, Errno)>);
        let rows: &[Row<'_>] = &[
            (&[Ok(60), Ok(40)], Ok(100)),
            (&[Ok(60), Ok(0)], Ok(60)),
            (&[Err(Errno::NOSPC)], Err((0, Errno::NOSPC))),
            (&[Ok(60), Err(Errno::IO)], Err((60, Errno::IO))),
        ];
        for (calls, want) in rows {
            let mut left = calls.iter();
            let got = in_turns(100, IOV_MAX + 1, 0, |_| *left.next().unwrap());
            let got = got.map_err(|stopped| (stopped.done, stopped.errno));
            assert_eq!((got, left.next()), (*want, None), "{calls:?}");
        }
    }
}
