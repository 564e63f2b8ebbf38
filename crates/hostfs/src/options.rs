//! What an operator can choose about the file system.

use std::time::Duration;

use virtiofs_protocol::{Access, Validity};

use crate::cache::CachePolicy;
use crate::casefold::CaseFold;
use crate::idmap::Identities;
use crate::xattr_rules::XattrRules;

/// Whether the guest caches writes (`--writeback`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writeback {
    /// Every write goes to the host at once.
    Off,
    /// The guest keeps dirty pages and owns size and mtime meanwhile.
    On,
}

/// Whether the guest is told where another mount begins (`--announce-submounts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submounts {
    /// Each mount gets a device number of its own in the guest.
    Announced,
    /// All look like one file system; inode numbers of different mounts may collide.
    Hidden,
}

/// Whether READDIRPLUS is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaddirPlus {
    /// As the cache policy has it.
    ByPolicy,
    /// Never.
    Off,
}

/// Whether set-id bits and capabilities are dropped here (`FUSE_HANDLE_KILLPRIV` in the form that the guest has).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPrivilegesV2 {
    /// Offered.
    On,
    /// Left to the guest.
    Off,
}

/// Whether a guest's `O_DIRECT` reaches the host (`--allow-direct-io`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectIo {
    /// The host's page cache is used all the same.
    Ignored,
    /// The file is opened with `O_DIRECT`.
    PassedOn,
}

/// Whether a guest's `O_NOATIME` reaches the host (`--preserve-noatime`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAtime {
    /// The host keeps access times as it does for everybody.
    Ignored,
    /// Reading through such an open leaves them alone, where the host lets the daemon have that.
    PassedOn,
}

/// Whether files that the guest does not cache can be mapped shared (`--allow-mmap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedMappings {
    /// Only where file contents are cached.
    WithCache,
    /// Everywhere: the pages of a mapping are then cached for as long as it lasts.
    Always,
}

/// Whether the guest sees extended attributes (`--xattr`, `--xattrmap`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrPolicy {
    /// It is told that there are none.
    Off,
    /// It does, by these rules.
    On(XattrRules),
}

/// Whether the guest's ACLs are enforced on both sides (`--posix-acl`). Needs extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PosixAcl {
    /// Their attributes are refused.
    Off,
    /// Where the guest offers it.
    IfOffered,
    /// A guest that does not offer it is refused.
    Required,
}

/// Whether new objects have the labels that the guest's security module sends (`--security-label`). Needs extended
/// attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityLabels {
    /// The guest is asked to set them afterwards.
    Off,
    /// Where the guest offers it and the host takes labels.
    IfPossible,
    /// A guest that does not offer it is refused.
    Required,
}

/// Whether the guest may make idmapped mounts of the share (`--allow-idmap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdmappedMounts {
    /// Its kernel refuses them, and says who asks in every request.
    Refused,
    /// It may; its kernel then says who asks with creations only.
    Allowed,
}

/// Where locks of one family are taken (`--posix-lock`, `--flock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteLocks {
    /// In the guest alone: its processes exclude one another, and nobody else.
    Off,
    /// On the host, where other guests and the host's processes see them.
    On,
}

/// Choices and limits of a [`PassthroughFs`](crate::PassthroughFs).
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the guest may believe what it was told.
    pub cache: CachePolicy,
    /// Whether the guest may change anything: the session sees to it, and more can be kept where it may not.
    pub access: Access,
    /// Overrides the policy's validity of names and attributes (`-o timeout=`).
    pub validity: Option<Validity>,
    /// Whether the guest caches writes.
    pub writeback: Writeback,
    /// Whether READDIRPLUS is offered.
    pub readdirplus: ReaddirPlus,
    /// Whether mounts are announced.
    pub submounts: Submounts,
    /// Whether privileges are dropped here.
    pub kill_privileges: KillPrivilegesV2,
    /// Whether `O_DIRECT` is passed on.
    pub direct_io: DirectIo,
    /// Whether files can be mapped shared.
    pub shared_mappings: SharedMappings,
    /// Whether `O_NOATIME` is passed on.
    pub no_atime: NoAtime,
    /// Which spellings of a name find a file.
    pub casefold: CaseFold,
    /// Whether extended attributes are passed.
    pub xattr: XattrPolicy,
    /// Whether ACLs are.
    pub posix_acl: PosixAcl,
    /// Whether new objects are labelled.
    pub security_labels: SecurityLabels,
    /// Whether the guest may make idmapped mounts.
    pub idmapped_mounts: IdmappedMounts,
    /// Whose number is whose.
    pub identities: Identities,
    /// Where `fcntl(2)` locks are taken.
    pub posix_locks: RemoteLocks,
    /// Where `flock(2)` locks are.
    pub flocks: RemoteLocks,
    /// Most inodes known to the guest at once; `None` is no limit. ENOMEM beyond.
    pub max_inodes: Option<u64>,
    /// Most descriptors kept for inodes; open files come on top.
    pub descriptor_budget: usize,
    /// How long an unused one is kept, at least.
    pub descriptor_idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache: CachePolicy::Auto,
            access: Access::ReadWrite,
            validity: None,
            writeback: Writeback::Off,
            readdirplus: ReaddirPlus::ByPolicy,
            submounts: Submounts::Announced,
            kill_privileges: KillPrivilegesV2::On,
            direct_io: DirectIo::Ignored,
            shared_mappings: SharedMappings::WithCache,
            no_atime: NoAtime::Ignored,
            casefold: CaseFold::Off,
            xattr: XattrPolicy::Off,
            posix_acl: PosixAcl::Off,
            security_labels: SecurityLabels::Off,
            idmapped_mounts: IdmappedMounts::Refused,
            identities: Identities::default(),
            posix_locks: RemoteLocks::Off,
            flocks: RemoteLocks::Off,
            max_inodes: None,
            descriptor_budget: 512,
            descriptor_idle: Duration::from_secs(5),
        }
    }
}
