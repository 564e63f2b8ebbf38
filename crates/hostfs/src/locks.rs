//! Locks of the guest that the host sees: who holds what, by inode and owner.
//!
//! POSIX locks of one owner on one inode belong to one open file description on the host, whatever
//! handle they are taken through: so they replace one another as `fcntl(2)` has it, and exclude
//! those of other owners, of other guests and of the host's processes. The description exists while
//! the owner holds or awaits a lock. A lock of `flock(2)` belongs to the handle's own description.
//!
//! What is noted here is what the kernel did, in the kernel's order: calls of an owner take turns,
//! each with its note. One that sleeps takes no turn; it is made once more, without sleep, in turn.
//! Whoever closes a file waits for no turn, because a store may hang in a call: a lock that comes
//! too late is given back by who took it.
//!
//! Lock order: an owner's turn before its state; the table alone.

pub(crate) mod flock;
pub(crate) mod ranges;
pub(crate) mod waits;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtiofs_protocol::op::{Lock, LockRange, LockType};
use virtiofs_protocol::{Cancel, Errno, Fh, LockOwner, NodeId};

use crate::sys::lock::{LAST_BYTE, Patience, set};
use ranges::Ranges;
use waits::Waits;

/// Most ranges locked at once by a guest; ENOLCK beyond. The host's kernel goes through all of an inode's
/// at each call, with a lock of its own held.
pub(crate) const MOST_RANGES: usize = 16_384;

/// All of a file.
const EVERYTHING: LockRange = LockRange {
    start: 0,
    end: LAST_BYTE,
};

/// An owner of POSIX locks on one inode.
#[derive(Debug)]
pub(crate) struct Owner {
    id: LockOwner,
    description: OwnedFd,
    /// The handle through which it locked last: the guest's kernel tells nobody when a lock of its
    /// own open file descriptions goes, but for the handle's RELEASE.
    through: AtomicU64,
    turn: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ranges: Ranges,
    /// Process in the guest that locked last.
    pid: u32,
    /// Requests that are about to call, or in a call.
    users: usize,
    /// Not in the table any more: a lock taken now would be nobody's.
    is_gone: bool,
}

/// All owners, and those who sleep.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    inodes: Mutex<HashMap<NodeId, Vec<Arc<Owner>>>>,
    /// Owners in the table: read without its lock by requests that close files.
    owners: AtomicUsize,
    ranges: AtomicUsize,
    pub(crate) waits: Waits,
}

