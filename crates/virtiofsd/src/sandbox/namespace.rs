//! Namespaces of our own: mount, pid, network, ipc, uts and cgroup, with the share as root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::{NEEDS_ADMIN, SandboxError, step};
use crate::share::Kind;

/// Mounts that the host makes later appear here; ours never appear there.
pub(super) fn receive_mounts_only() -> Result<(), SandboxError> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM,
    )
    .map_err(step("mount propagation of /", NEEDS_ADMIN))
}

/// `/proc/self/fd` of a procfs of our own, mounted nowhere: it shows this pid namespace and nothing else.
///
/// Where a procfs may not be made (a container that hides parts of its own), it is the one at `/proc`, from
/// which a way leads to what the helper can see; then Landlock stands in that way.
pub(super) fn proc_self_fd() -> Result<OwnedFd, SandboxError> {
    match detached_proc() {
        Ok(directory) => Ok(directory),
        Err(Errno::PERM) => {
            tracing::warn!(
                "no procfs of its own may be mounted here; the one at /proc is used instead"
            );
            super::open(Path::new("/proc/self/fd"), "is /proc mounted?")
        }
        Err(errno) => Err(step(
            "mount of a procfs",
            "Linux 5.2 or newer is needed; try --sandbox chroot",
        )(errno)),
    }
}

pub(super) fn detached_proc() -> Result<OwnedFd, Errno> {
    openat(
        own_proc(MountAttrFlags::MOUNT_ATTR_RDONLY)?,
        "self/fd",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// As [`proc_self_fd`], the whole procfs, with files that can be written.
pub(super) fn writable_proc() -> Result<OwnedFd, SandboxError> {
    match own_proc(MountAttrFlags::empty()) {
        Ok(mount) => Ok(mount),
        Err(Errno::PERM) => super::open(Path::new("/proc"), "is it mounted?"),
        Err(errno) => Err(step("mount of a procfs", "try --sandbox chroot")(errno)),
    }
}

fn own_proc(access: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Without the kernel's own files, which uid 0 may write whatever its capabilities; Linux 5.8.
    match fsconfig_set_string(context.as_fd(), "subset", "pid") {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    detached(&context, access)
}

fn detached(context: &OwnedFd, access: MountAttrFlags) -> Result<OwnedFd, Errno> {
    fsconfig_create(context.as_fd())?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | access,
    )
}

/// Makes the share the root of everything that can be seen; a single file is held beside an empty root.
pub(super) fn pivot(shared: &Path, kind: Kind) -> Result<OwnedFd, SandboxError> {
    let at = |what: &str| step(format!("{what} {}", shared.display()), NEEDS_ADMIN);
    let share = open_tree(
        CWD,
        shared,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )
    .map_err(at("mount of"))?;
    let empty;
    let new = match kind {
        Kind::Directory => share.as_fd(),
        Kind::File => {
            empty = empty_directory().map_err(at("empty root for"))?;
            empty.as_fd()
        }
    };
    let old = openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(at("opening / for"))?;
    // On top of the old root, which does for any share, `/` itself among them: no directory has to be made.
    move_mount(new, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(at("mount over / of"))?;
    fchdir(new).map_err(at("chdir to"))?;
    // The old root lands on the new one and is taken off it again.
    pivot_root(".", ".").map_err(at("pivot_root to"))?;
    fchdir(&old).map_err(at("leaving for"))?;
    unmount(".", UnmountFlags::DETACH).map_err(at("unmounting the old root for"))?;
    chdir("/").map_err(at("chdir to"))?;
    Ok(share)
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    detached(&context, MountAttrFlags::MOUNT_ATTR_RDONLY)
}
