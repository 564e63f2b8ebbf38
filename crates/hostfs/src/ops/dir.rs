//! OPENDIR, READDIR, READDIRPLUS and RELEASEDIR.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;

use virtiofs_protocol::op::{Opendir, Readdir, Releasedir};
use virtiofs_protocol::{
    Context, DirEntries, DirEntry, Entry, Errno, Name, NodeId, Opened, Outcome, Push, Refusal,
};

use crate::PassthroughFs;
use crate::handle::cursor::Visit;
use crate::handle::{DirectoryRef, Handle, OpenDirectory};
use crate::inode::Node;
use crate::inode::key::{Identity, Key};
use crate::ops::openless::does_without_opendirs;
use crate::sys;

/// Entries that one request passes over for one reason: a store that lies may have no others, and no end.
const MOST_PASSED_OVER: u32 = 10_000;

impl PassthroughFs {
    pub(crate) fn op_opendir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Opendir,
    ) -> Outcome<Opened> {
        let (_, held) = self.directory(cx, node)?;
        if does_without_opendirs(cx) {
            return Err(Refusal::Errno(Errno::NOSYS));
        }
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let descriptor = self.retried(|| sys::reopen_directory(proc_self_fd, held.as_fd()))?;
        self.leave_atime_alone(descriptor.as_fd(), op.guest_flags);
        let directory = OpenDirectory {
            node,
            descriptor,
            cursor: Box::default(),
        };
        let handle = self.handles.insert(Handle::Directory(directory))?;
        Ok(Opened {
            handle,
            flags: self.options.cache.directory_flags(),
        })
    }

    pub(crate) fn op_readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        self.node(cx, node)?;
        let open = self.directory_of(cx, node, op.directory)?;
        walk(&open, op, |_, entry, _| Ok(visit(into.push(entry))))?;
        Ok(())
    }

    pub(crate) fn op_readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        let parent = self.node(cx, node)?;
        let open = self.directory_of(cx, node, op.directory)?;
        let mut gone = 0;
        walk(&open, op, |directory, entry, name| {
            if !into.takes_plus(entry.name.len()) {
                return Ok(Visit::Stop);
            }
            // `.` and `..` are no names: the guest knows them already.
            let Ok(name) = Name::new(name) else {
                return Ok(visit(into.push_plus(None, entry)));
            };
            let looked_up = match self.look_up_listed(cx, &parent, directory, name) {
                Ok(found) => Some(found),
                // Gone since it was listed; after so many they are left to the guest.
                Err(Errno::NOENT) if gone < MOST_PASSED_OVER => {
                    gone += 1;
                    return Ok(Visit::Next);
                }
                // Told when the guest looks the name up itself.
                Err(_) => None,
            };
            Ok(visit(into.push_plus(looked_up, entry)))
        })?;
        Ok(())
    }

    pub(crate) fn op_releasedir(&self, op: Releasedir) -> Outcome<()> {
        self.handles.remove(op.directory)?;
        Ok(())
    }

    /// One call per name, where the store's identities allow it.
    fn look_up_listed(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        directory: BorrowedFd<'_>,
        name: Name<'_>,
    ) -> Result<Entry, Errno> {
        let stat = sys::stat_name(directory, name)?;
        // One that was born just now is held for a while: nothing else tells it from its successor.
        let newborn = Key::new(&stat, Identity::Birth).is_newborn();
        if !newborn && let Some(entry) = self.enter_by_name(cx, parent, name, &stat) {
            return entry;
        }
        self.enter(cx, parent, name, self.found(directory, name)?)
    }
}

fn walk(
    open: &DirectoryRef,
    op: Readdir,
    mut each: impl FnMut(BorrowedFd<'_>, &DirEntry<'_>, &CStr) -> Result<Visit, Errno>,
) -> Result<(), Errno> {
    let open = open.directory()?;
    let directory = open.descriptor.as_fd();
    let mut cursor = open.cursor.lock().unwrap_or_else(PoisonError::into_inner);
    let mut too_long = 0;
    cursor.walk(directory, op.offset, |entry, name| {
        if entry.name.len() <= Name::MAX {
            return each(directory, entry, name);
        }
        // No request could name it, and no guest of Linux expects it.
        too_long += 1;
        if too_long > MOST_PASSED_OVER {
            return Err(Errno::IO);
        }
        Ok(Visit::Next)
    })
}

fn visit(push: Push) -> Visit {
    match push {
        Push::Done => Visit::Next,
        Push::Full => Visit::Stop,
    }
}
