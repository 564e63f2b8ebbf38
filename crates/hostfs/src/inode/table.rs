//! All inodes that the guest knows: by number, by identity, by name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use std::ffi::CStr;
use std::sync::Arc;
use virtiofs_protocol::{Errno, NodeId};

use super::key::Key;
use super::names::Names;
use super::{Anchor, Inode, Node, UsedNode};
use crate::mounts::Mount;
use crate::slab::Slab;

const SHARDS: usize = 64;

type Shard = HashMap<Key, NodeId>;

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Slab<Inode>,
    keys: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    names: Names,
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
            keys: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            names: Names::new(),
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
        self.rows.using(self.names.get(parent, name)?.raw())
    }

    /// Finds an inode by its identity and counts one more lookup of it.
    pub(crate) fn count_known(&self, key: &Key) -> Option<Node> {
        let node = *self.shard(key).get(key)?;
        self.rows
            .get(node.raw())
            .filter(|node| node.value.state().count_lookup())
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
        let mut shard = self.shard(&key);
        let known = shard.get(&key).and_then(|node| self.rows.get(node.raw()));
        if let Some(known) = known.filter(|known| known.value.state().count_lookup()) {
            if let (Some(descriptor), true) =
                (newcomer.descriptor, known.value.descriptor.load().is_none())
            {
                known.value.descriptor.store(Some(Arc::new(descriptor)));
            }
            return Ok(known);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::NOMEM);
        }
        let inode = Inode::new(key, newcomer.kind, newcomer.mount, newcomer.descriptor);
        let node = self.rows.insert(inode).ok_or(Errno::NOMEM)?;
        shard.insert(key, NodeId::from_raw(node.number));
        Ok(node)
    }

    /// Remembers under which name an inode was seen just now.
    pub(crate) fn anchor(&self, node: &Node, parent: &Node, name: &CStr) {
        let parent_id = NodeId::from_raw(parent.number);
        {
            let state = node.value.state();
            let here = |anchor: &Anchor| anchor.parent == parent_id && *anchor.name == *name;
            if state.gone || state.anchor.as_ref().is_some_and(here) {
                return;
            }
        }
        let anchor = Anchor {
            parent: parent_id,
            name: name.into(),
        };
        {
            let mut state = parent.value.state();
            if state.gone {
                return;
            }
            state.children += 1;
        }
        self.names
            .insert(parent_id, &anchor.name, NodeId::from_raw(node.number));
        let old = {
            let mut state = node.value.state();
            if state.gone {
                Some(anchor)
            } else {
                state.anchor.replace(anchor)
            }
        };
        self.drop_anchor(old, NodeId::from_raw(node.number));
    }

    /// The name is gone: whoever is anchored there is anchored nowhere.
    pub(crate) fn unanchor(&self, node: &Node, parent: NodeId, name: &CStr) {
        let old = {
            let mut state = node.value.state();
            let here = state
                .anchor
                .as_ref()
                .is_some_and(|anchor| anchor.parent == parent && *anchor.name == *name);
            if here { state.anchor.take() } else { None }
        };
        self.names
            .remove(parent, name, NodeId::from_raw(node.number));
        self.drop_anchor(old, NodeId::from_raw(node.number));
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
        self.drop_anchor(anchor, node);
        Some(row)
    }

    /// An inode's identity changed under its own descriptor (copy-up on overlayfs).
    pub(crate) fn rekey(&self, node: &Node, new: Key) {
        let id = NodeId::from_raw(node.number);
        let old = {
            let mut shard = self.shard(&new);
            let mut state = node.value.state();
            // Gone, it is out of the indexes and must not come back; or another thread was faster.
            if state.gone || state.key == new {
                return;
            }
            shard.insert(new, id);
            std::mem::replace(&mut state.key, new)
        };
        let mut shard = self.shard(&old);
        if shard.get(&old) == Some(&id) {
            shard.remove(&old);
        }
    }

    /// Drops every inode but the root.
    pub(crate) fn clear(&self) {
        for row in self.rows.clear_except(NodeId::ROOT.raw()) {
            row.value.state().gone = true;
            let anchor = self.out_of_indexes(&row);
            if let Some(anchor) = anchor {
                self.names
                    .remove(anchor.parent, &anchor.name, NodeId::from_raw(row.number));
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
        let mut shard = self.shard(&key);
        if shard.get(&key) == Some(&NodeId::from_raw(row.number)) {
            shard.remove(&key);
        }
        anchor
    }

    /// Releases a parent that an anchor held; iterative, because a guest may nest as deep as it likes.
    fn drop_anchor(&self, mut anchor: Option<Anchor>, mut node: NodeId) {
        while let Some(Anchor { parent, name }) = anchor.take() {
            self.names.remove(parent, &name, node);
            let Some(row) = self.rows.get(parent.raw()) else {
                return;
            };
            let leaves = {
                let mut state = row.value.state();
                state.children = state.children.saturating_sub(1);
                parent != NodeId::ROOT && state.leave_if_unused()
            };
            if leaves {
                anchor = self.take_out(&row);
                node = parent;
            }
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
        self.keys[usize::from(low) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
