//! The values that options take: each is a type, and its `FromStr` the one place that reads it.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use rustix::thread::CapabilitySet;
use virtiofs_hostfs::{IdMap, IdRange, IdRule};

/// `--sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SandboxName {
    /// Namespaces of its own, with the share as root
    Namespace,
    /// The share as root directory; needs CAP_SYS_CHROOT only
    Chroot,
    /// No change of root; needs nothing
    None,
    /// The strongest of these that works here
    Auto,
}

/// `--seccomp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeccompName {
    /// No filter
    None,
    /// End the process
    Kill,
    /// Allow the call and log it
    Log,
    /// Send SIGSYS
    Trap,
}

/// `--cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheName {
    /// One second for names and attributes; data until the next open
    Auto,
    /// Everything, for as long as the guest likes
    Always,
    /// Nothing
    #[value(alias = "none")]
    Never,
    /// Names and attributes, but no data
    Metadata,
    /// Longer the longer a file has been left alone
    Adaptive,
}

/// `--posix-acl` and `--security-label`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Negotiable {
    /// Not offered
    Never,
    /// Offered where the host can
    Auto,
    /// Required
    Always,
}

/// `--inode-file-handles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileHandlesName {
    /// By descriptors and names only
    Never,
    /// With file handles where they work
    #[value(alias = "fallback")]
    Prefer,
    /// With file handles, or not at all
    Mandatory,
}

/// `--casefold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CasefoldName {
    /// The letters a to z
    Ascii,
    /// Every letter that Unicode folds
    Unicode,
}

/// `--migration-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationModeName {
    /// By their paths
    FindPaths,
    /// By file handles
    FileHandles,
}

/// `--migration-on-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationErrorName {
    /// The migration fails
    Abort,
    /// The guest gets an error when it uses the inode
    GuestError,
}

/// `--log-level`; `err` is what older scripts write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say all there is")]
pub enum LevelName {
    #[value(alias = "err")]
    Error,
    Warn,
    Info,
    Debug,
    Trace,
    Off,
}

/// Name of the share in the guest: the `tag` of the device's configuration space (virtio 1.3, 5.11.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// Length of the field that holds it, in bytes.
    pub const MAX_BYTES: usize = 36;

    /// The name, without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        if raw.is_empty() || raw.len() > Self::MAX_BYTES {
            return Err(format!(
                "a tag has 1 to {} bytes, this one {}",
                Self::MAX_BYTES,
                raw.len()
            ));
        }
        Ok(Self(raw.to_owned()))
    }
}

/// A span of time given in seconds, with a fraction if need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        raw.parse::<f64>()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Self)
            .ok_or_else(|| "seconds are expected, as in 2 or 0.5".to_owned())
    }
}

/// `--poll-us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollWindow {
    /// Grows and shrinks with what it catches.
    Auto,
    /// A fixed number of microseconds; 0 sleeps at once.
    Fixed(u32),
}

impl FromStr for PollWindow {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        match raw {
            "auto" => Ok(Self::Auto),
            number => number
                .parse()
                .map(Self::Fixed)
                .map_err(|_| "'auto' or a number of microseconds is expected".to_owned()),
        }
    }
}

/// `--modcaps`: what to keep beyond the default set, and what to give up of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityChanges {
    /// Named with `+`.
    pub keep: CapabilitySet,
    /// Named with `-`.
    pub give_up: CapabilitySet,
}

impl Default for CapabilityChanges {
    fn default() -> Self {
        Self {
            keep: CapabilitySet::empty(),
            give_up: CapabilitySet::empty(),
        }
    }
}

impl FromStr for CapabilityChanges {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        let mut changes = Self::default();
        for item in raw.split(':') {
            let (sign, name) = item.split_at_checked(1).unwrap_or(("", item));
            let capability = capability_named(name);
            match (sign, capability) {
                ("+", Some(capability)) => {
                    changes.keep |= capability;
                    changes.give_up -= capability;
                }
                ("-", Some(capability)) => {
                    changes.give_up |= capability;
                    changes.keep -= capability;
                }
                ("+" | "-", None) => return Err(format!("'{name}' is not a capability")),
                _ => return Err(format!("'{item}' starts with neither '+' nor '-'")),
            }
        }
        Ok(changes)
    }
}

/// The capability of this name, in any case, with or without `cap_`.
fn capability_named(name: &str) -> Option<CapabilitySet> {
    let upper = name.to_ascii_uppercase();
    CapabilitySet::from_name(upper.strip_prefix("CAP_").unwrap_or(&upper))
}

/// One line of a user namespace's map (man 7 user_namespaces).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapEntry {
    /// First id inside.
    pub inside: u32,
    /// First id of the host.
    pub host: u32,
    /// How many ids follow one another.
    pub count: u32,
}

impl FromStr for IdMapEntry {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        let form = || "':INSIDE:HOST:COUNT:' is expected, as in ':0:100000:65536:'".to_owned();
        let separator = raw
            .chars()
            .next()
            .filter(|first| !first.is_alphanumeric())
            .ok_or_else(form)?;
        let inner = raw
            .strip_prefix(separator)
            .and_then(|rest| rest.strip_suffix(separator))
            .ok_or_else(form)?;
        let numbers: Vec<u32> = inner
            .split(separator)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| form())?;
        let [inside, host, count] = numbers[..] else {
            return Err(form());
        };
        check_range(inside, count)?;
        check_range(host, count)?;
        Ok(Self {
            inside,
            host,
            count,
        })
    }
}

/// The last id, 2^32 - 1, means "none" to the kernel, but the whole range is spelled with a count of 2^32 - 1.
fn check_range(first: u32, count: u32) -> Result<(), String> {
    if count == 0 {
        return Err("a range has at least one id".to_owned());
    }
    first
        .checked_add(count)
        .map(drop)
        .ok_or_else(|| "the range ends above 4294967295".to_owned())
}

/// One rule of `--translate-uid` or `--translate-gid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation(pub IdRule);

impl FromStr for Translation {
    type Err = String;

    fn from_str(raw: &str) -> Result<Self, String> {
        let form = || {
            "TYPE:SOURCE:DESTINATION:COUNT is expected, TYPE one of guest, host, squash-guest, squash-host, map; \
             or forbid-guest:SOURCE:COUNT"
                .to_owned()
        };
        let (kind, numbers) = raw.split_once(':').ok_or_else(form)?;
        let numbers: Vec<u32> = numbers
            .split(':')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| form())?;
        let rule = match (kind, &numbers[..]) {
            ("forbid-guest", &[first, count]) => IdRule::ForbidGuest(IdRange { first, count }),
            (_, &[first, to, count]) => {
                let from = IdRange { first, count };
                match kind {
                    "guest" => IdRule::Guest(from, to),
                    "host" => IdRule::Host(from, to),
                    "squash-guest" => IdRule::SquashGuest(from, to),
                    "squash-host" => IdRule::SquashHost(from, to),
                    "map" => IdRule::Map(from, to),
                    _ => return Err(form()),
                }
            }
            (_, _) => return Err(form()),
        };
        // Rules that make sense together are the plan's affair; one that makes none alone is a mistake.
        IdMap::new([rule]).map_err(|why| why.to_string())?;
        Ok(Self(rule))
    }
}

/// An option that both command lines know and that no longer does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum WithoutEffect {
    /// Threads are sized by need
    MaxIdleThreads,
    /// Who may connect is decided by the socket's mode
    AllowRoot,
}

impl WithoutEffect {
    /// As it is spelled in a legacy list.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxIdleThreads => "max_idle_threads",
            Self::AllowRoot => "allow_root",
        }
    }
}
