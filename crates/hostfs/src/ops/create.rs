//! SYMLINK, MKNOD, MKDIR, CREATE and LINK.
//!
//! What is answered is what a descriptor of the new object holds, never what was asked for: a host
//! user may have put something else under the name meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, OFlags, linkat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::path::DecInt;
use virtiofs_protocol::op::{Create, Link, Mkdir, Mknod, NodeKind, Symlink, Tmpfile};
use virtiofs_protocol::{
    Context, Entry, Errno, Filesystem, Name, NodeId, Opened, Outcome, Refusal,
};

use crate::PassthroughFs;
use crate::attributes::decoded_device;
use crate::casefold::spellings::Change;
use crate::handle::Afterwards;
use crate::handover::{hand_over, remove_made};
use crate::inode::Node;
use crate::labels::NewLabel;
use crate::making::{NEW_FILE, New, NewFile};
use crate::ops::lookup::Found;
use crate::ops::spelling::Place;
use crate::ops::{done_already, may_take_long};
use crate::sys;

/// How often a CREATE tries when the name appears and disappears under it.
const ATTEMPTS: usize = 4;

impl PassthroughFs {
    pub(crate) fn op_mkdir(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Mkdir<'_>,
    ) -> Outcome<Entry> {
        let (parent, directory) = self.directory(cx, parent)?;
        let place = (&*parent, directory.as_fd());
        let spelling = self.spelling(cx, place, op.name)?;
        let name = spelling.name()?;
        self.inodes.room()?;
        let mode = self.masked(cx, &directory, op.mode, op.umask)?;
        let new = New {
            name,
            kind: FileType::Directory,
            extras: op.extras,
        };
        self.make(cx, directory.as_fd(), new, || {
            mkdirat(&directory, name.as_c_str(), mode)
        })?;
        Ok(self.made(cx, place, name)?)
    }

    pub(crate) fn op_mknod(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Mknod<'_>,
    ) -> Outcome<Entry> {
        let (parent, directory) = self.directory(cx, parent)?;
        let (kind, device) = match op.kind {
            NodeKind::File => (FileType::RegularFile, 0),
            NodeKind::Fifo => (FileType::Fifo, 0),
            NodeKind::Socket => (FileType::Socket, 0),
            NodeKind::CharDevice(device) => (FileType::CharacterDevice, device),
            NodeKind::BlockDevice(device) => (FileType::BlockDevice, device),
        };
        let (major, minor) = decoded_device(device);
        let device = makedev(major, minor);
        let place = (&*parent, directory.as_fd());
        let spelling = self.spelling(cx, place, op.name)?;
        let name = spelling.name()?;
        self.inodes.room()?;
        let mode = self.masked(cx, &directory, op.mode, op.umask)?;
        let new = New {
            name,
            kind,
            extras: op.extras,
        };
        match self.new_label(op.extras)? {
            NewLabel::Attribute(label) if kind == FileType::RegularFile => {
                let new = NewFile {
                    name,
                    extras: op.extras,
                    flags: OFlags::WRONLY | OFlags::CLOEXEC,
                    mode,
                };
                self.make_labelled_file(cx, directory.as_fd(), new, &label)?;
            }
            NewLabel::None | NewLabel::OfThread(..) | NewLabel::Attribute(_) => {
                self.make(cx, directory.as_fd(), new, || {
                    mknodat(&directory, name.as_c_str(), kind, mode, device)
                })?;
            }
        }
        Ok(self.made(cx, place, name)?)
    }

    pub(crate) fn op_symlink(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Symlink<'_>,
    ) -> Outcome<Entry> {
        let (parent, directory) = self.directory(cx, parent)?;
        let place = (&*parent, directory.as_fd());
        let spelling = self.spelling(cx, place, op.name)?;
        let name = spelling.name()?;
        self.inodes.room()?;
        let new = New {
            name,
            kind: FileType::Symlink,
            extras: op.extras,
        };
        self.make(cx, directory.as_fd(), new, || {
            symlinkat(op.target, &directory, name.as_c_str())
        })?;
        Ok(self.made(cx, place, name)?)
    }

