//! What is going to happen: every rule between options, decided before anything is touched.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::thread::CapabilitySet;
use virtiofs_device::Polling;
use virtiofs_hostfs::{
    CachePolicy, CaseFold, DirectIo, IdMap, Identities, IdmappedMounts, KillPrivilegesV2, NoAtime,
    PosixAcl, ReaddirPlus, RemoteLocks, SecurityLabels, SharedMappings, Submounts, Writeback,
    XattrPolicy, XattrRules,
};
use virtiofs_protocol::{Access, SessionOptions, Validity};

use crate::cli::values::{
    CacheName, CapabilityChanges, CasefoldName, FileHandlesName, IdMapEntry, LevelName, Negotiable,
    PollWindow, SandboxName, SeccompName, Translation,
};
use crate::cli::{AttributeArgs, Cli};

/// What `--print-capabilities` shows (vhost-user.json of the vhost-user back-end conventions).
pub const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}"#;

/// Why nothing is going to happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The command line makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It does, but cannot be done: exit code 1.
    #[error("{0}")]
    Configuration(String),
}

/// Where the front-end connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At a socket made here.
    Socket {
        /// Its path.
        path: PathBuf,
        /// Group that may connect.
        group: Option<String>,
    },
    /// At a socket that listens already.
    Descriptor(i32),
}

/// What happens when a front-end has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterDisconnect {
    /// The daemon ends.
    Exit,
    /// It waits for the next one.
    Accept,
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// To standard error.
    StandardError,
    /// To the system's log.
    System,
}

/// Where the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// In the process that was started.
    Fore,
    /// In one of its own, once it is ready.
    Back,
}

/// Everything that was decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Directory or file to share.
    pub shared_dir: PathBuf,
    /// Where the front-end connects.
    pub listen: Listen,
    /// What happens when it has gone.
    pub after_disconnect: AfterDisconnect,
    /// Tag stated in the device's configuration, if any.
    pub tag: Option<String>,
    /// Whether the guest may change anything, and the sizes of requests.
    pub session: SessionOptions,
    /// Choices of the file system; its descriptor budget comes from the limit that is got.
    pub filesystem: virtiofs_hostfs::Options,
    /// Whether inodes are found by file handles where names do not help.
    pub file_handles: FileHandlesName,
    /// How the daemon is confined.
    pub sandbox: SandboxName,
    /// Users of the sandbox's user namespace; where there are none, those it can have.
    pub uid_map: Vec<IdMapEntry>,
    /// Its groups.
    pub gid_map: Vec<IdMapEntry>,
    /// Capabilities to keep or to give up beyond the default.
    pub modcaps: CapabilityChanges,
    /// What happens at a system call that is not on the list.
    pub seccomp: SeccompName,
    /// Threads for work that sleeps; 0 is sized by the device.
    pub store_threads: usize,
    /// Whether queues look for the next request before they sleep.
    pub polling: Polling,
    /// Limit of open descriptors: a number that must be had, 0 for "leave", `None` for a wish.
    pub rlimit_nofile: Option<u64>,
    /// How much is told.
    pub log_level: LevelName,
    /// And where.
    pub log: Log,
    /// Where the daemon runs.
    pub ground: Ground,
    /// Lines to warn with at start.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Decides.
    ///
    /// # Errors
    ///
    /// [`PlanError`], one line for the operator.
    pub fn new(cli: &Cli) -> Result<Self, PlanError> {
        refuse_what_is_missing(cli)?;
        refuse_maps_without_namespace(cli)?;
        Ok(Self {
            shared_dir: cli.share.shared_dir.clone().ok_or_else(nothing_to_share)?,
            listen: listen(cli)?,
            after_disconnect: if cli.connection.keep_listening {
                AfterDisconnect::Accept
            } else {
                AfterDisconnect::Exit
            },
            tag: cli.share.tag.as_ref().map(|tag| tag.as_str().to_owned()),
            session: session(cli)?,
            filesystem: filesystem(cli)?,
            file_handles: file_handles(cli),
            sandbox: cli.confinement.sandbox.unwrap_or(SandboxName::Namespace),
            uid_map: cli.identity.uid_map.clone(),
            gid_map: cli.identity.gid_map.clone(),
            modcaps: modcaps(cli),
            seccomp: cli.confinement.seccomp.unwrap_or(SeccompName::Kill),
            store_threads: cli
                .resources
                .thread_pool_size
                .map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX)),
            polling: match cli.resources.poll_us.unwrap_or(PollWindow::Auto) {
                PollWindow::Auto => Polling::Auto,
                PollWindow::Fixed(0) => Polling::Off,
                PollWindow::Fixed(micros) => Polling::Fixed(Duration::from_micros(micros.into())),
            },
            rlimit_nofile: cli.resources.rlimit_nofile,
            log_level: if cli.process.debug {
                LevelName::Debug
            } else {
                cli.process.log_level.unwrap_or(LevelName::Info)
            },
            log: if cli.process.syslog {
                Log::System
            } else {
                Log::StandardError
            },
            ground: if cli.process.daemonize {
                Ground::Back
            } else {
                Ground::Fore
            },
            warnings: warnings(cli),
        })
    }
}

