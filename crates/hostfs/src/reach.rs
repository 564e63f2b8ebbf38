//! From a node's number to a descriptor of the very inode, or ESTALE.
//!
//! An inode that holds no descriptor hangs on a name in a directory. What stands under that name
//! is held first and looked at through the descriptor, so that a rename between two calls never
//! pairs one file's identity with another's descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Statx;
use virtiofs_protocol::{Errno, Name, NodeId};

use crate::PassthroughFs;
use crate::inode::Node;
use crate::inode::key::Key;
use crate::sys;

/// A name that moves while we look is followed so many times.
const ATTEMPTS: usize = 4;

impl PassthroughFs {
    /// A descriptor of the inode: the one it holds, or one found by its name and verified.
    ///
    /// Iterative, because a guest may nest directories as deep as it likes.
    ///
    /// # Errors
    ///
    /// ESTALE when the inode is not where it was seen last.
    pub(crate) fn descriptor(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(descriptor) = node.value.descriptor.load_full() {
            return Ok(descriptor);
        }
        let mut last = Errno::STALE;
        for _ in 0..ATTEMPTS {
            match self.descend(node) {
                Ok(descriptor) => return Ok(descriptor),
                Err(errno) => last = errno,
            }
        }
        Err(last)
    }

    /// Finds the nearest ancestor with a descriptor and comes down from it.
    fn descend(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        let mut way = vec![Arc::clone(node)];
        let mut names: Vec<CString> = Vec::new();
        let mut held = loop {
            let top = way.last().ok_or(Errno::STALE)?;
            if let Some(descriptor) = top.value.descriptor.load_full() {
                way.pop();
                break descriptor;
            }
            let anchor = top.value.state().anchor.clone().ok_or(Errno::STALE)?;
            names.push(anchor.name);
            way.push(self.inodes.get(anchor.parent)?);
        };
        while let (Some(node), Some(name)) = (way.pop(), names.pop()) {
            let name = Name::new(&name).map_err(|_| Errno::STALE)?;
            let found = self
                .retried(|| sys::hold(held.as_fd(), name))
                .map_err(gone_is_stale)?;
            let stat = sys::stat_fd(found.as_fd())?;
            if Key::new(&stat, node.value.mount.identity) != node.value.state().key {
                return Err(Errno::STALE);
            }
            held = self.keep(&node, found);
        }
        Ok(held)
    }

    /// Gives the inode a descriptor, unless another thread was faster.
    pub(crate) fn keep(&self, node: &Node, descriptor: OwnedFd) -> Arc<OwnedFd> {
        let descriptor = Arc::new(descriptor);
        let none: Option<Arc<OwnedFd>> = None;
        let before = node
            .value
            .descriptor
            .compare_and_swap(&none, Some(Arc::clone(&descriptor)));
        if let Some(faster) = before.as_ref() {
            return Arc::clone(faster);
        }
        self.note_holder(node);
        descriptor
    }

    /// Counts a new holder of a descriptor, and lets old ones go when there are too many.
    pub(crate) fn note_holder(&self, node: &Node) {
        if node.number != NodeId::ROOT.raw() && self.hot.add(NodeId::from_raw(node.number)) {
            self.cool_down(2);
        }
    }

    /// Takes the descriptors of up to `wanted` inodes that can be found by name; looks at a few more.
    fn cool_down(&self, wanted: usize) {
        let mut left = wanted;
        for _ in 0..wanted * 4 {
            let Some(oldest) = self.hot.oldest() else {
                return;
            };
            let Ok(node) = self.inodes.get(oldest) else {
                continue;
            };
            if self.is_where_it_was(&node) {
                node.value.descriptor.store(None);
                left -= 1;
            } else if node.value.descriptor.load().is_some() {
                self.hot.add(oldest);
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Whether the inode would be found again by its name alone.
    fn is_where_it_was(&self, node: &Node) -> bool {
        if !node.value.can_be_found_by_name() {
            return false;
        }
        let parent = node
            .value
            .state()
            .anchor
            .as_ref()
            .map(|anchor| anchor.parent);
        // A parent that would have to be opened for this would only take the place of its child.
        let parent = parent.and_then(|parent| self.inodes.get(parent).ok());
        parent.is_some_and(|parent| parent.value.descriptor.load().is_some())
            && self.stat_by_anchor(node).is_ok()
    }

    /// Runs a call that needs a descriptor; when there is none left, makes room and runs it again.
    pub(crate) fn retried<T>(
        &self,
        mut call: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match call() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.cool_down(16);
                call()
            }
            done => done,
        }
    }

    /// Looks at the inode in one system call.
    ///
    /// # Errors
    ///
    /// ESTALE when it is not where it was seen last.
    pub(crate) fn stat(&self, node: &Node) -> Result<Statx, Errno> {
        let Some(descriptor) = node.value.descriptor.load_full() else {
            return self
                .stat_by_anchor(node)
                .or_else(|_| sys::stat_fd(self.descriptor(node)?));
        };
        let stat = sys::stat_fd(descriptor)?;
        let key = Key::new(&stat, node.value.mount.identity);
        if node.value.state().key != key {
            // Under its own descriptor an inode stays itself: overlayfs has copied it up.
            self.inodes.rekey(node, key);
        }
        Ok(stat)
    }

    fn stat_by_anchor(&self, node: &Node) -> Result<Statx, Errno> {
        let (anchor, key) = {
            let state = node.value.state();
            (state.anchor.clone().ok_or(Errno::STALE)?, state.key)
        };
        let parent = self.inodes.get(anchor.parent)?;
        let directory = self.descriptor(&parent)?;
        let name = Name::new(&anchor.name).map_err(|_| Errno::STALE)?;
        let stat = sys::stat_name(directory, name).map_err(gone_is_stale)?;
        if Key::new(&stat, node.value.mount.identity) == key {
            Ok(stat)
        } else {
            Err(Errno::STALE)
        }
    }

    /// Makes sure that an inode outlives the name it hangs on: to be called before the name goes.
    pub(crate) fn pin(&self, parent: &Node, name: Name<'_>) -> Option<Node> {
        let parent_id = NodeId::from_raw(parent.number);
        let node = self.inodes.believed(parent_id, name.as_c_str())?;
        if node.value.descriptor.load().is_none() {
            // What cannot be found is not what stands under the name, and stays as it is.
            let _ = self.descriptor(&node);
        }
        Some(node)
    }
}

/// A name that is gone says that the inode is not there; the guest looks it up again.
fn gone_is_stale(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
        other => other,
    }
}
