//! Guests that open nothing: OPEN and OPENDIR answered ENOSYS, and every request served from its node.
//!
//! A guest that was answered so opens no file of the connection any more: it keeps what it has
//! cached, and names handle 0. That is only right where the guest may believe its cache, where
//! nothing is changed or locked through an open file, and where no flag of OPEN would be lost. What
//! is read is opened for the time of the request.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use virtiofs_protocol::{Access, Context, Fh, InitFlags, NodeId, Outcome};

use crate::PassthroughFs;
use crate::cache::CachePolicy;
use crate::handle::{
    self, Afterwards, DirectoryRef, FileRef, HandleRef, OpenDirectory, OpenFile, Placement,
};
use crate::ops::io::is_regular;
use crate::options::{DirectIo, NoAtime, RemoteLocks};
use crate::sys;

/// The handle of whoever has not opened anything.
pub(crate) const NOT_OPENED: Fh = Fh::from_raw(0);

/// What a guest may have agreed on only if it sends OPEN.
const NEEDS_OPENS: InitFlags = InitFlags::ATOMIC_O_TRUNC
    .union(InitFlags::POSIX_LOCKS)
    .union(InitFlags::FLOCK_LOCKS);

/// Whether the guest is told to open no files.
pub(crate) fn does_without_opens(cx: &Context<'_>) -> bool {
    agreed(cx, InitFlags::NO_OPEN_SUPPORT)
}

/// Whether the guest is told to open no directories.
pub(crate) fn does_without_opendirs(cx: &Context<'_>) -> bool {
    agreed(cx, InitFlags::NO_OPENDIR_SUPPORT)
}

fn agreed(cx: &Context<'_>, support: InitFlags) -> bool {
    let flags = cx.negotiated.flags;
    flags.contains(support) && !flags.intersects(NEEDS_OPENS)
}

impl PassthroughFs {
    /// Whether the operator's choices leave nothing that OPEN is needed for.
    pub(crate) fn can_do_without_opens(&self) -> bool {
        let options = &self.options;
        options.cache == CachePolicy::Always
            && options.access == Access::ReadOnly
            && [options.posix_locks, options.flocks] == [RemoteLocks::Off; 2]
            && options.direct_io == DirectIo::Ignored
            && options.no_atime == NoAtime::Ignored
    }

    /// The open file of a request.
    pub(crate) fn file_of(&self, cx: &Context<'_>, node: NodeId, handle: Fh) -> Outcome<FileRef> {
        if handle != NOT_OPENED || !does_without_opens(cx) {
            return Ok(self.handles.file(handle)?);
        }
        let node = self.node(cx, node)?;
        is_regular(&node)?;
        let held = self.descriptor(&node)?;
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let descriptor =
            self.retried(|| sys::reopen(proc_self_fd, held.as_fd(), OFlags::RDONLY))?;
        let file = OpenFile {
            node: NodeId::from_raw(node.number),
            descriptor,
            mount: Arc::clone(&node.value.mount),
            placement: Placement::Offset,
            access: handle::Access::Reads,
            afterwards: Afterwards::Closed,
            flock: None,
        };
        Ok(file.into())
    }

    /// The open directory of a request.
    pub(crate) fn directory_of(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Fh,
    ) -> Outcome<DirectoryRef> {
        if handle != NOT_OPENED || !does_without_opendirs(cx) {
            return Ok(self.handles.directory(handle)?);
        }
        let (_, held) = self.directory(cx, node)?;
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let descriptor = self.retried(|| sys::reopen_directory(proc_self_fd, held.as_fd()))?;
        let directory = OpenDirectory {
            node,
            descriptor,
            cursor: Box::default(),
        };
        Ok(directory.into())
    }

    /// What is open, a file or a directory.
    pub(crate) fn handle_of(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        handle: Fh,
    ) -> Outcome<HandleRef> {
        if handle != NOT_OPENED {
            return Ok(self.handles.any(handle)?);
        }
        if self.inodes.get(node)?.value.is_directory() {
            return Ok(self.directory_of(cx, node, handle)?.into());
        }
        Ok(self.file_of(cx, node, handle)?.into())
    }
}
