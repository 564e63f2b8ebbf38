//! Making a file for a caller without becoming the caller: as the daemon, then handed over by fchown.
//!
//! Becoming somebody and coming back are four system calls, handing over is one. It comes to the same only
//! where nothing but the caller decides about owner, group and mode: no set-id or sticky bits, which
//! fchown takes away; a directory that does not hand its group down; a mount that does not, either
//! (`grpid` of ext4 and xfs). Everywhere else the caller's identity is taken on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, chownat, unlinkat};
use rustix::process::{Gid, Uid};
use virtiofs_protocol::{Context, Errno, InitFlags, Name};

use crate::PassthroughFs;
use crate::acting_as::{owner_gid, owner_uid};
use crate::group_rule::{Rule, SETGID};
use crate::inode::Node;
use crate::inode::key::Identity;
use crate::sys;

/// Who a new file is handed over to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewOwner {
    uid: Uid,
    gid: Gid,
}

impl PassthroughFs {
    /// Remembers what was seen of a directory just now.
    pub(crate) fn note_directory(&self, node: &Node, mode: u32) {
        if node.value.is_directory() {
            node.value.plain.note(mode, self.start.elapsed());
        }
    }

    /// Who a new file can be handed over to; `None` where its maker has to be the caller.
    pub(crate) fn new_owner(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        mode: Mode,
    ) -> Result<Option<NewOwner>, Errno> {
        let (uid, gid) = self.creators_ids(cx)?;
        let (uid, gid) = (owner_uid(uid), owner_gid(gid));
        let mount = &parent.value.mount;
        let exact = self.service.may_hand_over(uid, gid)
            && mode.as_raw_mode() & 0o7000 == 0
            && mount.identity == Identity::Birth
            && !mount.group_rule.is(Rule::Directorys)
            // The umask and a default ACL are then ours to see to: the plain way is taken.
            && !cx.negotiated.flags.contains(InitFlags::DONT_MASK);
        if !exact {
            return Ok(None);
        }
        let rule_is_known = mount.group_rule.is(Rule::Callers);
        if rule_is_known && parent.value.plain.is_believed(self.start.elapsed()) {
            return Ok(Some(NewOwner { uid, gid }));
        }
        let directory = self.stat(parent)?;
        // Where both have one group, it is that one by any rule.
        let is_callers = directory.stx_gid == gid.as_raw();
        let is_plain = rule_is_known && directory.stx_mode & SETGID == 0;
        Ok((is_callers || is_plain).then_some(NewOwner { uid, gid }))
    }

    /// Learns how a mount gives groups, from a file that the caller has made in a plain directory.
    pub(crate) fn learn_group_rule(&self, cx: &Context<'_>, parent: &Node, made: BorrowedFd<'_>) {
        let rule = &parent.value.mount.group_rule;
        let Ok((uid, gid)) = self.creators_ids(cx) else {
            return;
        };
        let (uid, gid) = (owner_uid(uid), owner_gid(gid));
        if !rule.is(Rule::Unknown) || !self.service.may_hand_over(uid, gid) {
            return;
        }
        let (Ok(directory), Ok(made)) = (self.stat(parent), sys::stat_fd(made)) else {
            return;
        };
        let caller = gid.as_raw();
        // Where directory and caller have one group, nothing shows.
        if directory.stx_mode & SETGID != 0 || directory.stx_gid == caller {
            return;
        }
        let shown = if made.stx_gid == caller {
            Rule::Callers
        } else {
            Rule::Directorys
        };
        rule.learn(shown);
    }
}

/// Hands a new file over; one that cannot be is removed again.
pub(crate) fn hand_over(
    file: OwnedFd,
    owner: NewOwner,
    directory: BorrowedFd<'_>,
    name: Name<'_>,
) -> Result<OwnedFd, Errno> {
    let (uid, gid) = (Some(owner.uid), Some(owner.gid));
    match chownat(&file, c"", uid, gid, AtFlags::EMPTY_PATH) {
        Ok(()) => Ok(file),
        Err(errno) => {
            // An id that is nobody here, or a quota.
            remove_made(file.as_fd(), directory, name, AtFlags::empty());
            Err(errno)
        }
    }
}

/// Removes what was just made and cannot stay: only that, not what has taken its place.
pub(crate) fn remove_made(
    made: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    name: Name<'_>,
    kind: AtFlags,
) {
    let is_it = sys::stat_fd(made).and_then(|made| {
        let now = sys::stat_name(directory, name)?;
        Ok(now.stx_ino == made.stx_ino && now.stx_mnt_id == made.stx_mnt_id)
    });
    if is_it == Ok(true) {
        let _ = unlinkat(directory, name.as_c_str(), kind);
    }
}
