//! A host directory as a FUSE file system that cannot be left. No FUSE bytes, no virtio, no command line.
//!
//! [`PassthroughFs`] is the [`Filesystem`](virtiofs_protocol::Filesystem) of one [`SharedRoot`].
//! From the outside in:
//!
//! - `filesystem` sends each request to its function in `ops`, after asking whether it would sleep;
//! - `ops` does the work of a request, by family as in `virtiofs_protocol::op`;
//! - `reach` turns a node number into a descriptor, whatever is left of the node on the host;
//! - `by_handle` finds what lost its name, where somebody lends it the means;
//! - `inode` knows every inode that the guest looked up: by number, by identity, by name;
//! - `hot` bounds the descriptors that inodes hold, and finds those that are idle; `reserve` keeps
//!   some free for inodes that lose their name;
//! - `retired` keeps what was forgotten until there is time to close it;
//! - `locks` takes the guest's locks on the host, and wakes those who wait for one;
//! - `handle` knows what is open, and `resting` what was so a moment ago; `mounts` what kind of store holds it; `acting_as` who asks, and
//!   `handover` where that need not be known before, by what `group_rule` knows;
//! - `casefold` finds the host's spelling of a name that the guest spells otherwise;
//! - `idmap` gives users and groups their numbers, and `xattr_rules` gives extended attributes their names on the other side;
//! - `labels` gives new objects the label that the guest's security module sends;
//! - `sys` makes the system calls: a name reaches them as `Name`, or not at all.

mod acting_as;
mod attributes;
mod by_handle;
mod cache;
mod casefold;
mod filesystem;
mod group_rule;
mod handle;
mod handover;
mod hot;
mod idmap;
mod inode;
mod labels;
mod locks;
mod making;
mod mounts;
mod ops;
mod options;
mod reach;
mod reserve;
mod resting;
mod retired;
mod root;
mod slab;
mod sync;
mod sys;
#[cfg(test)]
mod testing;
mod xattr_rules;

pub use by_handle::{FileHandle, FileHandles};
pub use cache::CachePolicy;
pub use casefold::CaseFold;
pub use idmap::{BadIdRules, IdMap, IdRange, IdRule, Identities};
pub use options::{
    DirectIo, IdmappedMounts, KillPrivilegesV2, NoAtime, Options, PosixAcl, ReaddirPlus,
    RemoteLocks, SecurityLabels, SharedMappings, Submounts, Writeback, XattrPolicy,
};
pub use root::SharedRoot;
pub use xattr_rules::{BadXattrMap, XattrRules};

use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::fs::FileType;
use virtiofs_protocol::{Errno, NodeId};

use acting_as::Service;
use casefold::spellings::{MOST_BYTES, Spellings};
use handle::Handles;
use hot::Hot;
use inode::key::Key;
use inode::table::{Newcomer, Table};
use labels::Labels;
use locks::Locks;
use mounts::Mounts;
use reserve::Reserve;
use resting::Resting;
use retired::Retired;
use root::WorkingDirectory;

/// A directory of the host as a file system for a guest.
#[derive(Debug)]
pub struct PassthroughFs {
    root: SharedRoot,
    options: Options,
    service: Service,
    inodes: Table,
    hot: Hot,
    handles: Handles,
    by_handle: Option<by_handle::Lent>,
    locks: Locks,
    mounts: Mounts,
    reserve: Reserve,
    resting: Resting,
    retired: Retired,
    spellings: Spellings,
    start: Instant,
    working_directory: WorkingDirectory,
    /// The host's name of `security.capability`, where it has another one.
    renamed_capability: Option<CString>,
    /// Whether labels of new objects are offered to guests.
    labels: Labels,
}

impl PassthroughFs {
    /// Serves `root`. Sets the process's umask to zero: modes arrive with the guest's umask applied.
    /// With remote locks it takes SIGURG for itself, to end waits.
    ///
    /// # Errors
    ///
    /// The host's, when the root cannot be looked at.
    pub fn new(root: SharedRoot, options: Options) -> Result<Self, Errno> {
        rustix::process::umask(rustix::fs::Mode::empty());
        if [options.posix_locks, options.flocks].contains(&RemoteLocks::On) {
            sys::lock::prepare_to_wake()?;
        }
        let mut fs = Self {
            inodes: Table::new(options.max_inodes.map(|limit| limit.saturating_add(1))),
            hot: Hot::new(options.descriptor_budget, options.descriptor_idle),
            handles: Handles::new(),
            by_handle: None,
            locks: Locks::default(),
            mounts: Mounts::default(),
            reserve: Reserve::default(),
            resting: Resting::new(options.descriptor_budget, options.descriptor_idle),
            retired: Retired::default(),
            spellings: Spellings::new(MOST_BYTES),
            start: Instant::now(),
            working_directory: WorkingDirectory::of_this_process(&root),
            renamed_capability: ops::xattr::renamed_capability(&options.xattr),
            labels: Labels::NotOffered,
            service: Service::of_this_thread(),
            root,
            options,
        };
        fs.enter_root()?;
        fs.labels = fs.labels_to_offer();
        fs.reserve.fill(fs.root.directory.as_fd());
        Ok(fs)
    }

    fn enter_root(&self) -> Result<(), Errno> {
        let descriptor = self.root.directory.try_clone().map_err(|_| Errno::MFILE)?;
        let stat = sys::stat_fd(descriptor.as_fd())?;
        let mount = self.mounts.get(&stat, descriptor.as_fd())?;
        let key = Key::new(&stat, mount.identity);
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        self.inodes.enter(Newcomer {
            key,
            kind,
            mount,
            descriptor: Some(descriptor),
        })?;
        Ok(())
    }

    /// Whether the share itself lies on a network or FUSE store, where another inode may look the same.
    fn is_slow(&self) -> bool {
        let root = self.inodes.get(NodeId::ROOT);
        root.is_ok_and(|root| root.value.mount.slow)
    }

    /// How many inodes hold a descriptor of their own, the root included. Looks at all.
    pub fn held_descriptors(&self) -> usize {
        self.inodes.holders()
    }

    /// How many inodes the guest knows, the root included.
    pub fn known_inodes(&self) -> u64 {
        self.inodes.count()
    }
}
