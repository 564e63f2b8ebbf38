//! The command line as clap sees it: one field per option, its doc comment the help text.
//!
//! Nothing is decided here. A value is turned into a type or refused; what options mean together stands in
//! [`crate::plan`], and what older spellings mean in [`crate::compat`]. The last of a repeated option wins. The
//! manual page is made from [`command`].

mod usage;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser};

pub use usage::{Stopped, parse};
use values::{
    CacheName, CapabilityChanges, CasefoldName, FileHandlesName, IdMapEntry, LevelName,
    MigrationErrorName, MigrationModeName, Negotiable, PollWindow, SandboxName, SeccompName,
    Seconds, Tag, Translation, WithoutEffect,
};

/// Shares a directory of the host with a virtual machine: a vhost-user back-end for virtio-fs.
///
/// One process serves one directory to one machine, which mounts it with 'mount -t virtiofs TAG DIR'.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "virtiofsd",
    version,
    args_override_self = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub share: ShareArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub caching: CachingArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub attributes: AttributeArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub locking: LockArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub confinement: ConfinementArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub identity: IdentityArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub resources: ResourceArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub migration: MigrationArgs,
    #[allow(
        missing_docs,
        reason = "a group of options; its help texts are the fields'"
    )]
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// What is shared.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Share")]
pub struct ShareArgs {
    /// Directory to share, or a single regular file
    #[arg(long, value_name = "PATH")]
    pub shared_dir: Option<PathBuf>,

    /// Name by which the guest mounts the share, 1 to 36 bytes; without it the VMM names it
    #[arg(long, value_name = "TAG")]
    pub tag: Option<Tag>,

    /// Refuse every request that would change the share
    #[arg(long)]
    pub readonly: bool,

    /// Show file systems mounted inside the share as mounts of their own (default)
    #[arg(long, overrides_with = "no_announce_submounts")]
    pub announce_submounts: bool,

    /// Show the whole share as one file system
    #[arg(long, overrides_with = "announce_submounts")]
    pub no_announce_submounts: bool,

    /// Leave access times alone when the guest reads what it opened with O_NOATIME
    #[arg(long)]
    pub preserve_noatime: bool,

    /// Find names whatever their case, as Windows guests expect
    ///
    /// The name as the guest spells it goes first, then one that differs in case only; of several the first in byte
    /// order. What is made keeps its case, and nothing is made beside a name that differs in case only. Linux guests
    /// work, too, but ask about each name each time.
    #[arg(long, value_name = "RULE")]
    pub casefold: Option<CasefoldName>,

    /// Find inodes that the host has renamed by file handle, through a process that alone may open them [default: never]
    #[arg(long, value_name = "WHEN", require_equals = true, ignore_case = true)]
    pub inode_file_handles: Option<FileHandlesName>,
}

/// How the front-end reaches the daemon.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Socket to create and wait on for the VMM
    #[arg(long, value_name = "PATH", alias = "socket")]
    pub socket_path: Option<PathBuf>,

    /// Group that may connect to the socket, by name or number
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,

    /// Inherited descriptor of a socket that is listening already, instead of a path
    #[arg(long, value_name = "N")]
    pub fd: Option<u32>,

    /// Wait for the next connection when the VMM hangs up, instead of ending
    #[arg(long)]
    pub keep_listening: bool,
}

/// What the guest may keep and for how long.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Caching")]
pub struct CachingArgs {
    /// What the guest keeps of the share [default: auto]
    #[arg(long, value_name = "POLICY", ignore_case = true)]
    pub cache: Option<CacheName>,

    /// Seconds for which names and attributes stay valid, instead of the policy's own
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub timeout: Option<Seconds>,

    /// Let the guest gather writes before it sends them
    #[arg(long, overrides_with = "no_writeback")]
    pub writeback: bool,
    #[allow(
        missing_docs,
        reason = "hidden opposite of --writeback, for '-o no_writeback'"
    )]
    #[arg(long, hide = true, overrides_with = "writeback")]
    pub no_writeback: bool,

    #[allow(
        missing_docs,
        reason = "hidden opposite of --no-readdirplus, for '-o readdirplus'"
    )]
    #[arg(long, hide = true, overrides_with = "no_readdirplus")]
    pub readdirplus: bool,
    /// List directories without the attributes of their entries
    #[arg(long, overrides_with = "readdirplus")]
    pub no_readdirplus: bool,

    /// Pass the guest's O_DIRECT on to the host
    #[arg(long, overrides_with = "no_allow_direct_io")]
    pub allow_direct_io: bool,
    #[allow(
        missing_docs,
        reason = "hidden opposite of --allow-direct-io, for the legacy list"
    )]
    #[arg(long, hide = true, overrides_with = "allow_direct_io")]
    pub no_allow_direct_io: bool,

    /// Let the guest map files shared although it does not cache them, for shares that nobody else changes
    #[arg(long)]
    pub allow_mmap: bool,
}

