//! `--inode-file-handles`: a process of its own that opens inodes by their file handles, for the one that serves.
//!
//! Opening by handle takes CAP_DAC_READ_SEARCH, and whoever has that opens any inode of the file system by a handle
//! that it makes up. So the server never has it. The broker has it and nothing else, and opens what it has signed
//! itself, with a key that it made when it started and that never leaves it:
//!
//! - it makes a handle of a path below the share, which it walks name by name from its own descriptor of the share: no
//!   descriptor is taken from the server, which in some modes could have one of something outside;
//! - it opens a handle that bears its signature, after a look at the type: only regular files and directories for
//!   more than `O_PATH`, and for writing only where the share may be written.
//!
//! `message` is what the two say to one another, `handle` how handles are made, signed and opened, `process` the
//! broker's life, `client` the server's end.

pub(crate) mod client;
mod handle;
mod message;
mod process;

#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode as FileMode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{CapabilitySet, capabilities};
use virtiofs_protocol::Access;

use crate::cli::values::{FileHandlesName, SeccompName};
use crate::plan::Plan;
use crate::sandbox::{Mode, SandboxError, is_of_a_user};
use crate::share::Kind;
use crate::sys::{self, Forked};

pub use client::Client;
use handle::Keeper;

/// Why there are no file handles here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The capability is missing.
    #[error("opening one needs CAP_DAC_READ_SEARCH, which the daemon does not have")]
    Privilege,
    /// It is of no use in a user namespace.
    #[error("none of a file can be opened from a user namespace")]
    UserNamespace,
    /// The store.
    #[error("the store of the share has none")]
    Store,
    /// Something else, found out by trying.
    #[error("trying it failed: {0}")]
    Refused(Errno),
}

/// Whether the daemon is to have a broker: asked while nothing is made yet.
///
/// # Errors
///
/// [`SandboxError::FileHandles`] where handles are mandatory and cannot be had.
pub fn wanted(plan: &Plan, kind: Kind, mode: &Mode) -> Result<bool, SandboxError> {
    // The only inode of a share that is a file has a descriptor for as long as the daemon lives.
    if plan.file_handles == FileHandlesName::Never || kind == Kind::File {
        return Ok(false);
    }
    match lack(&plan.shared_dir, mode) {
        None => Ok(true),
        Some(lack) => do_without(plan, lack).map(|()| false),
    }
}

fn lack(shared: &Path, mode: &Mode) -> Option<Lack> {
    let have = capabilities(None).map(|sets| sets.permitted);
    if is_of_a_user(mode) {
        return Some(Lack::UserNamespace);
    }
    if !have.is_ok_and(|have| have.contains(CapabilitySet::DAC_READ_SEARCH)) {
        return Some(Lack::Privilege);
    }
    let root = openat(
        CWD,
        shared,
        OFlags::PATH | OFlags::CLOEXEC,
        FileMode::empty(),
    );
    match root.and_then(|root| sys::name_to_handle(&root)) {
        Ok(_) => None,
        Err(Errno::OPNOTSUPP) => Some(Lack::Store),
        Err(errno) => Some(Lack::Refused(errno)),
    }
}

/// Ends the start, or says once that there are none.
fn do_without(plan: &Plan, lack: Lack) -> Result<(), SandboxError> {
    if plan.file_handles == FileHandlesName::Mandatory {
        return Err(SandboxError::FileHandles(lack));
    }
    tracing::warn!(
        "--inode-file-handles=prefer: no file handles are used, because {lack}; what the host renames may be ESTALE \
         to the guest until it looks again"
    );
    Ok(())
}

/// Starts the broker of a share: in the namespaces and the root that the server is in by now, with its rights still.
///
/// `None` where it turns out that handles do not work, and that is no reason not to start.
///
/// # Errors
///
/// [`SandboxError`], for the operator.
pub fn start(plan: &Plan, root: BorrowedFd<'_>) -> Result<Option<Client>, SandboxError> {
    match launched(root, plan.session.access, plan.seccomp) {
        Ok(socket) => Ok(Some(Client::new(socket, plan.file_handles))),
        Err(errno) => do_without(plan, Lack::Refused(errno)).map(|()| None),
    }
}

fn launched(
    root: BorrowedFd<'_>,
    access: Access,
    seccomp: SeccompName,
) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, brokers) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // open_by_handle_at(2) takes no O_PATH descriptor for the mount.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(root, c".", flags, FileMode::empty())?;
    // Nobody waits for it: the kernel takes it away when it has ended.
    sys::leave_no_zombies()?;
    match sys::fork()? {
        Forked::Child => process::live(&brokers, root, access, seccomp),
        Forked::Parent(_) => {
            drop(brokers);
            client::await_start(&ours)?;
            Ok(ours)
        }
    }
}

/// Type and mount of something, where the kernel tells.
fn look(fd: BorrowedFd<'_>) -> Result<(FileType, u64), Errno> {
    /// Numbers of mounts (linux/stat.h): since Linux 5.8; since 6.8, never used twice.
    const STATX_MNT_ID: u32 = 0x1000;
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let mask = StatxFlags::from_bits_retain(STATX_MNT_ID | STATX_MNT_ID_UNIQUE);
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, c"", flags, StatxFlags::TYPE | mask)?;
    if stat.stx_mask & mask.bits() == 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    Ok((kind, stat.stx_mnt_id))
}

impl Keeper {
    /// A keeper for a share, with a key of its own.
    fn with_new_key(root: std::os::fd::OwnedFd, access: Access) -> Result<Self, Errno> {
        let mut key = [0; 16];
        let filled = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        if filled == key.len() {
            Self::new(root, access, key)
        } else {
            Err(Errno::IO)
        }
    }
}
