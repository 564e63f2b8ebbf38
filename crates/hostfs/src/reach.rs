//! From a node's number to a descriptor of the very inode, or ESTALE.
//!
//! An inode that holds no descriptor hangs on a name in a directory. What stands under that name
//! is held first and looked at through the descriptor, so that a rename between two calls never
//! pairs one file's identity with another's descriptor. What is not under its name any more is
//! found by its handle, where there are handles, or by what is open.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{OFlags, Stat, Statx};
use virtiofs_protocol::{Errno, Name, NodeId, Outcome, Refusal};

use crate::PassthroughFs;
use crate::hot::Fate;
use crate::inode::key::{Identity, Key};
use crate::inode::{Anchor, Held, NameBuffer, Node, UsedNode};
use crate::sys;

/// A name that moves while we look is followed so many times.
const ATTEMPTS: usize = 4;

/// What becomes of the descriptors found on the way to an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Each inode keeps its own.
    Kept,
    /// They close again: this is a way to find out, on which nothing else is let go.
    Passing,
}

/// A descriptor to start from, and the inodes below it with their names, the next one last.
type Way = (Arc<Held>, Vec<(Node, Box<CStr>)>);

/// How badly room for descriptors is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The budget is exceeded: what was used of late is spared.
    Thrift,
    /// There are none left.
    Want,
}

/// An inode that keeps its descriptor while a request takes its name away.
#[derive(Debug)]
pub(crate) struct Pinned(pub(crate) Node);

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut state = self.0.value.state();
        state.pins = state.pins.saturating_sub(1);
    }
}

impl PassthroughFs {
    /// A descriptor of the inode: the one it holds, or one found by its name and verified.
    ///
    /// Iterative, because a guest may nest directories as deep as it likes.
    ///
    /// # Errors
    ///
    /// ESTALE when the inode is not where it was seen last, and is not open either.
    pub(crate) fn descriptor(&self, node: &Node) -> Result<Arc<Held>, Errno> {
        if let Some(held) = self.held(node) {
            return Ok(held);
        }
        for _ in 0..ATTEMPTS {
            match self.descend(node, Finding::Kept) {
                Err(Errno::STALE) => {}
                found => return found,
            }
        }
        if let Ok(found) = self.hold_by_handle(node) {
            // What was seen last of the directories above it leads nowhere.
            return Ok(self.keep(node, found));
        }
        self.descriptor_of_what_is_open(node)
    }

    /// The descriptor that it holds already.
    fn held(&self, node: &Node) -> Option<Arc<Held>> {
        let held = self.if_it(node, node.value.held()?)?;
        self.hot.stir();
        Some(held)
    }

    /// What an inode holds, if that is the inode: looked at now where it was not before.
    fn if_it(&self, node: &Node, held: Arc<Held>) -> Option<Arc<Held>> {
        if held.is_seen() {
            return Some(held);
        }
        let stat = sys::stat_fd(&held).ok()?;
        self.see(node, &held, &stat).then_some(held)
    }

    /// Judges an unseen descriptor by a look at it; what is not the inode is let go.
    fn see(&self, node: &Node, held: &Arc<Held>, stat: &Statx) -> bool {
        let is_it = Key::new(stat, node.value.mount.identity) == node.value.state().key;
        if is_it {
            held.see();
        } else {
            node.value.disown(held);
        }
        is_it
    }

    /// Lost on the host, but still open in the guest: what is open is the inode.
    fn descriptor_of_what_is_open(&self, node: &Node) -> Result<Arc<Held>, Errno> {
        let open = self.handles.any_of(NodeId::from_raw(node.number));
        let open = open.ok_or(Errno::STALE)?;
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let found = self.retried(|| sys::reopen(proc_self_fd, open.value.as_fd(), OFlags::PATH))?;
        Ok(self.keep(node, found))
    }