/// What the guest sees beside names and bytes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Attributes")]
pub struct AttributeArgs {
    /// Pass extended attributes
    #[arg(long, overrides_with = "no_xattr")]
    pub xattr: bool,
    #[allow(missing_docs, reason = "hidden opposite of --xattr, for '-o no_xattr'")]
    #[arg(long, hide = true, overrides_with = "xattr")]
    pub no_xattr: bool,

    /// Rules that rename extended attributes between guest and host (implies --xattr)
    #[arg(long, value_name = "MAP")]
    pub xattrmap: Option<OsString>,

    /// POSIX access control lists [default: never]
    #[arg(
        long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
        default_missing_value = "always", ignore_case = true
    )]
    pub posix_acl: Option<Negotiable>,

    /// Security labels of new files set together with their creation [default: never]
    #[arg(
        long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
        default_missing_value = "always", ignore_case = true
    )]
    pub security_label: Option<Negotiable>,

    /// Drop set-user-id, set-group-id and capabilities on the host when a file changes (default where possible)
    #[arg(long, overrides_with = "no_killpriv_v2")]
    pub killpriv_v2: bool,

    /// Let the guest drop them by requests of its own
    #[arg(long, overrides_with = "killpriv_v2")]
    pub no_killpriv_v2: bool,
}

/// Locks that reach beyond the guest.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Locks")]
pub struct LockArgs {
    /// Take the guest's POSIX locks (fcntl) on the host, where others see them; Linux guests cannot interrupt a wait then
    #[arg(long, overrides_with = "no_posix_lock")]
    pub posix_lock: bool,
    #[allow(
        missing_docs,
        reason = "hidden opposite of --posix-lock, for '-o no_posix_lock'"
    )]
    #[arg(long, hide = true, overrides_with = "posix_lock")]
    pub no_posix_lock: bool,

    /// Take the guest's flock locks on the host, where others see them; Linux guests cannot interrupt a wait then
    #[arg(long, overrides_with = "no_flock")]
    pub flock: bool,
    #[allow(missing_docs, reason = "hidden opposite of --flock, for '-o no_flock'")]
    #[arg(long, hide = true, overrides_with = "flock")]
    pub no_flock: bool,
}

/// What stands between the daemon and the rest of the host.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Confinement")]
pub struct ConfinementArgs {
    /// How the daemon locks itself into the share [default: namespace]
    #[arg(long, value_name = "MODE", ignore_case = true)]
    pub sandbox: Option<SandboxName>,

    /// What happens at a system call that the daemon does not need [default: kill]
    #[arg(long, value_name = "ACTION", ignore_case = true)]
    pub seccomp: Option<SeccompName>,

    /// Capabilities to keep (+) or to give up (-) beyond the default, as in '+sys_admin:-chown'
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub modcaps: Option<CapabilityChanges>,
}

/// Whose identity is whose.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identity")]
pub struct IdentityArgs {
    /// Users of the sandbox's user namespace, ':INSIDE:HOST:COUNT:' (repeatable)
    #[arg(long, value_name = "MAP", action = ArgAction::Append)]
    pub uid_map: Vec<IdMapEntry>,

    /// Groups of the sandbox's user namespace, ':INSIDE:HOST:COUNT:' (repeatable)
    #[arg(long, value_name = "MAP", action = ArgAction::Append)]
    pub gid_map: Vec<IdMapEntry>,

    /// Translate user ids between guest and host, 'TYPE:SOURCE:DESTINATION:COUNT' (repeatable)
    ///
    /// 'guest' translates what the guest says, 'host' what the host says, 'map' both ways from guest to host;
    /// 'squash-guest' and 'squash-host' translate a whole range to one id; 'forbid-guest:SOURCE:COUNT' names ids that
    /// the guest may not make the owner of anything. An id without a rule stays what it is.
    #[arg(long, value_name = "RULE", action = ArgAction::Append)]
    pub translate_uid: Vec<Translation>,

    /// Translate group ids between guest and host, 'TYPE:SOURCE:DESTINATION:COUNT' (repeatable)
    #[arg(long, value_name = "RULE", action = ArgAction::Append)]
    pub translate_gid: Vec<Translation>,