impl Plan {
    /// Whether ids are to be mapped, which needs a user namespace.
    pub fn has_maps(&self) -> bool {
        !self.uid_map.is_empty() || !self.gid_map.is_empty()
    }
}

fn nothing_to_share() -> PlanError {
    PlanError::Usage("nothing to share: --shared-dir takes the path of a directory".into())
}

/// Never accepted and ignored: what is not built yet ends the start.
fn refuse_what_is_missing(cli: &Cli) -> Result<(), PlanError> {
    let missing = [
        ("--migration-mode", cli.migration.migration_mode.is_some()),
        (
            "--migration-on-error",
            cli.migration.migration_on_error.is_some(),
        ),
        (
            "--migration-verify-handles",
            cli.migration.migration_verify_handles,
        ),
        (
            "--migration-confirm-paths",
            cli.migration.migration_confirm_paths,
        ),
    ];
    match missing.iter().find(|(_, asked)| *asked) {
        Some((option, _)) => Err(PlanError::Configuration(format!(
            "{option} is not built yet; start without it"
        ))),
        None => Ok(()),
    }
}

fn file_handles(cli: &Cli) -> FileHandlesName {
    let asked = cli.share.inode_file_handles;
    asked.unwrap_or(FileHandlesName::Never)
}

/// The capability that opens file handles is the broker's where there are any: who asks for both, as for other daemons,
/// gets that, and not a server that can leave its sandbox.
fn modcaps(cli: &Cli) -> CapabilityChanges {
    let mut changes = cli.confinement.modcaps.unwrap_or_default();
    if file_handles(cli) != FileHandlesName::Never {
        changes.keep -= CapabilitySet::DAC_READ_SEARCH;
    }
    changes
}

/// Only the namespace mode has a user namespace to map ids into.
fn refuse_maps_without_namespace(cli: &Cli) -> Result<(), PlanError> {
    let maps = !cli.identity.uid_map.is_empty() || !cli.identity.gid_map.is_empty();
    let other = matches!(
        cli.confinement.sandbox,
        Some(SandboxName::Chroot | SandboxName::None)
    );
    if maps && other {
        return Err(PlanError::Configuration(
            "--uid-map and --gid-map make a user namespace, which only --sandbox namespace has: drop one of them"
                .into(),
        ));
    }
    Ok(())
}

fn listen(cli: &Cli) -> Result<Listen, PlanError> {
    let connection = &cli.connection;
    let usage = |why: &str| Err(PlanError::Usage(why.into()));
    match (&connection.socket_path, connection.fd) {
        (Some(_), Some(_)) => usage("--fd and --socket-path exclude each other"),
        (Some(path), None) => Ok(Listen::Socket {
            path: path.clone(),
            group: connection.socket_group.clone(),
        }),
        (None, Some(_)) if connection.socket_group.is_some() => {
            usage("--fd and --socket-group exclude each other")
        }
        (None, Some(fd)) if fd > 2 => match i32::try_from(fd) {
            Ok(fd) => Ok(Listen::Descriptor(fd)),
            Err(_) => usage("--fd takes a descriptor that is open"),
        },
        (None, Some(_)) => usage("--fd takes a descriptor above 2"),
        (None, None) => usage("no way to connect: give --socket-path or --fd"),
    }
}

