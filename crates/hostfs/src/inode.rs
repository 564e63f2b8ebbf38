//! What is known about one inode.
//!
//! Lock order: a shard of keys or names ([`index`]) before an inode's state, never the other way
//! round; no two inodes' states at once.

mod index;
pub(crate) mod key;
pub(crate) mod table;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use rustix::fs::FileType;
use virtiofs_protocol::{Errno, Name, NodeId};

use crate::group_rule::Plain;
use crate::mounts::Mount;
use crate::slab::{Row, Used};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{ArcSwapOption, Guard, Mutex, MutexGuard, is_planted};
use key::{Identity, Key};

/// An inode that the guest knows, with its number.
pub(crate) type Node = Arc<Row<Inode>>;

/// The same, for the time of a request.
pub(crate) type UsedNode = Used<Inode>;

/// One inode of the share that the guest has looked up.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) kind: FileType,
    pub(crate) mount: Arc<Mount>,
    /// An `O_PATH` descriptor of the inode itself. Set for as long as it is hot, or needed.
    pub(crate) descriptor: ArcSwapOption<Held>,
    /// The descriptor was used since it was last asked about.
    used: AtomicBool,
    /// Of a directory: whether it hands its group down.
    pub(crate) plain: Plain,
    state: Mutex<State>,
}

/// An `O_PATH` descriptor that an inode holds.
#[derive(Debug)]
pub(crate) struct Held {
    descriptor: OwnedFd,
    /// It was seen to be the inode, and not what has taken its name meanwhile.
    is_seen: AtomicBool,
}

impl Held {
    /// What was looked at.
    pub(crate) fn seen(descriptor: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            descriptor,
            is_seen: AtomicBool::new(true),
        })
    }

    /// What was taken by name, to be looked at before it is used.
    pub(crate) fn unseen(descriptor: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            descriptor,
            is_seen: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_seen(&self) -> bool {
        self.is_seen.load(Ordering::Relaxed)
    }

    pub(crate) fn see(&self) {
        self.is_seen.store(true, Ordering::Relaxed);
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A name under which the inode was seen last, in a directory that it keeps in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) parent: NodeId,
    pub(crate) name: Box<CStr>,
}

/// What a lookup that was counted says of the name it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The inode hangs on it.
    Here,
    /// It hangs on another one, or on none.
    Elsewhere,
}

/// What changes over an inode's life.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) key: Key,
    pub(crate) anchor: Option<Anchor>,
    /// Lookups that the guest has not forgotten.
    pub(crate) lookups: u64,
    /// Inodes anchored in this directory.
    pub(crate) children: u32,
    /// Requests that are taking its name away: its descriptor stays.
    pub(crate) pins: u16,
    /// Out of the table: nobody may count on it any more.
    pub(crate) gone: bool,
}

impl Inode {
    pub(crate) fn new(
        key: Key,
        kind: FileType,
        mount: Arc<Mount>,
        descriptor: Option<OwnedFd>,
    ) -> Self {
        let state = State {
            key,
            anchor: None,
            lookups: 1,
            children: 0,
            pins: 0,
            gone: false,
        };
        Self {
            kind,
            mount,
            descriptor: ArcSwapOption::new(descriptor.map(Held::seen)),
            used: AtomicBool::new(true),
            plain: Plain::default(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// The descriptor that it holds, for a use that makes it worth keeping. It may be unseen.
    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        let held = self.descriptor.load_full();
        if held.is_some() && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        held
    }

    /// As [`Inode::held`], for the time of a call.
    pub(crate) fn lent(&self) -> Guard<Option<Arc<Held>>> {
        let lent = self.descriptor.load();
        if lent.is_some() && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        lent
    }

    /// Counts one more lookup, if this is what the key tells from all others.
    pub(crate) fn count_if(&self, key: &Key) -> bool {
        let mut state = self.state();
        state.key == *key && state.count_lookup()
    }

    /// As [`Inode::count_if`], for a lookup by this name.
    pub(crate) fn count_by(&self, key: &Key, parent: NodeId, name: &CStr) -> Option<Counted> {
        let mut state = self.state();
        let counted = state.key == *key && state.count_lookup();
        counted.then(|| {
            if state.hangs_on(parent, name) {
                Counted::Here
            } else {
                Counted::Elsewhere
            }
        })
    }

    /// Whether the descriptor was used since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// The name that it can be found by without a descriptor, if there is one.
    pub(crate) fn findable(&self) -> Option<Anchor> {
        if self.mount.identity == Identity::Pinned {
            return None;
        }
        self.state().anchor.clone()
    }

    /// Gives the inode a descriptor, unless it has one: then that is returned.
    pub(crate) fn hold(&self, descriptor: &Arc<Held>) -> Option<Arc<Held>> {
        let none: Option<Arc<Held>> = None;
        let before = self
            .descriptor
            .compare_and_swap(&none, Some(Arc::clone(descriptor)));
        before.as_ref().map(Arc::clone)
    }

    /// Lets go of a descriptor that turned out to be something else's.
    pub(crate) fn disown(&self, descriptor: &Arc<Held>) {
        let current = Some(Arc::clone(descriptor));
        self.descriptor.compare_and_swap(&current, None);
    }

    /// Lets the descriptor go, if the inode still hangs where it was found; returns whether it did.
    pub(crate) fn let_go(&self, found_at: &Anchor) -> bool {
        let state = self.state();
        let may = state.pins == 0 && state.anchor.as_ref() == Some(found_at);
        if may {
            self.descriptor.store(None);
        }
        may
    }
}

/// Room for a name that is used outside the lock under which it stands: nothing is allocated.
pub(crate) struct NameBuffer([u8; Name::MAX + 1]);

impl Default for NameBuffer {
    fn default() -> Self {
        Self([0; Name::MAX + 1])
    }
}

impl NameBuffer {
    /// Copies a name; ESTALE for one that is none, and so leads nowhere.
    pub(crate) fn copy(&mut self, name: &CStr) -> Result<&CStr, Errno> {
        let bytes = name.to_bytes_with_nul();
        let room = self.0.get_mut(..bytes.len()).ok_or(Errno::STALE)?;
        room.copy_from_slice(bytes);
        CStr::from_bytes_with_nul(room).map_err(|_| Errno::STALE)
    }
}

impl Anchor {
    pub(crate) fn is(&self, parent: NodeId, name: &CStr) -> bool {
        self.parent == parent && *self.name == *name
    }
}

impl State {
    /// Whether the inode was seen last under this name.
    pub(crate) fn hangs_on(&self, parent: NodeId, name: &CStr) -> bool {
        let anchor = self.anchor.as_ref();
        anchor.is_some_and(|anchor| anchor.is(parent, name))
    }

    /// Raises the lookup count, unless the inode is out of the table already.
    pub(crate) fn count_lookup(&mut self) -> bool {
        let counts = !self.gone || is_planted("counts on what is gone");
        if counts {
            self.lookups = self.lookups.saturating_add(1);
        }
        counts
    }

    /// Marks it as gone when nothing counts on it any more.
    pub(crate) fn leave_if_unused(&mut self) -> bool {
        let unused = !self.gone && self.lookups == 0 && self.children == 0;
        self.gone |= unused;
        unused
    }
}
