//! All inodes that the guest knows: by number, by identity, by name.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;
use virtiofs_protocol::{Errno, NodeId};

use super::index::{Index, Shard};
use super::key::Key;
use super::{Anchor, Held, Inode, Node, UsedNode};
use crate::mounts::Mount;
use crate::slab::Slab;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::is_planted;

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Slab<Inode>,
    /// By [`Key`].
    keys: Index,
    /// By parent and name: what a LOOKUP may believe, and what an UNLINK must look after. A belief:
    /// what stands under a name is always asked of the host.
    names: Index,
    count: AtomicU64,
    limit: u64,
}

/// What a new inode is entered with.
pub(crate) struct Newcomer {
    pub(crate) key: Key,
    pub(crate) kind: FileType,
    pub(crate) mount: Arc<Mount>,
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Table {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            rows: Slab::new(),
            keys: Index::new(),
            names: Index::new(),
            count: AtomicU64::new(0),
            limit: limit.unwrap_or(u64::MAX),
        }
    }

    /// Finds an inode by the number that the guest was given.
    ///
    /// # Errors
    ///
    /// ESTALE for one that is not known: the guest looks its name up again.
    pub(crate) fn get(&self, node: NodeId) -> Result<UsedNode, Errno> {
        self.rows.using(node.raw()).ok_or(Errno::STALE)
    }

    /// Some inode that answers to this. Looks at all.
    pub(crate) fn find(&self, wanted: impl Fn(&Inode) -> bool) -> Option<Node> {
        self.rows.find(wanted)
    }

    /// What is believed to stand under a name.
    pub(crate) fn believed(&self, parent: NodeId, name: &CStr) -> Option<UsedNode> {
        self.named(parent, name).find(|slot| {
            let node = self.rows.at(slot)?;
            let hangs_here = node.value.state().hangs_on(parent, name);
            hangs_here.then_some(node)
        })
    }

    /// Finds an inode by its identity and counts one more lookup of it.
    pub(crate) fn count_known(&self, key: &Key) -> Option<UsedNode> {
        self.count_in(&self.keys.shard(key), key)
    }

    fn count_in(&self, shard: &Shard<'_>, key: &Key) -> Option<UsedNode> {
        shard.find(|slot| {
            let node = self.rows.at(slot)?;
            let counted = node.value.count_if(key);
            counted.then_some(node)
        })
    }

    /// Enters an inode with one lookup, or counts one more of it when another thread was faster.
    ///
    /// A descriptor that came along is kept if the inode has none.
    ///
    /// # Errors
    ///
    /// ENOMEM at the limit.
    pub(crate) fn enter(&self, newcomer: Newcomer) -> Result<Node, Errno> {
        let key = newcomer.key;
        let mut shard = self.keys.shard(key);
        let looks = !is_planted("enters without another look");
        if let Some(known) = looks.then(|| self.count_in(&shard, &key)).flatten() {
            if let Some(descriptor) = newcomer.descriptor {
                known.value.hold(&Held::seen(descriptor));
            }
            return Ok(Arc::clone(&*known));
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::NOMEM);
        }
        let inode = Inode::new(key, newcomer.kind, newcomer.mount, newcomer.descriptor);
        let node = self.rows.insert(inode).ok_or(Errno::NOMEM)?;
        shard.insert(node.slot());
        Ok(node)
    }

    /// Whether one more inode may be known: asked before something is made, which then has to be told.
    ///
    /// # Errors
    ///
    /// ENOMEM at the limit.
    pub(crate) fn room(&self) -> Result<(), Errno> {
        if self.count() < self.limit {
            Ok(())
        } else {
            Err(Errno::NOMEM)
        }
    }

    /// Remembers under which name an inode was seen just now.
    pub(crate) fn anchor(&self, node: &Node, parent: &Node, name: &CStr) {
        let parent_id = NodeId::from_raw(parent.number);
        {
            let state = node.value.state();
            if state.gone || state.hangs_on(parent_id, name) {
                return;
            }
        }
        let anchor = Anchor {
            parent: parent_id,
            name: name.into(),
        };
        {
            let mut state = parent.value.state();
            if state.gone && !is_planted("hangs names on what is gone") {
                return;
            }
            state.children = state.children.saturating_add(1);
        }
        let old = {
            let mut shard = self.named(parent_id, name);
            // Whoever hung here before is no longer what stands under the name.
            shard.remove_all(|slot| {
                let other = self.rows.at(slot).filter(|_| slot != node.slot());
                other.is_some_and(|other| other.value.state().hangs_on(parent_id, name))
            });
            let mut state = node.value.state();
            if state.gone {
                Some(anchor)
            } else {
                shard.insert(node.slot());
                state.anchor.replace(anchor)
            }
        };
        self.drop_anchor(old, node.slot());
    }

    /// The name is gone: whoever is anchored there is anchored nowhere.
    pub(crate) fn unanchor(&self, node: &Node, parent: NodeId, name: &CStr) {
        let old = {
            let mut state = node.value.state();
            let here = state.hangs_on(parent, name);
            if here { state.anchor.take() } else { None }
        };
        self.drop_anchor(old, node.slot());
    }

    /// Lowers a lookup count; an inode that nothing counts on leaves the table, and so may its parents.
    ///
    /// Returns what has left, for its descriptor to be closed at leisure.
    pub(crate) fn forget(&self, node: NodeId, count: u64) -> Option<Node> {
        if node == NodeId::ROOT {
            return None;
        }
        let row = self.rows.get(node.raw())?;
        let leaves = {
            let mut state = row.value.state();
            state.lookups = state.lookups.saturating_sub(count);
            state.leave_if_unused()
        };
        if !leaves {
            return None;
        }
        let anchor = self.take_out(&row);
        self.drop_anchor(anchor, row.slot());
        Some(row)
    }

    /// An inode's identity changed under its own descriptor (copy-up on overlayfs).
    pub(crate) fn rekey(&self, node: &Node, new: Key) {
        let old = {
            let mut shard = self.keys.shard(new);
            let old = {
                let mut state = node.value.state();
                // Gone, it is out of the indexes and must not come back; or another thread was faster.
                let gone = state.gone && !is_planted("enters what is gone by its new key");
                if gone || state.key == new {
                    return;
                }
                std::mem::replace(&mut state.key, new)
            };
            // By this identity it is found from now on, and no other.
            shard.remove_all(|slot| {
                let other = self.rows.at(slot).filter(|_| slot != node.slot());
                other.is_some_and(|other| other.value.state().key == new)
            });
            shard.insert(node.slot());
            old
        };
        self.keys.shard(old).remove(node.slot());
    }

    /// Drops every inode but the root.
    pub(crate) fn clear(&self) {
        for row in self.rows.clear_except(NodeId::ROOT.raw()) {
            row.value.state().gone = true;
            let anchor = self.out_of_indexes(&row);
            if let Some(anchor) = anchor {
                self.named(anchor.parent, &anchor.name).remove(row.slot());
            }
        }
        if let Some(root) = self.rows.get(NodeId::ROOT.raw()) {
            root.value.state().children = 0;
        }
    }

    /// How many inodes hold a descriptor. Looks at all.
    pub(crate) fn holders(&self) -> usize {
        self.rows.count(|inode| inode.descriptor.load().is_some())
    }

    /// How many inodes are known.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn take_out(&self, row: &Node) -> Option<Anchor> {
        self.rows.remove(row.number);
        self.out_of_indexes(row)
    }

    fn out_of_indexes(&self, row: &Node) -> Option<Anchor> {
        self.count.fetch_sub(1, Ordering::Relaxed);
        let (key, anchor) = {
            let mut state = row.value.state();
            (state.key, state.anchor.take())
        };
        self.keys.shard(key).remove(row.slot());
        anchor
    }

    /// Releases a parent that an anchor held; iterative, because a guest may nest as deep as it likes.
    fn drop_anchor(&self, mut anchor: Option<Anchor>, mut slot: u32) {
        while let Some(Anchor { parent, name }) = anchor.take() {
            self.named(parent, &name).remove(slot);
            let Some(row) = self.rows.using(parent.raw()) else {
                return;
            };
            let leaves = {
                let mut state = row.value.state();
                state.children = state.children.saturating_sub(1);
                parent != NodeId::ROOT && state.leave_if_unused()
            };
            if leaves {
                anchor = self.take_out(&row);
                slot = row.slot();
            }
        }
    }

    fn named(&self, parent: NodeId, name: &CStr) -> Shard<'_> {
        self.names.shard((parent, name.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(model)]
    mod model;
}
