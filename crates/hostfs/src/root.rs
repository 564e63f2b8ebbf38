//! The right to serve one directory.

use std::os::fd::OwnedFd;

use rustix::fs::CWD;

use crate::sys;

/// A directory (or a single regular file) and the means to reopen what was found below it.
///
/// Made by the sandbox after its last fork; nothing else of the host is ever named.
#[derive(Debug)]
pub struct SharedRoot {
    pub(crate) directory: OwnedFd,
    pub(crate) proc_self_fd: OwnedFd,
    /// A procfs through which a thread says what its new objects are labelled with.
    pub(crate) labelling_proc: Option<OwnedFd>,
}

impl SharedRoot {
    /// Takes the share (`O_PATH` or opened for reading) and `/proc/self/fd` of this very process.
    ///
    /// Where extended attributes are passed, `/proc/self/fd` has to be the working directory of the threads that
    /// serve: Linux before 6.13 reaches them by path only, and only so without opening the file.
    pub fn new(directory: OwnedFd, proc_self_fd: OwnedFd) -> Self {
        Self {
            directory,
            proc_self_fd,
            labelling_proc: None,
        }
    }

    /// The host has SELinux: threads may say through this procfs what their new objects are labelled with.
    #[must_use]
    pub fn labelling_through(self, proc: OwnedFd) -> Self {
        Self {
            labelling_proc: Some(proc),
            ..self
        }
    }
}

/// Where paths that are no names of the share's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkingDirectory {
    /// `/proc/self/fd`: a descriptor's number is a path to what it holds.
    Descriptors,
    /// Somewhere else, and never to be used.
    Elsewhere,
}

impl WorkingDirectory {
    pub(crate) fn of_this_process(root: &SharedRoot) -> Self {
        let is_there = sys::stat_fd(CWD)
            .and_then(|here| {
                let there = sys::stat_fd(&root.proc_self_fd)?;
                Ok(here.stx_ino == there.stx_ino && here.stx_mnt_id == there.stx_mnt_id)
            })
            .unwrap_or(false);
        if is_there {
            Self::Descriptors
        } else {
            Self::Elsewhere
        }
    }
}
