//! Layers of containers: an overlay whose lower, upper and work directories are all on the share.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bridge::share::run_within;

/// Makes layers in `$PLACE`, works in them and prints what it found; its head says how.
pub const SCRIPT: &str = include_str!("../../guest/overlay.sh");

/// What the daemon needs and how the overlay is mounted, so that its attributes have a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Of the daemon.
    pub daemon: &'static [&'static str],
    /// Of the mount, each after a comma.
    pub mount: &'static str,
}

/// `trusted.overlay.*` reach the host as they are, which takes CAP_SYS_ADMIN there.
pub const TRUSTED: Attributes = Attributes {
    daemon: &["--xattr", "--modcaps=+sys_admin"],
    mount: "",
};

/// They are kept under names that any owner of a file may set.
pub const MAPPED: Attributes = Attributes {
    daemon: &["--xattrmap=:map:trusted.:user.virtiofs.:"],
    mount: "",
};

/// The overlay is told to use such names itself.
pub const USER: Attributes = Attributes {
    daemon: &["--xattr"],
    mount: ",userxattr",
};

/// Runs it in a namespace of its own, so that no mount stays behind; what it printed.
pub fn run(place: &Path, attributes: Attributes) -> Result<String> {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT])
        .env("PLACE", place)
        .env("OPTIONS", attributes.mount);
    let ran = run_within(Duration::from_secs(300), &mut command)?;
    ensure!(ran.status.success(), "{attributes:?}: {}", ran.output);
    Ok(ran.output)
}
