//! Labels that new objects have from their first moment (`--security-label`).
//!
//! A security module in the guest sends the label of what it makes in the request that makes it.
//! Three ways lead there, by what the host is and what is made:
//!
//! - Where the host has SELinux and the label keeps its name, the thread that makes the object says
//!   beforehand what label its objects get (`/proc/thread-self/attr/fscreate`): one step.
//! - A regular file whose label is an attribute like any other is made without a name, labelled, and
//!   then given its name: nobody finds it unlabelled.
//! - Everything else, and a file on a store that makes none without a name, is labelled right after
//!   it was made, and removed again if that fails. Other guests and the host's users may see it
//!   without its label for that moment; the guest that makes it learns of it by the reply only.

use std::borrow::Cow;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, XattrFlags, openat, setxattr};
use rustix::io::write;
use rustix::path::DecInt;
use virtiofs_protocol::Errno;
use virtiofs_protocol::op::{Extras, SecurityLabel};

use crate::PassthroughFs;
use crate::options::SecurityLabels;
use crate::sys;

/// The attribute that SELinux keeps its labels in.
const SELINUX: &CStr = c"security.selinux";
/// Where a thread says what its new objects are labelled with, below a procfs.
const FSCREATE: &CStr = c"thread-self/attr/fscreate";

/// Whether guests are offered to send labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labels {
    Offered,
    NotOffered,
}

/// How a new object gets its label.
#[derive(Debug)]
pub(crate) enum NewLabel<'a> {
    /// It has none.
    None,
    /// The thread that makes it says so beforehand.
    OfThread(&'a OwnedFd, &'a [u8]),
    /// As an attribute of what was made.
    Attribute(Attribute<'a>),
}

/// An attribute by its name on the host.
#[derive(Debug)]
pub(crate) struct Attribute<'a> {
    name: Cow<'a, CStr>,
    value: &'a [u8],
}

impl Attribute<'_> {
    /// Labels what a descriptor holds, of any type.
    pub(crate) fn put_on(&self, object: impl AsFd) -> Result<(), Errno> {
        let path = DecInt::from_fd(&object);
        setxattr(path, &*self.name, self.value, XattrFlags::empty())
    }
}

impl NewLabel<'_> {
    /// To be held by the thread that makes the object.
    pub(crate) fn begin(&self) -> Result<Option<LabellingThread>, Errno> {
        match self {
            Self::OfThread(proc, label) => LabellingThread::begin(proc, label).map(Some),
            Self::None | Self::Attribute(_) => Ok(None),
        }
    }
}

/// While it lives, the host labels whatever this thread makes.
#[derive(Debug)]
#[must_use]
pub(crate) struct LabellingThread {
    fscreate: OwnedFd,
}

impl LabellingThread {
    fn begin(proc: &OwnedFd, label: &[u8]) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let fscreate = openat(proc, FSCREATE, flags, Mode::empty())?;
        let labelling = Self { fscreate };
        match write(&labelling.fscreate, label)? {
            len if len == label.len() => Ok(labelling),
            // The kernel takes a page at most, and no such label is valid.
            _ => Err(Errno::INVAL),
        }
    }
}

impl Drop for LabellingThread {
    fn drop(&mut self) {
        // A line without text stands for none (man 5 proc_pid_attr).
        if write(&self.fscreate, b"\n").is_err() {
            // What this thread makes next would have another object's label.
            std::process::abort();
        }
    }
}

impl PassthroughFs {
    /// How the object of a request gets the label that its guest states.
    ///
    /// # Errors
    ///
    /// Those of the map for a name that it does not let pass: nothing is made then.
    pub(crate) fn new_label<'a>(&'a self, extras: Extras<'a>) -> Result<NewLabel<'a>, Errno> {
        match extras.label {
            Some(label) if self.options.security_labels != SecurityLabels::Off => self.way(label),
            Some(_) | None => Ok(NewLabel::None),
        }
    }

    fn way<'a>(&'a self, label: SecurityLabel<'a>) -> Result<NewLabel<'a>, Errno> {
        let name = self.options.xattr.rules()?.host_name(label.name())?;
        let value = label.value();
        match &self.root.labelling_proc {
            Some(proc) if *name == *SELINUX => Ok(NewLabel::OfThread(proc, value)),
            Some(_) | None => Ok(NewLabel::Attribute(Attribute { name, value })),
        }
    }

    /// What the options say, and where they leave it to the host, the host.
    pub(crate) fn labels_to_offer(&self) -> Labels {
        if self.options.security_labels == SecurityLabels::Off {
            return Labels::NotOffered;
        }
        let Err(errno) = self.try_label() else {
            return Labels::Offered;
        };
        let advice = "a label needs CAP_SYS_ADMIN on a host without SELinux (--modcaps=+sys_admin) or another \
                      name (--xattrmap)";
        if self.options.security_labels == SecurityLabels::IfPossible {
            tracing::warn!(
                "--security-label=auto: the host refuses a label ({errno}), so none is asked for; {advice}"
            );
            return Labels::NotOffered;
        }
        tracing::warn!(
            "--security-label: the host refuses a label ({errno}), and so it will refuse what a guest labels; {advice}"
        );
        Labels::Offered
    }

    /// Tries SELinux's label on a file without a name; what cannot be tried is assumed to work.
    fn try_label(&self) -> Result<(), Errno> {
        let Some(label) = SecurityLabel::new(SELINUX, b"unlabeled\0") else {
            return Ok(());
        };
        let NewLabel::Attribute(attribute) = self.way(label)? else {
            return Ok(());
        };
        let mode = Mode::RUSR | Mode::WUSR;
        match sys::make_nameless(&self.root.directory, OFlags::RDWR, mode) {
            Ok(file) => attribute.put_on(file),
            // A store without such files, a share that is read-only or a single file.
            Err(_) => Ok(()),
        }
    }
}
