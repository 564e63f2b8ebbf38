//! Making an object on the host with the owner and the label that it is to have.
//!
//! Nobody finds it without its label where the store can do that; what cannot be labelled is removed again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, openat};
use rustix::path::DecInt;
use virtiofs_protocol::op::Extras;
use virtiofs_protocol::{Context, Errno, Gid, Name, Uid};

use crate::PassthroughFs;
use crate::acting_as::{ActingAs, Creator};
use crate::handover::remove_made;
use crate::idmap::Host;
use crate::labels::{Attribute, NewLabel};
use crate::ops::done_already;
use crate::ops::lookup::Found;
use crate::sys;

/// What is going to stand under a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) kind: FileType,
    pub(crate) extras: Extras<'a>,
}

/// A regular file that is going to be open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) extras: Extras<'a>,
    pub(crate) flags: OFlags,
    pub(crate) mode: Mode,
}

/// What makes a file of a name that is free, beside how it is opened.
pub(crate) const NEW_FILE: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl PassthroughFs {
    /// The caller's user and group on the host.
    ///
    /// # Errors
    ///
    /// EINVAL for an id that names nobody, EPERM for one that the guest may not use.
    pub(crate) fn creators_ids(&self, cx: &Context<'_>) -> Result<(Host<Uid>, Host<Gid>), Errno> {
        let (user, group) = cx.caller.creator()?;
        let ids = &self.options.identities;
        Ok((ids.host_user(user)?, ids.host_group(group)?))
    }

    /// Makes something under a name, with the identity and the label that it is to have.
    pub(crate) fn make(
        &self,
        cx: &Context<'_>,
        directory: BorrowedFd<'_>,
        new: New<'_>,
        make: impl FnMut() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let label = self.new_label(new.extras)?;
        let labelling = label.begin()?;
        self.as_caller(cx, new.extras, make)?;
        drop(labelling);
        match label {
            NewLabel::Attribute(label) => self.label_made(&label, directory, new),
            NewLabel::None | NewLabel::OfThread(..) => Ok(()),
        }
    }

    /// Makes a file without a name, labelled; what cannot be labelled is gone.
    pub(crate) fn make_nameless(
        &self,
        cx: &Context<'_>,
        directory: BorrowedFd<'_>,
        extras: Extras<'_>,
        (flags, mode): (OFlags, Mode),
    ) -> Result<OwnedFd, Errno> {
        let label = self.new_label(extras)?;
        let labelling = label.begin()?;
        let file = self.as_caller(cx, extras, || sys::make_nameless(directory, flags, mode))?;
        drop(labelling);
        if let NewLabel::Attribute(label) = label {
            label.put_on(&file)?;
        }
        Ok(file)
    }

    /// Makes a file that nobody finds without its label: it gets its name last.
    pub(crate) fn make_labelled_file(
        &self,
        cx: &Context<'_>,
        directory: BorrowedFd<'_>,
        new: NewFile<'_>,
        label: &Attribute<'_>,
    ) -> Result<OwnedFd, Errno> {
        // Before anything is asked for that only making it needs.
        if sys::stat_name(directory, new.name).is_ok() {
            return Err(Errno::EXIST);
        }
        let reads_only = new.flags & OFlags::RWMODE == OFlags::RDONLY;
        let nameless = if reads_only {
            // A file without a name is made to be written (man 2 open, O_TMPFILE).
            new.flags | OFlags::RDWR
        } else {
            new.flags
        };
        let made = match self.make_nameless(cx, directory, new.extras, (nameless, new.mode)) {
            // EISDIR is the answer of a store that does not know the flag (man 2 open).
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                return self.make_file_and_label(cx, directory, new, label);
            }
            made => made?,
        };
        let proc_self_fd = self.root.proc_self_fd.as_fd();
        let opened = if reads_only {
            sys::reopen(proc_self_fd, made.as_fd(), new.flags)?
        } else {
            made
        };
        linkat(
            proc_self_fd,
            DecInt::from_fd(&opened),
            directory,
            new.name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        Ok(opened)
    }

    /// As above, where the store makes no files without names.
    fn make_file_and_label(
        &self,
        cx: &Context<'_>,
        directory: BorrowedFd<'_>,
        new: NewFile<'_>,
        label: &Attribute<'_>,
    ) -> Result<OwnedFd, Errno> {
        let flags = new.flags | NEW_FILE;
        let made = self.as_caller(cx, new.extras, || {
            openat(directory, new.name.as_c_str(), flags, new.mode)
        })?;
        label.put_on(&made).inspect_err(|_| {
            remove_made(made.as_fd(), directory, new.name, AtFlags::empty());
        })?;
        Ok(made)
    }

    /// Labels what was just made under a name; what cannot be labelled is removed again.
    fn label_made(
        &self,
        label: &Attribute<'_>,
        directory: BorrowedFd<'_>,
        new: New<'_>,
    ) -> Result<(), Errno> {
        let Found { held, stat } = done_already(|| self.found(directory, new.name))?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != new.kind {
            // A user of the host has put something else there, which is not to be labelled.
            return Ok(());
        }
        label.put_on(&held).inspect_err(|_| {
            let kind = if new.kind == FileType::Directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            remove_made(held.as_fd(), directory, new.name, kind);
        })
    }

    /// Makes something with the identity that it is to have.
    ///
    /// EINVAL for an id that names nobody, EPERM for one that the guest may not use.
    pub(crate) fn as_caller<T>(
        &self,
        cx: &Context<'_>,
        extras: Extras<'_>,
        make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (user, group) = self.creators_ids(cx)?;
        let (ids, member) = (&self.options.identities, extras.supplementary_group);
        let creator = Creator {
            user,
            group,
            supplementary_group: member.map(|group| ids.host_group(group)).transpose()?,
        };
        let acting = ActingAs::creator(self.service, creator)?;
        acting.make(make)
    }
}
