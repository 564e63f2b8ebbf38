//! Namespaces of our own: mount, pid, network, ipc, uts and cgroup.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    unmount,
};
use rustix::process::{Signal, fchdir, pivot_root, set_parent_process_death_signal};

use super::{NEEDS_ADMIN, SandboxError, step};
use crate::sys::{self, Forked};

/// What this process is from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It serves the share.
    Server,
    /// It waits outside for the server of this pid, passes signals on and cleans up.
    Helper(i32),
}

/// Makes the namespaces and the process that lives in them.
pub(super) fn enter() -> Result<Role, SandboxError> {
    sys::unshare_all().map_err(step("unshare of namespaces", NEEDS_ADMIN))?;
    match sys::fork().map_err(|error| {
        step("fork", NEEDS_ADMIN)(
            rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::AGAIN),
        )
    })? {
        Forked::Parent(child) => Ok(Role::Helper(child)),
        Forked::Child => {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(step("prctl(PR_SET_PDEATHSIG)", NEEDS_ADMIN))?;
            // Mounts that the host makes later appear here; ours never appear there.
            mount_change(
                "/",
                MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM,
            )
            .map_err(step("mount propagation of /", NEEDS_ADMIN))?;
            let flags =
                MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::RELATIME;
            mount("proc", "/proc", "proc", flags, None)
                .map_err(step("mount of /proc", NEEDS_ADMIN))?;
            Ok(Role::Server)
        }
    }
}

/// Makes the share the root of everything that can be seen.
pub(super) fn pivot(shared: &Path) -> Result<OwnedFd, SandboxError> {
    let at = |what: &str| step(format!("{what} {}", shared.display()), NEEDS_ADMIN);
    mount_bind_recursive(shared, shared).map_err(at("bind mount of"))?;
    let open = |path: &Path| {
        openat(
            CWD,
            path,
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let old = open(Path::new("/")).map_err(at("opening / for"))?;
    let new = open(shared).map_err(at("opening"))?;
    fchdir(&new).map_err(at("chdir to"))?;
    // The old root lands on the new one and is taken off it again: no directory has to be made.
    pivot_root(".", ".").map_err(at("pivot_root to"))?;
    fchdir(&old).map_err(at("leaving for"))?;
    mount_change(
        ".",
        MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM,
    )
    .map_err(at("mount propagation for"))?;
    unmount(".", UnmountFlags::DETACH).map_err(at("unmounting the old root for"))?;
    fchdir(&new).map_err(at("chdir to"))?;
    openat(&new, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at("opening"))
}