    pub(crate) fn op_link(&self, cx: &Context<'_>, parent: NodeId, op: Link<'_>) -> Outcome<Entry> {
        let (parent, directory) = self.directory(cx, parent)?;
        let place = (&*parent, directory.as_fd());
        let spelling = self.spelling(cx, place, op.name)?;
        let name = spelling.name()?;
        let target = self.node(cx, op.target)?;
        let held = self.descriptor(&target)?;
        let proc_self_fd = &self.root.proc_self_fd;
        linkat(
            proc_self_fd,
            DecInt::from_fd(&held),
            &directory,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        self.note_change(place, Change::Made, name);
        let stat = done_already(|| sys::stat_fd(&held))?;
        if !target.value.state().count_lookup() {
            return Err(Refusal::Errno(Errno::STALE));
        }
        self.inodes.anchor(&target, &parent, name.as_c_str());
        Ok(self.entry(cx, &parent, &target, &stat))
    }

    pub(crate) fn op_create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Create<'_>,
    ) -> Outcome<(Entry, Opened)> {
        let (parent, directory) = self.directory(cx, parent)?;
        let place = (&*parent, directory.as_fd());
        let spelling = self.spelling(cx, place, op.name)?;
        let op = Create {
            name: spelling.name()?,
            ..op
        };
        let exclusive = OFlags::from_bits_retain(op.options.guest_flags).contains(OFlags::EXCL);
        for _ in 0..ATTEMPTS {
            let room = self.inodes.room();
            // What is there already may be known, and then takes no room.
            if room.is_ok() || exclusive {
                room?;
                match self.create_new(cx, &parent, directory.as_fd(), &op) {
                    Err(Errno::EXIST) if !exclusive => {}
                    made => return Ok(self.created(cx, place, &op, made?)?),
                }
            }
            match self.open_existing(cx, &parent, directory.as_fd(), &op) {
                Err(Refusal::Errno(Errno::NOENT)) => room?,
                opened => return opened,
            }
        }
        Err(Refusal::Errno(Errno::EXIST))
    }

    /// Always exclusive: what stands under the name already may be a FIFO, or the host user's trap.
    fn create_new(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        directory: BorrowedFd<'_>,
        op: &Create<'_>,
    ) -> Result<OwnedFd, Errno> {
        let flags = self.host_flags(cx, op.options.guest_flags) - OFlags::TRUNC;
        let mode = self.masked(cx, directory, op.mode, op.umask)?;
        let label = self.new_label(op.extras)?;
        if let NewLabel::Attribute(label) = &label {
            let new = NewFile {
                name: op.name,
                extras: op.extras,
                flags,
                mode,
            };
            return self.make_labelled_file(cx, directory, new, label);
        }
        let _labelling = label.begin()?;
        let flags = flags | NEW_FILE;
        let make = || self.retried(|| openat(directory, op.name.as_c_str(), flags, mode));
        match self.new_owner(cx, parent, mode)? {
            Some(owner) => hand_over(make()?, owner, directory, op.name),
            None => {
                let file = self.as_caller(cx, op.extras, make)?;
                self.learn_group_rule(cx, parent, file.as_fd());
                Ok(file)
            }
        }
    }