/// A WRITE's size is a whole number of pages. The default is what every guest takes; beyond it a guest's administrator
/// has to agree (`fs.fuse.max_pages_limit`, Linux 6.13), and the most is what a ring of 1024 entries holds.
const PAGE_BYTES: u32 = 4096;
const WRITE_BYTES: u32 = 1 << 20;
const MOST_WRITE_BYTES: u32 = 4 << 20;

fn session(cli: &Cli) -> Result<SessionOptions, PlanError> {
    let resources = &cli.resources;
    let max_write_bytes = resources
        .max_write
        .map_or(WRITE_BYTES, std::num::NonZeroU32::get);
    if !(PAGE_BYTES..=MOST_WRITE_BYTES).contains(&max_write_bytes) {
        return Err(PlanError::Usage(format!(
            "max_write= takes {PAGE_BYTES} to {MOST_WRITE_BYTES} bytes"
        )));
    }
    Ok(SessionOptions {
        access: access(cli),
        max_write_bytes: max_write_bytes / PAGE_BYTES * PAGE_BYTES,
        max_readahead_bytes: resources.max_readahead,
        max_background: resources
            .max_background
            .map_or(0, std::num::NonZeroU16::get),
    })
}

fn access(cli: &Cli) -> Access {
    if cli.share.readonly {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    }
}

fn filesystem(cli: &Cli) -> Result<virtiofs_hostfs::Options, PlanError> {
    let caching = &cli.caching;
    let cache = match caching.cache {
        None | Some(CacheName::Auto) => CachePolicy::Auto,
        Some(CacheName::Adaptive) => CachePolicy::Adaptive,
        Some(CacheName::Always) => CachePolicy::Always,
        Some(CacheName::Never) => CachePolicy::Never,
        Some(CacheName::Metadata) => CachePolicy::Metadata,
    };
    if caching.writeback && cache == CachePolicy::Never {
        return Err(PlanError::Configuration(
            "--writeback needs a guest that caches file contents, and --cache never forbids it: drop one of them".into(),
        ));
    }
    Ok(virtiofs_hostfs::Options {
        cache,
        access: access(cli),
        validity: caching.timeout.map(|time| Validity {
            secs: time.0.as_secs(),
            nanos: time.0.subsec_nanos(),
        }),
        writeback: if caching.writeback {
            Writeback::On
        } else {
            Writeback::Off
        },
        readdirplus: if caching.no_readdirplus {
            ReaddirPlus::Off
        } else {
            ReaddirPlus::ByPolicy
        },
        submounts: if cli.share.no_announce_submounts {
            Submounts::Hidden
        } else {
            Submounts::Announced
        },
        kill_privileges: if cli.attributes.no_killpriv_v2 {
            KillPrivilegesV2::Off
        } else {
            KillPrivilegesV2::On
        },
        direct_io: if caching.allow_direct_io {
            DirectIo::PassedOn
        } else {
            DirectIo::Ignored
        },
        shared_mappings: if caching.allow_mmap {
            SharedMappings::Always
        } else {
            SharedMappings::WithCache
        },
        no_atime: if cli.share.preserve_noatime {
            NoAtime::PassedOn
        } else {
            NoAtime::Ignored
        },
        casefold: casefold(cli),
        xattr: xattr(&cli.attributes)?,
        posix_acl: match cli.attributes.posix_acl {
            None | Some(Negotiable::Never) => PosixAcl::Off,
            Some(Negotiable::Auto) => PosixAcl::IfOffered,
            Some(Negotiable::Always) => PosixAcl::Required,
        },
        idmapped_mounts: idmapped_mounts(cli.identity.allow_idmap),
        security_labels: security_labels(cli.attributes.security_label),
        identities: identities(cli)?,
        posix_locks: remote(cli.locking.posix_lock),
        flocks: remote(cli.locking.flock),
        max_inodes: cli.resources.max_inodes.map(std::num::NonZeroU64::get),
        ..virtiofs_hostfs::Options::default()
    })
}

