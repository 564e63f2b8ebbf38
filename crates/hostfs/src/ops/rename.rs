//! RENAME and RENAME2.

use std::os::fd::AsFd;

use rustix::fs::renameat_with;
use virtiofs_protocol::op::Rename;
use virtiofs_protocol::{Context, NodeId, Outcome, RenameFlags};

use crate::PassthroughFs;
use crate::casefold::spellings::Change;
use crate::ops::spelling::{Place, Spelling};

/// With these the old name stands for something afterwards, too.
const LEAVES_A_NAME: RenameFlags = RenameFlags::EXCHANGE.union(RenameFlags::WHITEOUT);

impl PassthroughFs {
    pub(crate) fn op_rename(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Rename<'_>,
    ) -> Outcome<()> {
        let (from, from_directory) = self.directory(cx, parent)?;
        let (to, to_directory) = self.directory(cx, op.to_parent)?;
        let (from_place, to_place) = (
            (&*from, from_directory.as_fd()),
            (&*to, to_directory.as_fd()),
        );
        let spellings = self.renamed(cx, (from_place, to_place), op)?;
        let (from_name, to_name) = (spellings.0.name()?, spellings.1.name()?);
        // Both are held while the names move: nothing is looked for where it no longer is.
        let moved = self.pin(&from, from_directory.as_fd(), from_name)?;
        let met = self.pin(&to, to_directory.as_fd(), to_name)?;
        let flags = rustix::fs::RenameFlags::from_bits_retain(op.flags.bits());
        renameat_with(
            &from_directory,
            from_name.as_c_str(),
            &to_directory,
            to_name.as_c_str(),
            flags,
        )?;
        let (moved, met) = (
            moved.as_ref().map(|pinned| &pinned.0),
            met.as_ref().map(|pinned| &pinned.0),
        );
        if let Some(moved) = moved {
            self.inodes
                .unanchor(moved, NodeId::from_raw(from.number), from_name.as_c_str());
        }
        if let Some(met) = met {
            self.inodes
                .unanchor(met, NodeId::from_raw(to.number), to_name.as_c_str());
        }
        if let Some(moved) = moved {
            self.inodes.anchor(moved, &to, to_name.as_c_str());
        }
        if let (Some(met), true) = (met, op.flags.contains(RenameFlags::EXCHANGE)) {
            self.inodes.anchor(met, &from, from_name.as_c_str());
        }
        if !op.flags.intersects(LEAVES_A_NAME) {
            self.note_change(from_place, Change::Removed, from_name);
        }
        self.note_change(to_place, Change::Made, to_name);
        Ok(())
    }

    /// The host's spellings of both names.
    ///
    /// What the new name finds is what is replaced, but for the file itself: that gets the name as
    /// the guest spells it, as when only the case changes.
    fn renamed<'a>(
        &self,
        cx: &Context<'_>,
        (from, to): (Place<'_>, Place<'_>),
        op: Rename<'a>,
    ) -> Outcome<(Spelling<'a>, Spelling<'a>)> {
        let old = self.spelling(cx, from, op.from)?;
        let new = self.spelling(cx, to, op.to)?;
        let same = from.0.number == to.0.number && old.name()? == new.name()?;
        if same && !op.flags.contains(RenameFlags::EXCHANGE) {
            return Ok((old, Spelling::Guests(op.to)));
        }
        Ok((old, new))
    }
}
