//! UNLINK and RMDIR.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, unlinkat};
use virtiofs_protocol::op::{Rmdir, Unlink};
use virtiofs_protocol::{Context, Name, NodeId, Outcome};

use crate::PassthroughFs;
use crate::casefold::spellings::Change;
use crate::ops::spelling::Place;

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
        let place = (&*parent, directory.as_fd());
        self.by_spelling(cx, place, name, |name| self.remove_from(place, name, flags))
    }

    fn remove_from(
        &self,
        (parent, directory): Place<'_>,
        name: Name<'_>,
        flags: AtFlags,
    ) -> Outcome<()> {
        // The guest may hold the inode open, or as its working directory, when its last name goes.
        let pinned = self.pin(parent, directory, name)?;
        unlinkat(directory, name.as_c_str(), flags)?;
        if let Some(node) = &pinned {
            self.inodes
                .unanchor(&node.0, NodeId::from_raw(parent.number), name.as_c_str());
        }
        self.note_change((parent, directory), Change::Removed, name);
        Ok(())
    }
}