    /// Finds the nearest ancestor with a descriptor and comes down from it.
    fn descend(&self, node: &Node, finding: Finding) -> Result<Arc<Held>, Errno> {
        let (mut held, mut way) = self.way_to(node)?;
        while let Some((node, name)) = way.pop() {
            let found = match self.step_down(held.as_fd(), (&node, &name), finding) {
                Err(Errno::STALE) => self.hold_by_handle(&node)?,
                found => found?,
            };
            held = match finding {
                Finding::Kept => self.keep(&node, found),
                Finding::Passing => Held::seen(found),
            };
        }
        Ok(held)
    }

    /// Holds what stands under a name, if it is this inode.
    fn step_down(
        &self,
        directory: BorrowedFd<'_>,
        (node, name): (&Node, &CStr),
        finding: Finding,
    ) -> Result<OwnedFd, Errno> {
        let name = Name::new(name).map_err(|_| Errno::STALE)?;
        let hold = || sys::hold(directory, name);
        let found = match finding {
            Finding::Kept => self.retried(hold),
            Finding::Passing => hold(),
        }
        .map_err(gone_is_stale)?;
        let stat = sys::stat_fd(found.as_fd())?;
        if Key::new(&stat, node.value.mount.identity) == node.value.state().key {
            Ok(found)
        } else {
            Err(Errno::STALE)
        }
    }

    /// The way down to the inode from its nearest ancestor with a descriptor.
    fn way_to(&self, node: &Node) -> Result<Way, Errno> {
        let mut way = Vec::new();
        let mut at = Arc::clone(node);
        let mut mark = at.number;
        loop {
            let held = at.value.descriptor.load_full();
            if let Some(held) = held.and_then(|held| self.if_it(&at, held)) {
                return Ok((held, way));
            }
            let anchor = at.value.state().anchor.clone().ok_or(Errno::STALE)?;
            let parent = Arc::clone(&*self.inodes.get(anchor.parent)?);
            // Where the host moved directories about, what was seen last may go in a circle: a
            // mark that moves on ever more rarely is met again.
            if parent.number == mark {
                return Err(Errno::STALE);
            }
            way.push((at, anchor.name));
            if way.len().is_power_of_two() {
                mark = parent.number;
            }
            at = parent;
        }
    }

    /// Gives the inode a descriptor that was looked at, unless another thread was faster.
    pub(crate) fn keep(&self, node: &Node, descriptor: OwnedFd) -> Arc<Held> {
        let descriptor = Held::seen(descriptor);
        match node.value.hold(&descriptor) {
            None => self.note_holder(node),
            Some(faster) if faster.is_seen() => return faster,
            Some(_) => {}
        }
        descriptor
    }

    /// Counts a new holder of a descriptor, and lets old ones go when there are too many.
    pub(crate) fn note_holder(&self, node: &Node) {
        if node.number != NodeId::ROOT.raw() && self.hot.add(NodeId::from_raw(node.number)) {
            self.cool_down(2, Need::Thrift);
        }
    }

    /// Takes the descriptors of up to `wanted` inodes that can be found by name; looks at a few more.
    fn cool_down(&self, wanted: usize, need: Need) {
        let mut left = wanted;
        for _ in 0..wanted * 8 {
            let Some(oldest) = self.hot.oldest() else {
                return;
            };
            let Some(node) = self.holder(oldest) else {
                continue;
            };
            let spared = need == Need::Thrift && node.value.take_used();
            if spared || !self.let_go(&node) {
                self.hot.put_back(oldest);
            } else {
                left -= 1;
            }
            if left == 0 {
                return;
            }
        }
    }

    fn holder(&self, node: NodeId) -> Option<UsedNode> {
        let node = self.inodes.get(node).ok()?;
        node.value.descriptor.load().is_some().then_some(node)
    }

    /// Lets the descriptor go where the inode would be found without it; returns whether it did.
    fn let_go(&self, node: &Node) -> bool {
        let Some(anchor) = node.value.findable() else {
            return false;
        };
        if self.is_at(node, &anchor) {
            self.make_handle(node);
        } else if !self.is_found_by_handle(node) {
            return false;
        }
        node.value.let_go(&anchor)
    }

