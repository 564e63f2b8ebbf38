//! What a thread needs to say which label its new objects get: files of its own in a procfs, and the right to write
//! them. Only where the host has SELinux and labels are asked for, because it is a hole in two layers: that procfs is
//! not read-only, and Landlock lets the files of this process's threads be written.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode as FileMode, OFlags, openat};
use virtiofs_hostfs::SecurityLabels;

use super::{Mode, SandboxError, namespace, open, step};

/// What stays open for it.
#[derive(Debug)]
pub(super) struct Labelling {
    /// The procfs, `O_PATH`.
    pub(super) proc: OwnedFd,
    /// The files of this process's threads in it, `O_PATH`.
    pub(super) own_files: OwnedFd,
}

/// Finds the files while `/proc` has a name: in the process that is going to serve.
pub(super) fn prepare(
    labels: SecurityLabels,
    mode: &Mode,
) -> Result<Option<Labelling>, SandboxError> {
    if labels == SecurityLabels::Off || !has_selinux() {
        return Ok(None);
    }
    find(mode).map(Some)
}

/// SELinux is the only security module of Linux that answers this question; without it, it is EINVAL.
fn has_selinux() -> bool {
    std::fs::read("/proc/thread-self/attr/fscreate").is_ok()
}

pub(super) fn find(mode: &Mode) -> Result<Labelling, SandboxError> {
    let proc = match mode {
        Mode::Namespace(_) => namespace::writable_proc()?,
        Mode::Chroot | Mode::None => open(Path::new("/proc"), "is it mounted?")?,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own_files = openat(&proc, "self/task", flags, FileMode::empty())
        .map_err(step("/proc/self/task", "is /proc mounted?"))?;
    Ok(Labelling { proc, own_files })
}
