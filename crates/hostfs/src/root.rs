//! The right to serve one directory.

use std::os::fd::OwnedFd;

/// A directory (or a single regular file) and the means to reopen what was found below it.
///
/// Made by the sandbox after its last fork; nothing else of the host is ever named.
#[derive(Debug)]
pub struct SharedRoot {
    pub(crate) directory: OwnedFd,
    pub(crate) proc_self_fd: OwnedFd,
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
        }
    }
}
