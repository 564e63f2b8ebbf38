//! GETLK, SETLK and SETLKW.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use virtiofs_protocol::op::{HeldLock, Lock, LockKind, LockRange, LockType};
use virtiofs_protocol::{Context, Errno, Lane, Outcome, Patience, Refusal};

use crate::PassthroughFs;
use crate::handle::{Access, OpenFile};
use crate::ops::may_take_long;
use crate::sys;
use crate::sys::lock::LAST_BYTE;

impl PassthroughFs {
    pub(crate) fn op_getlk(&self, cx: &Context<'_>, op: Lock) -> Outcome<Option<HeldLock>> {
        let op = checked(op)?;
        if op.kind == LockKind::Flock || op.lock_type == LockType::Unlock {
            // There is no such question in flock(2), nor in fcntl(2).
            return Err(Refusal::Errno(Errno::INVAL));
        }
        let handle = self.handles.file(op.file)?;
        let file = handle.file()?;
        may_take_long(cx, &file.mount)?;
        let owner = self.locks.find(file.node, op.owner);
        // An owner without locks asks through the handle, on whose own description there are none.
        let asks = owner.as_ref().map_or(file.as_fd(), |owner| owner.as_fd());
        let found = sys::lock::get(asks, op.lock_type, op.range)?;
        Ok(found.map(|(lock_type, range)| HeldLock {
            lock_type,
            range,
            pid: self.locks.holder(file.node, range, op.owner),
        }))
    }

    pub(crate) fn op_setlk(&self, cx: &Context<'_>, op: Lock) -> Outcome<()> {
        let op = checked(op)?;
        let handle = self.handles.file(op.file)?;
        let file = handle.file()?;
        may_take_long(cx, &file.mount)?;
        Ok(self.set_lock(file, &op)?)
    }

    pub(crate) fn op_setlkw(&self, cx: &Context<'_>, op: Lock) -> Outcome<()> {
        if op.lock_type == LockType::Unlock {
            return self.op_setlk(cx, op);
        }
        let op = checked(op)?;
        let handle = self.handles.file(op.file)?;
        let file = handle.file()?;
        match cx.patience {
            // Not the other lane, on whose threads it would then sleep.
            Patience::Never if file.mount.slow => Err(Refusal::WouldSleep(Lane::Lock)),
            Patience::Never => match self.set_lock(file, &op) {
                Err(Errno::AGAIN) => Err(Refusal::WouldSleep(Lane::Lock)),
                done => Ok(done?),
            },
            Patience::Until(cancel) => match op.kind {
                LockKind::Posix => {
                    may_lock(file, op.lock_type)?;
                    let open = || self.describe(file, op.lock_type);
                    Ok(self.locks.wait(file.node, &op, cancel, open)?)
                }
                LockKind::Flock => {
                    let how = (&self.locks.waits, cancel);
                    Ok(file.flock()?.wait(file.as_fd(), op.lock_type, how)?)
                }
            },
        }
    }

    fn set_lock(&self, file: &OpenFile, op: &Lock) -> Result<(), Errno> {
        match op.kind {
            LockKind::Posix => {
                may_lock(file, op.lock_type)?;
                let open = || self.describe(file, op.lock_type);
                self.locks.set(file.node, op, open)
            }
            LockKind::Flock => file.flock()?.set(file.as_fd(), op.lock_type),
        }
    }

    /// Opens the file once more, for an owner's locks of both types: the second type may be wanted
    /// through another handle, and locks cannot move to another description.
    fn describe(&self, file: &OpenFile, lock_type: LockType) -> Result<OwnedFd, Errno> {
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let open = |flags| self.retried(|| sys::reopen(proc_self_fd, file.as_fd(), flags));
        let one_type = match lock_type {
            LockType::Write => OFlags::WRONLY,
            LockType::Read | LockType::Unlock => OFlags::RDONLY,
        };
        let opened = match open(OFlags::RDWR) {
            // Not to be written here, by whatever rule: what else fails, fails for one type as well.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => open(one_type),
            opened => opened,
        };
        opened.map_err(|errno| match errno {
            // What fcntl(2) answers when there are too many locks.
            Errno::MFILE | Errno::NFILE => Errno::NOLCK,
            errno => errno,
        })
    }
}

/// The range as far as a file can reach.
fn checked(op: Lock) -> Result<Lock, Errno> {
    let range = LockRange {
        start: op.range.start,
        end: op.range.end.min(LAST_BYTE),
    };
    if range.start > range.end {
        return Err(Errno::INVAL);
    }
    Ok(Lock { range, ..op })
}

/// EBADF where the guest's open file does not allow this type, as in fcntl(2).
fn may_lock(file: &OpenFile, lock_type: LockType) -> Result<(), Errno> {
    let refused = match lock_type {
        LockType::Read => Access::Writes,
        LockType::Write => Access::Reads,
        LockType::Unlock => return Ok(()),
    };
    if file.access == refused {
        Err(Errno::BADF)
    } else {
        Ok(())
    }
}