impl Owner {
    pub(crate) fn new(lock: &Lock, description: OwnedFd) -> Self {
        Self {
            id: lock.owner,
            description,
            through: AtomicU64::new(lock.file.raw()),
            turn: Mutex::default(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Owner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.description.as_fd()
    }
}

impl Locks {
    pub(crate) fn find(&self, node: NodeId, owner: LockOwner) -> Option<Arc<Owner>> {
        let inodes = self.inodes();
        let mut owners = inodes.get(&node)?.iter();
        owners.find(|one| one.id == owner).cloned()
    }

    /// Enters an owner, unless it was entered meanwhile.
    fn enter(&self, node: NodeId, owner: Owner) -> Arc<Owner> {
        let mut inodes = self.inodes();
        let owners = inodes.entry(node).or_default();
        if let Some(known) = owners.iter().find(|one| one.id == owner.id) {
            return Arc::clone(known);
        }
        let owner = Arc::new(owner);
        owners.push(Arc::clone(&owner));
        self.owners.fetch_add(1, Ordering::Release);
        owner
    }

    /// The owner of a lock, entered and in use until [`Locks::leave`].
    fn join(
        &self,
        node: NodeId,
        lock: &Lock,
        open: impl Fn() -> Result<OwnedFd, Errno>,
    ) -> Result<Arc<Owner>, Errno> {
        loop {
            let owner = match self.find(node, lock.owner) {
                Some(owner) => owner,
                None => self.enter(node, Owner::new(lock, open()?)),
            };
            let mut state = owner.state();
            if !state.is_gone {
                state.users += 1;
                drop(state);
                return Ok(owner);
            }
        }
    }

    /// Ends a use; an owner without locks or uses goes.
    fn leave(&self, node: NodeId, owner: &Arc<Owner>) {
        let mut state = owner.state();
        state.users -= 1;
        let unused = !state.is_gone && state.users == 0 && state.ranges.is_empty();
        state.is_gone |= unused;
        drop(state);
        if unused {
            self.remove(node, |one| std::ptr::eq(one, &raw const **owner));
        }
    }

    /// Takes or gives back a lock; `open` makes a description of the file.
    ///
    /// # Errors
    ///
    /// EAGAIN when it is held by another owner, ENOLCK when there are too many, EBADF when the file
    /// is closed meanwhile, and the kernel's.
    pub(crate) fn set(
        &self,
        node: NodeId,
        lock: &Lock,
        open: impl Fn() -> Result<OwnedFd, Errno>,
    ) -> Result<(), Errno> {
        if lock.lock_type == LockType::Unlock && self.find(node, lock.owner).is_none() {
            // It has nothing that could be given back.
            return Ok(());
        }
        let owner = self.join(node, lock, open)?;
        let growth = owner.state().ranges.growth(lock.lock_type, lock.range);
        let done = if growth > 0 && self.ranges.load(Ordering::Relaxed) + growth > MOST_RANGES {
            Err(Errno::NOLCK)
        } else {
            self.set_in_turn(&owner, lock)
        };
        self.leave(node, &owner);
        done
    }

    /// Waits for a lock.
    ///
    /// # Errors
    ///
    /// As [`Locks::set`], but for EAGAIN, and [`Cancel::lock_refusal`].
    pub(crate) fn wait(
        &self,
        node: NodeId,
        lock: &Lock,
        cancel: &Cancel,
        open: impl Fn() -> Result<OwnedFd, Errno>,
    ) -> Result<(), Errno> {
        if self.ranges.load(Ordering::Relaxed) + 2 > MOST_RANGES {
            return Err(Errno::NOLCK);
        }
        let owner = self.join(node, lock, open)?;
        let done = self.wait_as(&owner, lock, cancel);
        self.leave(node, &owner);
        done
    }

    fn wait_as(&self, owner: &Owner, lock: &Lock, cancel: &Cancel) -> Result<(), Errno> {
        loop {
            self.waits.sleep(cancel, || {
                let (lock_type, range) = (lock.lock_type, lock.range);
                set(owner.as_fd(), lock_type, range, Patience::UntilWoken)
            })?;
            match self.set_in_turn(owner, lock) {
                // Given back by another request of the owner in the meantime, and taken by another.
                Err(Errno::AGAIN) => {}
                Err(Errno::BADF) => return Err(cancel.lock_refusal().unwrap_or(Errno::BADF)),
                done => return done,
            }
        }
    }

    /// One call and its note.
    fn set_in_turn(&self, owner: &Owner, lock: &Lock) -> Result<(), Errno> {
        let _turn = owner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        set(owner.as_fd(), lock.lock_type, lock.range, Patience::None)?;
        let mut state = owner.state();
        if state.is_gone {
            drop(state);
            give_back(owner);
            return Err(Errno::BADF);
        }
        let before = state.ranges.len();
        state.ranges.set(lock.lock_type, lock.range);
        self.recount(before, state.ranges.len());
        if lock.lock_type != LockType::Unlock {
            state.pid = lock.pid;
            owner.through.store(lock.file.raw(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn recount(&self, before: usize, now: usize) {
        self.ranges.fetch_add(now, Ordering::Relaxed);
        self.ranges.fetch_sub(before, Ordering::Relaxed);
    }

    /// The process in the guest that holds a lock in this range, other than this owner's; 0 when none does.
    pub(crate) fn holder(&self, node: NodeId, range: LockRange, but: LockOwner) -> u32 {
        let owners = self.inodes().get(&node).cloned().unwrap_or_default();
        owners
            .iter()
            .filter(|owner| owner.id != but)
            .find_map(|owner| {
                let state = owner.state();
                state.ranges.touch(range).then_some(state.pid)
            })
            .unwrap_or(0)
    }

    /// A descriptor was closed in the guest: its process has no locks on the file any more.
    pub(crate) fn flush(&self, node: NodeId, owner: LockOwner) {
        self.drop_of(node, |one| one.id == owner);
    }

    /// An open file is gone, and with it the locks that were its own.
    pub(crate) fn release(&self, node: NodeId, file: Fh) {
        self.drop_of(node, |one| {
            one.through.load(Ordering::Relaxed) == file.raw()
        });
    }

    /// Everything goes.
    pub(crate) fn clear(&self) {
        let inodes = std::mem::take(&mut *self.inodes());
        inodes.into_values().flatten().for_each(|owner| {
            self.owners.fetch_sub(1, Ordering::Release);
            self.dispose(&owner);
        });
    }

    fn drop_of(&self, node: NodeId, of: impl Fn(&Owner) -> bool) {
        if self.owners.load(Ordering::Acquire) == 0 {
            return;
        }
        for owner in self.remove(node, of) {
            self.dispose(&owner);
        }
    }

    fn remove(&self, node: NodeId, of: impl Fn(&Owner) -> bool) -> Vec<Arc<Owner>> {
        let mut inodes = self.inodes();
        let Some(owners) = inodes.get_mut(&node) else {
            return Vec::new();
        };
        let gone: Vec<_> = owners.extract_if(.., |owner| of(owner)).collect();
        if owners.is_empty() {
            inodes.remove(&node);
        }
        self.owners.fetch_sub(gone.len(), Ordering::Release);
        gone
    }

    /// Lets an owner that is out of the table go.
    fn dispose(&self, owner: &Owner) {
        let mut state = owner.state();
        state.is_gone = true;
        let before = std::mem::take(&mut state.ranges).len();
        self.recount(before, 0);
        let is_used = state.users > 0;
        drop(state);
        if is_used {
            give_back(owner);
        }
    }

    fn inodes(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<Arc<Owner>>>> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives back all that an owner has, because others keep its description open. A store that cannot
/// do so does it at the close.
fn give_back(owner: &Owner) {
    let _ = set(owner.as_fd(), LockType::Unlock, EVERYTHING, Patience::None);
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use virtiofs_protocol::op::LockKind;

    use super::*;

    /// The store hangs in a call of the owner: whoever closes the file does not hang with it, and
    /// what the call takes in the end is given back.
    #[test]
    fn closing_a_file_waits_for_no_call() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Ok(OwnedFd::from(file.reopen().unwrap()));
        let locks = Locks::default();
        let node = NodeId::from_raw(2);
        let lock = Lock {
            file: Fh::from_raw(3),
            owner: LockOwner(4),
            kind: LockKind::Posix,
            lock_type: LockType::Write,
            range: EVERYTHING,
            pid: 5,
        };
        let hangs = locks.join(node, &lock, open).unwrap();
        let turn = hangs.turn.lock().unwrap();
        let closes: [fn(&Locks, NodeId); 3] = [
            |locks, node| locks.flush(node, LockOwner(4)),
            |locks, node| locks.release(node, Fh::from_raw(3)),
            |locks, _| locks.clear(),
        ];
        for close in closes {
            close(&locks, node);
            assert!(locks.find(node, LockOwner(4)).is_none());
            let other = locks.join(node, &lock, open).unwrap();
            locks.leave(node, &other);
        }
        drop(turn);
        assert_eq!(locks.set_in_turn(&hangs, &lock), Err(Errno::BADF));
        let other = File::from(open().unwrap());
        let free = set(other.as_fd(), LockType::Write, EVERYTHING, Patience::None);
        assert_eq!(free, Ok(()), "kept by a description that nobody owns");
        locks.leave(node, &hangs);
        assert_eq!(locks.owners.load(Ordering::Relaxed), 0);
        assert_eq!(locks.ranges.load(Ordering::Relaxed), 0);
    }
}