    /// Whether the inode would be found by this name, and nothing else could be taken for it.
    fn is_at(&self, node: &Node, anchor: &Anchor) -> bool {
        let stat = || {
            let parent = self.inodes.get(anchor.parent)?;
            // Opened for a moment where it must be: kept, it would only take its child's place.
            let directory = self.descend(&parent, Finding::Passing)?;
            sys::stat_name(directory, Name::new(&anchor.name)?)
        };
        stat().is_ok_and(|stat| {
            let key = Key::new(&stat, node.value.mount.identity);
            key == node.value.state().key && !key.is_newborn()
        })
    }

    /// Closes what was not used for a while; returns when to look again, if there is a reason to.
    ///
    /// A descriptor keeps the blocks of a file that the host has removed, and its mount busy.
    pub(crate) fn close_idle(&self) -> Option<Duration> {
        self.hot.sweep(|node| {
            let Some(node) = self.holder(node) else {
                return Fate::Gone;
            };
            if node.value.take_used() {
                Fate::Used
            } else if self.let_go(&node) || self.let_go_of_removed(&node) {
                Fate::Gone
            } else {
                Fate::Needed
            }
        })
    }

    /// Lets go of an inode whose last name the host has removed: nobody can find it but by what is open.
    ///
    /// What the guest has removed itself hangs on no name, and is kept until it is forgotten.
    fn let_go_of_removed(&self, node: &Node) -> bool {
        let (Some(anchor), Some(held)) = (node.value.findable(), node.value.descriptor.load_full())
        else {
            return false;
        };
        sys::stat_fd(held).is_ok_and(|stat| stat.stx_nlink == 0) && node.value.let_go(&anchor)
    }

