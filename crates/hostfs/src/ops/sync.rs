//! FSYNC, FSYNCDIR, SYNCFS and STATFS.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, StatVfs, fdatasync, fstatvfs, fsync, syncfs};
use virtiofs_protocol::op::{Durability, Fsync};
use virtiofs_protocol::{Context, Errno, InitFlags, NodeId, Outcome, Refusal, Statistics};

use crate::PassthroughFs;
use crate::inode::{Inode, Node};
use crate::ops::sleeps;

impl PassthroughFs {
    pub(crate) fn op_fsync(&self, cx: &Context<'_>, node: NodeId, op: Fsync) -> Outcome<()> {
        let file = self.file_of(cx, node, op.file)?;
        let file = file.file()?;
        sleeps(cx)?;
        Ok(durable(file.as_fd(), op.durability)?)
    }

    pub(crate) fn op_fsyncdir(&self, cx: &Context<'_>, node: NodeId, op: Fsync) -> Outcome<()> {
        let handle = self.directory_of(cx, node, op.file)?;
        let directory = handle.directory()?;
        sleeps(cx)?;
        Ok(durable(directory.descriptor.as_fd(), op.durability)?)
    }

    /// Syncs the mount that holds the node; every other that the guest has nodes of, too, where it
    /// takes all for one file system.
    ///
    /// Where mounts are announced, its kernel has one file system for each, and asks for each.
    pub(crate) fn op_syncfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<()> {
        let node = self.inodes.get(node)?;
        // A kernel sends it for the root of a mount only. Opening anything else may block or act.
        if !may_be_opened(&node.value) {
            return Err(Refusal::Errno(Errno::INVAL));
        }
        sleeps(cx)?;
        let mut synced = self.sync_mount_of(&node);
        if cx.negotiated.flags.contains(InitFlags::SUBMOUNTS) {
            return Ok(synced?);
        }
        let mut seen = vec![Arc::clone(&node.value.mount)];
        while let Some(other) = self.inodes.find(|inode| {
            may_be_opened(inode) && !seen.iter().any(|mount| Arc::ptr_eq(mount, &inode.mount))
        }) {
            seen.push(Arc::clone(&other.value.mount));
            // All are tried; the first that fails is told.
            synced = synced.and(self.sync_mount_of(&other));
        }
        Ok(synced?)
    }

    fn sync_mount_of(&self, node: &Node) -> Result<(), Errno> {
        let held = self.descriptor(node)?;
        // syncfs(2) takes no O_PATH descriptor.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        syncfs(self.open_again(node, held.as_fd(), flags)?)
    }

    pub(crate) fn op_statfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<Statistics> {
        let node = self.node(cx, node)?;
        Ok(statistics(&fstatvfs(self.descriptor(&node)?)?))
    }
}

fn may_be_opened(inode: &Inode) -> bool {
    matches!(inode.kind, FileType::Directory | FileType::RegularFile)
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
