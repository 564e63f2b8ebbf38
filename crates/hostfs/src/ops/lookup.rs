//! LOOKUP, and how what was found or made becomes an entry.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Statx};
use virtiofs_protocol::op::Lookup;
use virtiofs_protocol::{
    AttrFlags, Attributes, Context, Entry, Errno, InitFlags, LookupName, Name, NodeId, Outcome,
    Refusal, Validity,
};

use crate::PassthroughFs;
use crate::attributes::attributes;
use crate::casefold::CaseFold;
use crate::inode::key::{Identity, Key};
use crate::inode::table::Newcomer;
use crate::inode::{Counted, Node, UsedNode};
use crate::ops::may_take_long;
use crate::sys;

/// What stands under a name: held first, then looked at through the descriptor.
pub(crate) struct Found {
    pub(crate) held: OwnedFd,
    pub(crate) stat: Statx,
}

impl PassthroughFs {
    pub(crate) fn op_lookup(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Lookup<'_>,
    ) -> Outcome<Entry> {
        match op.name {
            LookupName::Name(name) => {
                let (parent, directory) = self.directory(cx, parent)?;
                let found = self.by_spelling(cx, (&parent, directory.as_fd()), name, |name| {
                    self.find(cx, &parent, directory.as_fd(), name)
                });
                match found {
                    Err(Refusal::Errno(Errno::NOENT)) => self.absent(),
                    found => found,
                }
            }
            LookupName::Myself | LookupName::Parent if !exports(cx) => {
                Err(Refusal::Errno(Errno::INVAL))
            }
            LookupName::Myself => {
                let node = self.node(cx, parent)?;
                // A guest that has the file open knows it and does not ask: who asks has a handle
                // of it, and no handle leads to a file that was removed (open_by_handle_at, ESTALE).
                if self.stat(&node)?.stx_nlink == 0 {
                    return Err(Refusal::Errno(Errno::STALE));
                }
                self.once_more(cx, &node)
            }
            LookupName::Parent => self.directory_above(cx, parent),
        }
    }

    /// The directory that a directory is in, by the table: no path is walked, so the root, which
    /// is its own, is where that ends.
    ///
    /// ESTALE where the directory is not where it was seen last.
    fn directory_above(&self, cx: &Context<'_>, node: NodeId) -> Outcome<Entry> {
        let node = self.node(cx, node)?;
        if !node.value.is_directory() {
            return Err(Refusal::Errno(Errno::NOTDIR));
        }
        if node.number == NodeId::ROOT.raw() {
            return self.once_more(cx, &node);
        }
        let above = {
            let state = node.value.state();
            state.anchor.as_ref().map(|anchor| anchor.parent)
        };
        let above = self.node(cx, above.ok_or(Errno::STALE)?)?;
        self.stat_by_anchor(&node)?;
        self.once_more(cx, &above)
    }

    /// A node that the guest has a number of, with one lookup more.
    fn once_more(&self, cx: &Context<'_>, node: &Node) -> Outcome<Entry> {
        let stat = self.stat(node)?;
        if !node.value.state().count_lookup() {
            return Err(Refusal::Errno(Errno::STALE));
        }
        Ok(self.entry(cx, node, node, &stat))
    }