    /// Runs a call that needs a descriptor; when there is none left, makes room and runs it again.
    pub(crate) fn retried<T>(
        &self,
        mut call: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match call() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.resting.clear();
                self.cool_down(16, Need::Want);
                call()
            }
            done => done,
        }
    }

    /// Looks at the inode in one system call.
    ///
    /// # Errors
    ///
    /// ESTALE when it is not where it was seen last, and is not open either.
    pub(crate) fn stat(&self, node: &Node) -> Result<Statx, Errno> {
        let stat = self.stat_wherever(node)?;
        self.note_directory(node, stat.stx_mode.into());
        Ok(stat)
    }

    /// Looks at the attributes of an inode that is held and stays itself; `None` where its identity
    /// has to be looked at as well, as [`PassthroughFs::stat`] does.
    pub(crate) fn attributes_held(&self, node: &Node) -> Option<Result<Stat, Errno>> {
        let lent = node.value.lent();
        let held = lent.as_ref().filter(|held| stays_itself(node, held))?;
        self.hot.stir();
        Some(sys::attributes_fd(held))
    }

    /// Whatever is rare stands apart: what is left here hands on the kernel's answer as it lies.
    fn stat_wherever(&self, node: &Node) -> Result<Statx, Errno> {
        let lent = node.value.lent();
        match lent.as_ref() {
            Some(held) if stays_itself(node, held) => {
                self.hot.stir();
                sys::stat_fd(held)
            }
            Some(held) => self.stat_doubtful(node, held),
            None => self.stat_not_held(node),
        }
    }

    #[inline(never)]
    fn stat_not_held(&self, node: &Node) -> Result<Statx, Errno> {
        self.stat_by_anchor(node)
            .or_else(|_| sys::stat_fd(self.descriptor(node)?))
    }

    /// By a descriptor that may not be the inode's, or under which its identity may have changed.
    #[inline(never)]
    fn stat_doubtful(&self, node: &Node, held: &Arc<Held>) -> Result<Statx, Errno> {
        self.hot.stir();
        let stat = sys::stat_fd(held)?;
        if !held.is_seen() {
            return if self.see(node, held, &stat) {
                Ok(stat)
            } else {
                sys::stat_fd(self.descriptor(node)?)
            };
        }
        let key = Key::new(&stat, node.value.mount.identity);
        if node.value.state().key != key {
            // Under its own descriptor an inode stays itself: overlayfs has copied it up.
            self.inodes.rekey(node, key);
        }
        Ok(stat)
    }

    /// Hands a request's outcome on; one that says that the store does not know the node any more is looked into.
    ///
    /// On a network store a descriptor does not keep a file: a server that has replaced it under its number
    /// answers ESTALE, or a FUSE file system EIO, for as long as the descriptor is held. Its name finds the
    /// new file, by the same identity. So that a guest which looks it up again is not given the old node
    /// once more, that one loses its identity.
    #[inline]
    pub(crate) fn noting_loss<T>(&self, node: NodeId, outcome: Outcome<T>) -> Outcome<T> {
        if matches!(outcome, Err(Refusal::Errno(Errno::STALE | Errno::IO))) {
            self.look_for_loss(node);
        }
        outcome
    }

    #[inline(never)]
    fn look_for_loss(&self, node: NodeId) {
        let Ok(node) = self.inodes.get(node) else {
            return;
        };
        let mount = &node.value.mount;
        if mount.identity != Identity::Pinned || !mount.slow {
            return;
        }
        let Some(held) = node.value.descriptor.load_full() else {
            return;
        };
        if matches!(sys::stat_fd(&held), Err(Errno::STALE | Errno::IO)) {
            let key = node.value.state().key;
            self.inodes.rekey(&node, key.lost());
            // Held, it may be what keeps the host's kernel from asking the server anew.
            node.value.disown(&held);
        }
    }

    /// Looks at the inode where it was seen last; ESTALE when it is not there.
    pub(crate) fn stat_by_anchor(&self, node: &Node) -> Result<Statx, Errno> {
        let mut buffer = NameBuffer::default();
        let (parent, name, key) = {
            let state = node.value.state();
            let anchor = state.anchor.as_ref().ok_or(Errno::STALE)?;
            (anchor.parent, buffer.copy(&anchor.name)?, state.key)
        };
        let parent = self.inodes.get(parent)?;
        let directory = self.descriptor(&parent)?;
        let name = Name::new(name).map_err(|_| Errno::STALE)?;
        let stat = sys::stat_name(directory, name).map_err(gone_is_stale)?;
        if Key::new(&stat, node.value.mount.identity) == key {
            Ok(stat)
        } else {
            Err(Errno::STALE)
        }
    }

    /// Makes sure that an inode outlives the name it hangs on: to be called before the name goes.
    ///
    /// What stands under the name is held, and only looked at if it is ever used: most often the
    /// guest forgets it next.
    ///
    /// # Errors
    ///
    /// ENFILE when there is no descriptor left for it, not even in the reserve; the host's where it cannot be held for
    /// another reason. Its name then stays.
    pub(crate) fn pin(
        &self,
        parent: &Node,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<Option<Pinned>, Errno> {
        let parent = NodeId::from_raw(parent.number);
        let Some(node) = self.inodes.believed(parent, name.as_c_str()) else {
            return Ok(None);
        };
        {
            let mut state = node.value.state();
            state.pins = state.pins.saturating_add(1);
        }
        let pinned = Pinned(Arc::clone(&node));
        while node.value.descriptor.load().is_none() {
            let found = match self.retried(|| sys::hold(directory, name)) {
                Ok(found) => found,
                Err(Errno::MFILE | Errno::NFILE) if self.reserve.give() => continue,
                Err(Errno::MFILE | Errno::NFILE) => return Err(Errno::NFILE),
                // Not what stands under the name, because nothing does; it stays as it is.
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(errno),
            };
            if node.value.hold(&Held::unseen(found)).is_none() {
                self.note_holder(&node);
            }
            break;
        }
        Ok(Some(pinned))
    }
}

/// Whether a descriptor is surely the inode's, and nothing can have changed which inode that is.
fn stays_itself(node: &Node, held: &Held) -> bool {
    held.is_seen() && node.value.mount.identity == Identity::Birth
}

/// A name that is gone says that the inode is not there; the guest looks it up again.
fn gone_is_stale(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
        other => other,
    }
}
