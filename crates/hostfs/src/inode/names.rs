//! (parent, name) -> inode: what a LOOKUP may believe, and what an UNLINK must look after.
//!
//! Holds exactly the anchors of inodes in the table, so it is never larger than the table. An
//! entry is a belief: what stands under the name is always asked of the host.

use std::ffi::CStr;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, Equivalent, HashMap};
use virtiofs_protocol::NodeId;

const SHARDS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
struct OwnedName {
    parent: NodeId,
    name: Arc<CStr>,
}

struct NameRef<'a> {
    parent: NodeId,
    name: &'a CStr,
}

impl Hash for OwnedName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NameRef {
            parent: self.parent,
            name: &self.name,
        }
        .hash(state);
    }
}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parent.hash(state);
        self.name.to_bytes().hash(state);
    }
}

impl Equivalent<OwnedName> for NameRef<'_> {
    fn equivalent(&self, key: &OwnedName) -> bool {
        self.parent == key.parent && *self.name == *key.name
    }
}

type Shard = HashMap<OwnedName, NodeId>;

/// The index.
#[derive(Debug)]
pub(crate) struct Names {
    hasher: DefaultHashBuilder,
    shards: [Mutex<Shard>; SHARDS],
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    pub(crate) fn get(&self, parent: NodeId, name: &CStr) -> Option<NodeId> {
        let name = NameRef { parent, name };
        self.shard(&name).get(&name).copied()
    }

    pub(crate) fn insert(&self, parent: NodeId, name: &Arc<CStr>, node: NodeId) {
        let key = OwnedName {
            parent,
            name: Arc::clone(name),
        };
        self.shard(&NameRef { parent, name }).insert(key, node);
    }

    /// Removes the entry if it still names `node`.
    pub(crate) fn remove(&self, parent: NodeId, name: &CStr, node: NodeId) {
        let name = NameRef { parent, name };
        let mut shard = self.shard(&name);
        if shard.get(&name) == Some(&node) {
            shard.remove(&name);
        }
    }

    fn shard(&self, name: &NameRef<'_>) -> MutexGuard<'_, Shard> {
        let [low, ..] = self.hasher.hash_one(name).to_le_bytes();
        self.shards[usize::from(low) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