    /// Let the guest make idmapped mounts of the share (Linux 6.12)
    ///
    /// The guest's kernel then tells who asks for creations only. Allocating or copying into a file takes its set-user-id
    /// and set-group-id bits away, also when the guest's root does it, on every mount of the share.
    #[arg(long)]
    pub allow_idmap: bool,
}

/// How much of the host the daemon may use.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Resources")]
pub struct ResourceArgs {
    /// Most threads for work that may sleep; 0 sizes them on first need [default: 0]
    #[arg(long, value_name = "N")]
    pub thread_pool_size: Option<u32>,

    /// Open files allowed; 0 leaves the limit [default: the lesser of 1000000 and fs.nr_open]
    #[arg(long, value_name = "N")]
    pub rlimit_nofile: Option<u64>,

    /// Most inodes the guest may know at a time [default: unlimited]
    #[arg(long, value_name = "N")]
    pub max_inodes: Option<std::num::NonZeroU64>,

    /// Microseconds to look for the next request before sleeping: as experience says, or as many [default: auto]
    ///
    /// 0 sleeps at once. Where there is no processor for each request queue and one more, none looks; with auto neither
    /// while threads of the host wait for processors.
    #[arg(long, value_name = "auto|N")]
    pub poll_us: Option<PollWindow>,

    /// Largest read and write of the guest, in bytes: 4096 to 4194304 [default: 1048576]
    #[arg(long, value_name = "BYTES", hide = true)]
    pub max_write: Option<std::num::NonZeroU32>,

    /// Most bytes the guest may read ahead
    #[arg(long, value_name = "BYTES", hide = true)]
    pub max_readahead: Option<u32>,

    /// Most requests the guest may have under way in the background
    #[arg(long, value_name = "N", hide = true)]
    pub max_background: Option<std::num::NonZeroU16>,
}

/// What moves with the machine.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Migration")]
pub struct MigrationArgs {
    /// How inodes are found again on the other side
    #[arg(long, value_name = "MODE", ignore_case = true)]
    pub migration_mode: Option<MigrationModeName>,

    /// What happens to an inode that is not found again
    #[arg(long, value_name = "ACTION", ignore_case = true)]
    pub migration_on_error: Option<MigrationErrorName>,

    /// Compare every inode with its file handle on the other side
    #[arg(long)]
    pub migration_verify_handles: bool,

    /// Look every path up once more before the machine moves
    #[arg(long)]
    pub migration_confirm_paths: bool,
}

/// The process itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Least serious message that is logged [default: info]
    #[arg(
        long,
        value_name = "LEVEL",
        ignore_case = true,
        overrides_with = "debug"
    )]
    pub log_level: Option<LevelName>,

    /// Same as --log-level debug
    #[arg(short = 'd', long, overrides_with = "log_level")]
    pub debug: bool,

    /// Log to the system's log instead of standard error
    #[arg(long)]
    pub syslog: bool,

    /// Stay in the foreground (default)
    #[arg(short = 'f', long, overrides_with = "daemonize")]
    pub foreground: bool,

    /// Go to the background once the socket is ready
    #[arg(long, overrides_with = "foreground")]
    pub daemonize: bool,

    /// Print what this binary can do, as JSON, and end
    #[arg(long)]
    pub print_capabilities: bool,

    /// Options of a legacy list that have lost their effect, in the order given
    #[arg(long, value_name = "NAME", hide = true, action = ArgAction::Append)]
    pub without_effect: Vec<WithoutEffect>,
}

/// The whole command line, for parsing, help and the manual page.
pub fn command() -> clap::Command {
    // `-o` is expanded by `compat` before clap sees the arguments, so it has a place in the help and no field.
    Cli::command().next_help_heading("Process").arg(
        Arg::new("legacy")
            .short('o')
            .value_name("LIST")
            .action(ArgAction::Append)
            .help("Options as older scripts give them, separated by commas")
            .long_help(
                "Options as older scripts give them, separated by commas; a comma inside a value is written ',,'. \
                 Known are: source= sandbox= [no_]chroot cache= timeout= [no_]writeback [no_]readdirplus \
                 [no_]allow_direct_io [no_]xattr xattrmap= [no_]posix_acl [no_]security_label [no_]killpriv_v2 \
                 [no_]flock [no_]posix_lock announce_submounts modcaps= log_level= loglevel= debug max_write= \
                 max_readahead= max_background= max_idle_threads= allow_root",
            ),
    )
}

/// Reads arguments that hold no legacy list any more.
fn read(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}
