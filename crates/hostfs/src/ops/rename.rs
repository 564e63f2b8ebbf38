//! RENAME and RENAME2.

use std::os::fd::AsFd;

use rustix::fs::renameat_with;
use virtiofs_protocol::op::Rename;
use virtiofs_protocol::{Context, NodeId, Outcome, RenameFlags};

use crate::PassthroughFs;

impl PassthroughFs {
    pub(crate) fn op_rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Rename<'_>,
    ) -> Outcome<()> {
        let (from, from_directory) = self.directory(cx, parent)?;
        let (to, to_directory) = self.directory(cx, op.to_parent)?;
        // Both are held while the names move: nothing is looked for where it no longer is.
        let moved = self.pin(&from, from_directory.as_fd(), op.from)?;
        let met = self.pin(&to, to_directory.as_fd(), op.to)?;
        let flags = rustix::fs::RenameFlags::from_bits_retain(op.flags.bits());
        renameat_with(
            from_directory,
            op.from.as_c_str(),
            to_directory,
            op.to.as_c_str(),
            flags,
        )?;
        let (moved, met) = (
            moved.as_ref().map(|pinned| &pinned.0),
            met.as_ref().map(|pinned| &pinned.0),
        );
        if let Some(moved) = moved {
            self.inodes
                .unanchor(moved, NodeId::from_raw(from.number), op.from.as_c_str());
        }
        if let Some(met) = met {
            self.inodes
                .unanchor(met, NodeId::from_raw(to.number), op.to.as_c_str());
        }
        if let Some(moved) = moved {
            self.inodes.anchor(moved, &to, op.to.as_c_str());
        }
        if let (Some(met), true) = (met, op.flags.contains(RenameFlags::EXCHANGE)) {
            self.inodes.anchor(met, &from, op.from.as_c_str());
        }
        Ok(())
    }
}
