//! Where the repository is, what it consists of, and how programs are run in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The root of the checkout that this program was built from.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository's root")
        .to_owned()
}

/// Cargo's output directory, which also holds what these commands download and build for themselves.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// One text file of the repository, by its path from the root.
#[derive(Clone, Debug)]
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    /// Whether this is Rust source.
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path).extension() == Some(OsStr::new("rs"))
    }

    /// Whether this holds tests only: `tests.rs`, `testing.rs`, or a file in a folder `tests`.
    pub(crate) fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| matches!(part, "tests" | "tests.rs" | "testing" | "testing.rs"))
    }
}

/// Every text file that git tracks or would track: what a commit could contain.
pub(crate) fn text_files() -> Result<Vec<TextFile>> {
    let listed = output(Command::new("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut files = Vec::new();
    for path in listed.lines() {
        // A path that is listed but gone is a deletion not yet committed;
        // what is not text (a corpus, an image) is not ours to read.
        if let Ok(text) = fs::read_to_string(root().join(path)) {
            files.push(TextFile {
                path: path.to_owned(),
                text,
            });
        }
    }
    ensure!(
        !files.is_empty(),
        "git lists no files in {}",
        root().display()
    );
    Ok(files)
}

/// What cargo knows of the workspace and everything it is built from on Linux.
pub(crate) fn metadata() -> Result<Value> {
    let text = output(Command::new("cargo").args([
        "metadata",
        "--format-version=1",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]))?;
    serde_json::from_str(&text).context("cannot read the output of cargo metadata")
}

/// Runs a program in the root, its output going where ours goes; it must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .current_dir(root())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} failed ({status})");
    Ok(())
}

/// Runs a program in the root and takes its standard output; it must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .current_dir(root())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed what is not UTF-8"))
}

/// Where results of long runs are kept.
pub(crate) fn results_dir() -> Result<PathBuf> {
    let folder = root().join("docs/results");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What a result is named by.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// Day in UTC, as 2026-01-31.
    pub(crate) date: String,
    /// The commit; ends in `-dirty` when the files were others, and then proves nothing.
    pub(crate) commit: String,
}

impl Stamp {
    /// Today, and what is checked out.
    pub(crate) fn now() -> Result<Self> {
        let ask = |program: &str, arguments: &[&str]| {
            output(Command::new(program).args(arguments)).map(|text| text.trim().to_owned())
        };
        Ok(Self {
            date: ask("date", &["--utc", "+%Y-%m-%d"])?,
            commit: ask("git", &["describe", "--always", "--dirty", "--exclude=*"])?,
        })
    }
}

/// A command as a person would type it, for messages.
fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
