//! Programs that a test makes and runs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Copies a program to where it is then run, with its mode.
///
/// A process of its own writes the copy: any other test that starts a child meanwhile would give
/// it this process's open file, and a program that somebody may write to does not run (ETXTBSY).
///
/// # Errors
///
/// What `cp` says.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut cp = Command::new("cp");
    cp.args(["--preserve=mode", "--"]).arg(from).arg(to);
    let out = cp.output().context("cp")?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "cp {}: {said}", from.display());
    Ok(())
}