    /// Finds a name: one call where the belief about it is right, two where there is none.
    fn find(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Outcome<Entry> {
        let parent_id = NodeId::from_raw(parent.number);
        if let Some(believed) = self.inodes.believed(parent_id, name.as_c_str()) {
            may_take_long(cx, &believed.value.mount)?;
            let stat = sys::stat_name(directory, name).inspect_err(|errno| {
                if *errno == Errno::NOENT {
                    self.inodes.unanchor(&believed, parent_id, name.as_c_str());
                }
            })?;
            let key = Key::new(&stat, believed.value.mount.identity);
            if let Some(counted) = believed.value.count_by(&key, parent_id, name.as_c_str()) {
                if counted == Counted::Elsewhere {
                    self.inodes.anchor(&believed, parent, name.as_c_str());
                }
                return Ok(self.entry(cx, parent, &believed, &stat));
            }
            if let Some(known) = self.count_known(parent, &stat) {
                // The host may have renamed it to here: from now on it is found here.
                self.inodes.anchor(&known, parent, name.as_c_str());
                return Ok(self.entry(cx, parent, &known, &stat));
            }
        }
        Ok(self.enter(cx, parent, name, self.found(directory, name)?)?)
    }

    /// The inode of a stat by name, if it is known: by identity, so it does not matter what the name meant before.
    fn count_known(&self, parent: &Node, stat: &Statx) -> Option<UsedNode> {
        let mount = self.mounts.known_near(&parent.value.mount, stat)?;
        self.inodes.count_known(&Key::new(stat, mount.identity))
    }

    /// Holds what stands under a name and looks at it through the descriptor.
    pub(crate) fn found(&self, directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Found, Errno> {
        let held = self.retried(|| sys::hold(directory, name))?;
        let stat = sys::stat_fd(&held)?;
        Ok(Found { held, stat })
    }

    /// Enters what was found under a name, with one lookup.
    pub(crate) fn enter(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        name: Name<'_>,
        found: Found,
    ) -> Result<Entry, Errno> {
        let Found { held, stat } = found;
        self.follow_copy_up(parent, name, &stat);
        let node = self.enter_unnamed(held, &stat)?;
        self.inodes.anchor(&node, parent, name.as_c_str());
        Ok(self.entry(cx, parent, &node, &stat))
    }

    /// Finds out whether what stands under a name is what stood there before, with another identity.
    ///
    /// On overlayfs a copy-up may change the number and the device. A descriptor from before it
    /// shows the same change.
    fn follow_copy_up(&self, parent: &Node, name: Name<'_>, stat: &Statx) {
        let parent = NodeId::from_raw(parent.number);
        let Some(believed) = self.inodes.believed(parent, name.as_c_str()) else {
            return;
        };
        if believed.value.mount.identity != Identity::Pinned {
            return;
        }
        let key = Key::new(stat, Identity::Pinned);
        let held = believed.value.descriptor.load_full();
        let now = held.and_then(|held| sys::stat_fd(held).ok());
        if now.is_some_and(|now| Key::new(&now, Identity::Pinned) == key) {
            self.inodes.rekey(&believed, key);
        }
    }

    /// Enters what a descriptor holds, with one lookup.
    pub(crate) fn enter_unnamed(&self, held: OwnedFd, stat: &Statx) -> Result<Node, Errno> {
        let mount = self.mounts.get(stat, held.as_fd())?;
        let key = Key::new(stat, mount.identity);
        if let Some(known) = self.inodes.count_known(&key) {
            if known.value.descriptor.load().is_none() {
                self.keep(&known, held);
            }
            return Ok(Arc::clone(&*known));
        }
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let node = self.inodes.enter(Newcomer {
            key,
            kind,
            mount,
            descriptor: Some(held),
        })?;
        self.note_holder(&node);
        Ok(node)
    }

    /// Enters what stands under a name without holding it, where its identity alone tells it from any other.
    ///
    /// `None` where it does not: the store has no birth times, or another mount begins here.
    pub(crate) fn enter_by_name(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        name: Name<'_>,
        stat: &Statx,
    ) -> Option<Result<Entry, Errno>> {
        let mount = self.mounts.known_near(&parent.value.mount, stat)?;
        let key = Key::new(stat, mount.identity);
        if mount.identity != Identity::Birth {
            let known = self.inodes.count_known(&key)?;
            self.inodes.anchor(&known, parent, name.as_c_str());
            return Some(Ok(self.entry(cx, parent, &known, stat)));
        }
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let node = match self.inodes.enter(Newcomer {
            key,
            kind,
            mount,
            descriptor: None,
        }) {
            Ok(node) => node,
            Err(errno) => return Some(Err(errno)),
        };
        self.inodes.anchor(&node, parent, name.as_c_str());
        Some(Ok(self.entry(cx, parent, &node, stat)))
    }

    pub(crate) fn entry(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        node: &Node,
        stat: &Statx,
    ) -> Entry {
        self.note_directory(node, stat.stx_mode.into());
        // A guest's mount point is a directory; and only there do directories change the device.
        let begins = node.value.is_directory() && parent.value.state().key.is_elsewhere(stat);
        let flags = if begins && cx.negotiated.flags.contains(InitFlags::SUBMOUNTS) {
            AttrFlags::SUBMOUNT
        } else {
            AttrFlags::empty()
        };
        let attributes = attributes(stat, &self.options.identities, flags);
        let validity = self.validity(&attributes);
        let entry_validity = match self.options.casefold {
            CaseFold::Off => validity,
            // The guest's cache takes two spellings for two names, and would keep one when the
            // file is removed by the other.
            CaseFold::Ascii | CaseFold::Unicode => Validity::default(),
        };
        Entry {
            node: NodeId::from_raw(node.number),
            entry_validity,
            attr_validity: validity,
            attributes,
        }
    }

    /// Nothing stands under a name: for a while, where the policy lets the guest believe that.
    ///
    /// Not where names are found whatever their case: one that is made in another spelling ends
    /// the absence of this one, and the guest would not know.
    fn absent(&self) -> Outcome<Entry> {
        if self.options.casefold != CaseFold::Off {
            return Err(Refusal::Errno(Errno::NOENT));
        }
        let stated = |absence| self.options.validity.unwrap_or(absence);
        let absence = self.options.cache.absence().map(stated);
        match absence.filter(|absence| *absence != Validity::default()) {
            Some(absence) => Ok(Entry::absent(absence)),
            None => Err(Refusal::Errno(Errno::NOENT)),
        }
    }

    /// How long what the host says of an inode holds, its name included.
    pub(crate) fn validity(&self, attributes: &Attributes) -> Validity {
        self.options
            .validity
            .unwrap_or_else(|| self.options.cache.validity(|| last_change(attributes)))
    }
}

/// Whether the guest may look `.` and `..` up, because it exports the share itself.
fn exports(cx: &Context<'_>) -> bool {
    cx.negotiated.flags.contains(InitFlags::EXPORT_SUPPORT)
}

/// When the inode changed last: its contents, its attributes or, on most stores, its name.
///
/// Before 1970 is long ago whenever it was; what no clock reaches is no age at all.
fn last_change(attributes: &Attributes) -> SystemTime {
    let (secs, nanos) = attributes.ctime;
    let secs = u64::try_from(secs).unwrap_or(0);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(secs, nanos))
        .unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row: what the store tells, and the last change by it; none where no clock gets there.
    #[test]
    fn k_a_last_change_is_a_time_whatever_the_store_tells() {
        let after = |secs, nanos| Some(SystemTime::UNIX_EPOCH + Duration::new(secs, nanos));
        let most = i64::MAX.unsigned_abs();
        for (secs, nanos, want) in [
            (0, 0, after(0, 0)),
            (
                1_700_000_000,
                999_999_999,
                after(1_700_000_000, 999_999_999),
            ),
            (-1, 0, after(0, 0)),
            (i64::MIN, u32::MAX, after(0, u32::MAX)),
            (i64::MAX, 0, after(most, 0)),
            (i64::MAX, u32::MAX, None),
        ] {
            let attributes = Attributes {
                ctime: (secs, nanos),
                ..Attributes::default()
            };
            let before = SystemTime::now();
            let told = last_change(&attributes);
            match want {
                Some(want) => assert_eq!(told, want, "{secs}.{nanos}"),
                None => assert!((before..=SystemTime::now()).contains(&told), "{told:?}"),
            }
        }
    }
}
