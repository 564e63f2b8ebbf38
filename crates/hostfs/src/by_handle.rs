//! Finding an inode by its file handle (man 2 name_to_handle_at), by way of somebody who may.
//!
//! A handle finds an inode wherever the host has moved its names. Opening one takes a capability with which every
//! inode of the store can be opened, so nothing here does it: whoever embeds this crate may lend it [`FileHandles`],
//! which are asked for a handle when an inode's descriptor is about to be closed, and at no other time.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, ftruncate};
use virtiofs_protocol::{Errno, NodeId};

use crate::PassthroughFs;
use crate::inode::Node;
use crate::inode::key::Key;
use crate::sys;

/// Longest path that a handle is asked for, in bytes: below PATH_MAX (linux/limits.h), with room for a header.
const MOST_PATH_BYTES: usize = 4000;

/// Makes handles and opens them, for a file system that may not.
pub trait FileHandles: fmt::Debug + Send + Sync {
    /// Makes a handle of what stands at the end of a path: names from the share's root on, joined by `/`.
    ///
    /// `None` where there is none, or nobody has time to make one.
    fn make(&self, path: &[u8]) -> Option<FileHandle>;

    /// Opens the inode of a handle that was made here: `O_PATH` for any type, more for regular files and directories.
    ///
    /// # Errors
    ///
    /// ESTALE when it is gone for good; any other errno when it could not be opened now.
    fn open(&self, handle: &FileHandle, flags: OFlags) -> Result<OwnedFd, Errno>;

    /// Whether handles can be opened: what was made can be counted on.
    fn work(&self) -> bool;
}

/// What its maker finds an inode by. The maker's business; here it is only kept.
#[derive(Clone, PartialEq, Eq)]
pub struct FileHandle(Arc<[u8]>);

impl FileHandle {
    /// Keeps what the maker said.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// What the maker said.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHandle({} bytes)", self.0.len())
    }
}

/// Handles that are lent, and those that were made.
#[derive(Debug)]
pub(crate) struct Lent {
    handles: Box<dyn FileHandles>,
    /// By inode, but not in its row: who lends no handles pays nothing for them.
    made: Mutex<HashMap<NodeId, FileHandle>>,
}

impl Lent {
    fn made(&self) -> MutexGuard<'_, HashMap<NodeId, FileHandle>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, node: &Node) -> Option<FileHandle> {
        self.made().get(&NodeId::from_raw(node.number)).cloned()
    }

    /// The guest knows the inode no longer.
    pub(crate) fn forget(&self, node: NodeId) {
        self.made().remove(&node);
    }

    /// The guest knows no inode any longer.
    pub(crate) fn clear(&self) {
        self.made().clear();
    }
}

impl PassthroughFs {
    /// Lends it handles: an inode that lost its name while it held no descriptor is then found all the same.
    #[must_use]
    pub fn with_handles(mut self, handles: impl FileHandles + 'static) -> Self {
        self.by_handle = Some(Lent {
            handles: Box::new(handles),
            made: Mutex::default(),
        });
        self
    }

    /// Sees to it that an inode which is about to lose its descriptor has a handle, where there are any.
    pub(crate) fn make_handle(&self, node: &Node) {
        let Some(lent) = &self.by_handle else {
            return;
        };
        if lent.of(node).is_some() {
            return;
        }
        let id = NodeId::from_raw(node.number);
        if let Some(handle) = self.path_of(node).and_then(|path| lent.handles.make(&path)) {
            let mut made = lent.made();
            made.insert(id, handle);
            // A directory may leave with the last of its entries, unnoticed here.
            if u64::try_from(made.len()).is_ok_and(|handles| handles > self.known_inodes()) {
                made.retain(|id, _| self.inodes.get(*id).is_ok());
            }
        }
        // Forgotten meanwhile: whoever forgot it came too early to take this away.
        if node.value.state().gone {
            lent.forget(id);
        }
    }

    /// Whether the inode would be found without its name.
    pub(crate) fn is_found_by_handle(&self, node: &Node) -> bool {
        let lent = self.by_handle.as_ref();
        lent.is_some_and(|lent| lent.handles.work() && lent.of(node).is_some())
    }

    /// Holds an inode that is not where it was seen last.
    ///
    /// # Errors
    ///
    /// ESTALE when it has no handle, or its handle finds nothing.
    pub(crate) fn hold_by_handle(&self, node: &Node) -> Result<OwnedFd, Errno> {
        self.open_by_handle(node, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens what a descriptor of the inode holds; by its handle where the host no longer knows in which directory it
    /// is: Landlock refuses such a file, because no rule can tell that it is below the share.
    pub(crate) fn open_again(
        &self,
        node: &Node,
        held: BorrowedFd<'_>,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let opened = self.retried(|| sys::reopen(self.root.proc_self_fd.as_fd(), held, flags));
        if opened.as_ref().err() != Some(&Errno::ACCESS) || !self.is_found_by_handle(node) {
            return opened;
        }
        let opened = self.open_by_handle(node, flags - OFlags::TRUNC)?;
        if flags.contains(OFlags::TRUNC) {
            // By this process, which knows whether set-id bits are to go.
            ftruncate(&opened, 0)?;
        }
        Ok(opened)
    }

    fn open_by_handle(&self, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        let lent = self.by_handle.as_ref().ok_or(Errno::STALE)?;
        let handle = lent.of(node).ok_or(Errno::STALE)?;
        let key = node.value.state().key;
        let opened = lent
            .handles
            .open(&handle, flags)
            .map_err(|errno| match errno {
                Errno::ACCESS | Errno::PERM => Errno::STALE,
                errno => errno,
            });
        if opened.as_ref().err() == Some(&Errno::STALE) && flags.contains(OFlags::PATH) {
            // An inode that is gone does not come back, and is not asked for again.
            lent.forget(NodeId::from_raw(node.number));
        }
        let opened = opened?;
        // The path may have led elsewhere when the handle was made.
        let stat = sys::stat_fd(opened.as_fd())?;
        if Key::new(&stat, node.value.mount.identity) == key {
            Ok(opened)
        } else {
            Err(Errno::STALE)
        }
    }

    /// The names from the root to the inode, as they were seen last. `None` where that is too long, or leads nowhere.
    fn path_of(&self, node: &Node) -> Option<Vec<u8>> {
        let mut names: Vec<Box<CStr>> = Vec::new();
        let mut len_bytes = 0;
        let mut at = Arc::clone(node);
        while at.number != NodeId::ROOT.raw() {
            let anchor = at.value.state().anchor.clone()?;
            len_bytes += anchor.name.to_bytes().len() + 1;
            // Names in a circle, which the host can make of what was seen last, end here too.
            if len_bytes > MOST_PATH_BYTES {
                return None;
            }
            names.push(anchor.name);
            at = Arc::clone(&*self.inodes.get(anchor.parent).ok()?);
        }
        let names: Vec<&[u8]> = names.iter().rev().map(|name| name.to_bytes()).collect();
        Some(names.join(&b'/'))
    }
}