    /// Makes a file without a name; a LINK may give it one later.
    ///
    /// Not in a directory that grants nothing to anybody: such is the work directory of an overlay, and that of Linux
    /// 6.1, for one, goes on to look there for what it has since given a name elsewhere: ESTALE for good. EOPNOTSUPP
    /// is what Linux answers for a store that has no such files; an overlay then does without.
    pub(crate) fn op_tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: Tmpfile<'_>,
    ) -> Outcome<(Entry, Opened)> {
        let (parent, directory) = self.directory(cx, parent)?;
        if sys::stat_fd(&directory)?.stx_mode & 0o777 == 0 {
            return Err(Errno::OPNOTSUPP.into());
        }
        self.inodes.room()?;
        let flags = self.host_flags(cx, op.options.guest_flags) - OFlags::TRUNC;
        let mode = self.masked(cx, &directory, op.mode, op.umask)?;
        let file = self.make_nameless(cx, directory.as_fd(), op.extras, (flags, mode))?;
        let stat = sys::stat_fd(&file)?;
        let held = sys::reopen(self.root.proc_self_fd.as_fd(), file.as_fd(), OFlags::PATH)?;
        let node = self.enter_unnamed(held, &stat)?;
        let entry = self.entry(cx, &parent, &node, &stat);
        let file = (file, Afterwards::Closed);
        let opened = self.opened(cx, &node, file, op.options.guest_flags);
        let opened = opened.inspect_err(|_| self.forget(entry.node, 1))?;
        Ok((entry, opened))
    }

    /// Enters a file that was just made; one that cannot be is removed again.
    fn created(
        &self,
        cx: &Context<'_>,
        (parent, directory): Place<'_>,
        op: &Create<'_>,
        file: OwnedFd,
    ) -> Result<(Entry, Opened), Errno> {
        self.note_change((parent, directory), Change::Made, op.name);
        let entry = match self.entry_of_made(cx, parent, op.name, &file) {
            Ok(entry) => entry,
            Err(errno) => {
                remove_made(file.as_fd(), directory, op.name, AtFlags::empty());
                self.note_change((parent, directory), Change::Removed, op.name);
                return Err(errno);
            }
        };
        let file = (file, Afterwards::Closed);
        let opened = self
            .inodes
            .get(entry.node)
            .and_then(|node| self.opened(cx, &node, file, op.options.guest_flags));
        let opened = opened.inspect_err(|_| self.forget(entry.node, 1))?;
        Ok((entry, opened))
    }

    fn entry_of_made(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        name: Name<'_>,
        file: &OwnedFd,
    ) -> Result<Entry, Errno> {
        let stat = done_already(|| sys::stat_fd(file))?;
        if let Some(entry) = self.enter_by_name(cx, parent, name, &stat) {
            return entry;
        }
        // Not the open file itself: held open for writing, it could never be executed.
        let reopen = || sys::reopen(self.root.proc_self_fd.as_fd(), file.as_fd(), OFlags::PATH);
        let held = self.with_the_reserve(reopen)?;
        self.enter(cx, parent, name, Found { held, stat })
    }

    fn open_existing(
        &self,
        cx: &Context<'_>,
        parent: &Node,
        directory: BorrowedFd<'_>,
        op: &Create<'_>,
    ) -> Outcome<(Entry, Opened)> {
        let entry = self.enter(cx, parent, op.name, self.found(directory, op.name)?)?;
        let opened = self
            .inodes
            .get(entry.node)
            .map_err(Refusal::Errno)
            .and_then(|node| {
                may_take_long(cx, &node.value.mount)?;
                self.open_node(cx, &node, op.options)
            });
        let opened = opened.inspect_err(|_| self.forget(entry.node, 1))?;
        // Opening with O_TRUNC has changed what was looked at before.
        let entry = match self
            .inodes
            .get(entry.node)
            .and_then(|node| Ok(self.entry(cx, parent, &node, &self.stat(&node)?)))
        {
            Ok(entry) => entry,
            Err(_) => entry,
        };
        Ok((entry, opened))
    }

    /// Looks at what was just made, through a descriptor; where none is left, by its name. It is there now, so a
    /// failure would tell the guest what is not true: a look that fails is taken again, as by [`done_already`].
    fn made(
        &self,
        cx: &Context<'_>,
        (parent, directory): Place<'_>,
        name: Name<'_>,
    ) -> Result<Entry, Errno> {
        self.note_change((parent, directory), Change::Made, name);
        let found = match self.found(directory, name) {
            Err(Errno::MFILE | Errno::NFILE) => {
                let stat = sys::stat_name(directory, name)?;
                if let Some(entry) = self.enter_by_name(cx, parent, name, &stat) {
                    return entry;
                }
                self.with_the_reserve(|| self.found(directory, name))
            }
            Err(_) => self.found(directory, name),
            found => found,
        };
        self.enter(cx, parent, name, found?)
    }

    /// Does what has to have a descriptor, if need be one of those that were kept free.
    fn with_the_reserve<T>(&self, hold: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match hold() {
            Err(Errno::MFILE | Errno::NFILE) if self.reserve.give() => hold(),
            held => held,
        }
    }
}
