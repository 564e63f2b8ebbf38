//! `cargo xtask demo`: a real guest mounts a directory of this machine and works in it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use virtiofs_testkit::guest::demo;

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
    let program = build::daemon()?;
    let directory = match &args.directory {
        Some(directory) => directory
            .canonicalize()
            .with_context(|| directory.display().to_string())?,
        None => tempfile::Builder::new()
            .prefix("virtiofsd-demo-")
            .tempdir()?
            .keep(),
    };
    if args.shell {
        demo::shell(&program, &directory)
    } else {
        demo::show(&program, &directory)
    }
}
