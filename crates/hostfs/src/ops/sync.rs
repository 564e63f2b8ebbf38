//! FSYNC, FSYNCDIR, SYNCFS and STATFS.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, OFlags, StatVfs, fdatasync, fstatvfs, fsync, syncfs};
use virtiofs_protocol::op::{Durability, Fsync};
use virtiofs_protocol::{Context, Errno, NodeId, Outcome, Refusal, Statistics};

use crate::PassthroughFs;
use crate::ops::sleeps;
use crate::sys;

impl PassthroughFs {
    pub(crate) fn op_fsync(&self, cx: &Context<'_>, op: Fsync) -> Outcome<()> {
        let file = self.handles.file(op.file)?;
        let file = file.file()?;
        sleeps(cx)?;
        Ok(durable(file.as_fd(), op.durability)?)
    }

    pub(crate) fn op_fsyncdir(&self, cx: &Context<'_>, op: Fsync) -> Outcome<()> {
        let handle = self.handles.directory(op.file)?;
        let directory = handle.directory()?;
        sleeps(cx)?;
        Ok(durable(directory.descriptor.as_fd(), op.durability)?)
    }

    /// Syncs the mount that holds the node.
    pub(crate) fn op_syncfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<()> {
        let node = self.inodes.get(node)?;
        // A kernel sends it for the root of a mount only. Opening anything else may block or act.
        if !matches!(node.value.kind, FileType::Directory | FileType::RegularFile) {
            return Err(Refusal::Errno(Errno::INVAL));
        }
        sleeps(cx)?;
        let held = self.descriptor(&node)?;
        // syncfs(2) takes no O_PATH descriptor.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let open =
            self.retried(|| sys::reopen(self.root.proc_self_fd.as_fd(), held.as_fd(), flags))?;
        Ok(syncfs(open)?)
    }

    pub(crate) fn op_statfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<Statistics> {
        let node = self.node(cx, node)?;
        Ok(statistics(&fstatvfs(self.descriptor(&node)?)?))
    }
}

fn durable(file: BorrowedFd<'_>, durability: Durability) -> Result<(), Errno> {
    match durability {
        Durability::DataOnly => fdatasync(file),
        Durability::Full => fsync(file),
    }
}

fn statistics(stat: &StatVfs) -> Statistics {
    let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Statistics {
        blocks: stat.f_blocks,
        blocks_free: stat.f_bfree,
        blocks_available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
        block_bytes: short(stat.f_bsize),
        fragment_bytes: short(stat.f_frsize),
        name_max: short(stat.f_namemax),
    }
}