fn idmapped_mounts(allowed: bool) -> IdmappedMounts {
    if allowed {
        IdmappedMounts::Allowed
    } else {
        IdmappedMounts::Refused
    }
}

fn security_labels(asked: Option<Negotiable>) -> SecurityLabels {
    match asked {
        None | Some(Negotiable::Never) => SecurityLabels::Off,
        Some(Negotiable::Auto) => SecurityLabels::IfPossible,
        Some(Negotiable::Always) => SecurityLabels::Required,
    }
}

fn casefold(cli: &Cli) -> CaseFold {
    match cli.share.casefold {
        None => CaseFold::Off,
        Some(CasefoldName::Ascii) => CaseFold::Ascii,
        Some(CasefoldName::Unicode) => CaseFold::Unicode,
    }
}

/// An ACL names users by number, and nothing translates them inside it.
fn identities(cli: &Cli) -> Result<Identities, PlanError> {
    let map = |option: &str, rules: &[Translation]| {
        IdMap::new(rules.iter().map(|rule| rule.0))
            .map_err(|why| PlanError::Configuration(format!("{option}: {why}; drop one of them")))
    };
    let identities = Identities {
        users: map("--translate-uid", &cli.identity.translate_uid)?,
        groups: map("--translate-gid", &cli.identity.translate_gid)?,
    };
    let acls = !matches!(cli.attributes.posix_acl, None | Some(Negotiable::Never));
    if acls && !identities.are_the_same() {
        return Err(PlanError::Configuration(
            "--translate-uid and --translate-gid would not translate the users and groups that ACLs name: \
             drop them or --posix-acl"
                .into(),
        ));
    }
    Ok(identities)
}

fn remote(wanted: bool) -> RemoteLocks {
    if wanted {
        RemoteLocks::On
    } else {
        RemoteLocks::Off
    }
}

/// A map implies attributes, and so do ACLs and labels, which are attributes.
fn xattr(attributes: &AttributeArgs) -> Result<XattrPolicy, PlanError> {
    let asked = |negotiable| !matches!(negotiable, None | Some(Negotiable::Never));
    let needed = asked(attributes.posix_acl) || asked(attributes.security_label);
    let map = match &attributes.xattrmap {
        Some(map) => map.as_bytes(),
        None if attributes.xattr || needed => b":ok:all:::",
        None => return Ok(XattrPolicy::Off),
    };
    let rules =
        XattrRules::parse(map).map_err(|why| PlanError::Usage(format!("--xattrmap: {why}")))?;
    Ok(XattrPolicy::On(rules))
}

/// What holds less than its words say, one line each.
fn warnings(cli: &Cli) -> Vec<String> {
    let weaker = [
        (
            cli.confinement.sandbox == Some(SandboxName::None),
            "--sandbox none: a daemon that is taken over may look at, and change the attributes of, every file that its user may",
        ),
        (
            cli.confinement.seccomp == Some(SeccompName::None),
            "--seccomp none: a daemon that is taken over may make any system call",
        ),
        (
            cli.process.daemonize && !cli.process.syslog,
            "--daemonize without --syslog: messages are lost once the daemon is ready",
        ),
    ];
    let mut warnings: Vec<String> = Vec::new();
    for option in &cli.process.without_effect {
        let line = format!("'-o {}' no longer has an effect", option.name());
        if !warnings.contains(&line) {
            warnings.push(line);
        }
    }
    let weaker = weaker.iter().filter(|(holds, _)| *holds);
    warnings.extend(weaker.map(|(_, line)| (*line).to_owned()));
    warnings
}

#[cfg(test)]
mod tests;
