//! A directory, the daemon that serves it as users run it, and the guest that works on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Guest, GuestOutcome, Machine, Root, Unavailable};
use crate::bridge::share::skipped;
use crate::frontend::{Daemon, Launch};

/// The tag that guests mount.
pub const TAG: &str = "share";

/// How long the daemon may take to end once its guest has.
const GRACE: Duration = Duration::from_secs(10);

/// A guest on this machine that lives on `root`; `None` where one of the two
/// cannot be had, which is said then.
///
/// # Panics
///
/// When skipping is forbidden.
pub fn guest_or_skip(machine: Machine, root: Root) -> Result<Option<Guest>> {
    match fetched(machine, root) {
        Ok(guest) => Ok(Some(guest)),
        Err(error) => match error.downcast_ref::<Unavailable>() {
            Some(why) => {
                skipped(&why.to_string());
                Ok(None)
            }
            None => Err(error),
        },
    }
}

fn fetched(machine: Machine, root: Root) -> Result<Guest> {
    let guest = Guest::new(machine)?;
    if root == Root::Debian {
        super::root::debian()?;
    }
    Ok(guest.root(root))
}

/// The daemon for a guest: in the sandbox and with the tag, which user-mode
/// Linux cannot do without.
#[must_use]
pub fn launch(directory: &Path, options: &[&str]) -> Launch {
    let launch = Launch::new(directory)
        .sandbox("namespace")
        .arg("--tag")
        .arg(TAG);
    options.iter().fold(launch, |l, option| l.arg(*option))
}

/// A served directory.
#[derive(Debug)]
pub struct GuestShare {
    path: PathBuf,
    daemon: Daemon,
    _own: Option<TempDir>,
}

impl GuestShare {
    /// Starts the daemon on a new directory, which goes with this value.
    pub fn start(options: &[&str]) -> Result<Self> {
        let directory = TempDir::new()?;
        let share = Self::start_in(directory.path(), options)?;
        Ok(Self {
            _own: Some(directory),
            ..share
        })
    }

    /// Starts the daemon on a directory of the caller's.
    pub fn start_in(directory: &Path, options: &[&str]) -> Result<Self> {
        Ok(Self {
            path: directory.to_path_buf(),
            daemon: launch(directory, options).start()?,
            _own: None,
        })
    }

    /// The directory, as the host sees it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Runs a script in a guest; it must end with exit code 0, and then the
    /// daemon, too, without a complaint. The directory stays.
    pub fn run(&mut self, guest: &Guest, script: &str, limit: Duration) -> Result<GuestOutcome> {
        let outcome = guest
            .clone()
            .share(self.daemon.socket(), TAG)
            .run(script, limit)
            .with_context(|| self.daemon.log())?;
        ensure!(
            outcome.exit_code == 0,
            "the script ended with {}:\n{}\n-- daemon\n{}",
            outcome.exit_code,
            outcome.output,
            self.daemon.log()
        );
        self.daemon.expect_exit(0, GRACE)?;
        let log = self.daemon.log();
        let complaints = [" WARN ", "ERROR "];
        ensure!(
            !complaints.iter().any(|level| log.contains(level)),
            "the daemon complains: {log}\n{}",
            outcome.output
        );
        // What a test prints is shown when it fails; slow steps can be found in it.
        println!("boot {:?}\n{}", outcome.boot, outcome.output);
        Ok(outcome)
    }
}
