//! Building the daemon, and cargo's account of what it built.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::repo;

/// Builds the daemon as users run it and says where it is.
///
/// Tests, too, drive this build: with debug assertions, the standard library
/// makes system calls of its own (it asks whether a descriptor is open before
/// it closes it), and the price of a request could not be counted.
pub(crate) fn daemon() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--release",
        "--package=virtiofsd",
        "--bin=virtiofsd",
    ]);
    cargo.arg("--message-format=json-render-diagnostics");
    messages(&mut cargo)?
        .iter()
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no virtiofsd")
}

/// Runs cargo and takes its messages, one JSON object per line.
pub(crate) fn messages(cargo: &mut Command) -> Result<Vec<Value>> {
    // Compiler errors go to the terminal; only the messages are ours to read.
    let output = cargo
        .current_dir(repo::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the build failed");
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}
