//! `cargo xtask demo`: a real guest mounts a directory of this machine and lives on it.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::build;

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory to share; a new temporary one by default
    directory: Option<PathBuf>,

    /// A shell in the guest, rather than a demonstration that ends by itself
    #[arg(long)]
    shell: bool,
}

/// Builds the daemon as users run it and hands over to the guest.
pub(crate) fn run(args: &Args) -> Result<()> {
    let daemon = build::daemon()?;
    let what = if args.shell {
        "a shell"
    } else {
        "a demonstration"
    };
    bail!(
        "no guest to give {what} to {:?} with {} yet",
        args.directory,
        daemon.display()
    )
}
