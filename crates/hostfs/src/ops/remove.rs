//! UNLINK and RMDIR.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, unlinkat};
use virtiofs_protocol::op::{Rmdir, Unlink};
use virtiofs_protocol::{Context, Name, NodeId, Outcome};

use crate::PassthroughFs;

impl PassthroughFs {
    pub(crate) fn op_unlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Unlink<'_>,
    ) -> Outcome<()> {
        self.remove(cx, parent, op.name, AtFlags::empty())
    }

    pub(crate) fn op_rmdir(&self, cx: &Context<'_>, parent: NodeId, op: Rmdir<'_>) -> Outcome<()> {
        self.remove(cx, parent, op.name, AtFlags::REMOVEDIR)
    }

    fn remove(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        name: Name<'_>,
        flags: AtFlags,
    ) -> Outcome<()> {
        let (parent, directory) = self.directory(cx, parent)?;
        // The guest may hold the inode open, or as its working directory, when its last name goes.
        let pinned = self.pin(&parent, directory.as_fd(), name)?;
        unlinkat(directory, name.as_c_str(), flags)?;
        if let Some(node) = &pinned {
            self.inodes
                .unanchor(&node.0, NodeId::from_raw(parent.number), name.as_c_str());
        }
        Ok(())
    }
}
