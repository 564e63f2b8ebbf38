//! Test programs of cargo's registry and of our own, linked statically so that they run in any guest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Unavailable, cache, packages};

/// A program that a guest can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Random operations on one file, every byte checked.
    Fsx,
    /// POSIX semantics of file systems.
    Pjdfstest,
    /// The checks of [`crate::suites::behaviours`], as they stand in this workspace.
    Behaviours,
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

const STATIC: &str = "-C target-feature=+crt-static";

impl Program {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsx => "fsx",
            Self::Pjdfstest => "pjdfstest",
            Self::Behaviours => "behaviours",
        }
    }

    /// The version in the registry, where it comes from there.
    fn version(self) -> Option<&'static str> {
        match self {
            Self::Fsx => Some("0.3.2"),
            Self::Pjdfstest => Some("0.2.2"),
            Self::Behaviours => None,
        }
    }

    /// Where it is; one of the registry is built once, one of ours whenever it has changed.
    pub fn path(self) -> Result<PathBuf> {
        let name = self.name();
        let Some(version) = self.version() else {
            return built_here(name);
        };
        let folder = cache::entry(name, &format!("static {version}"), |staging| {
            let mut cargo = Command::new("cargo");
            cargo
                .args(["install", name, "--version", version, "--locked", "--quiet"])
                .args(["--no-track", "--target", TARGET, "--root"])
                .arg(staging)
                // Built apart: a workspace's settings are not meant for it.
                .current_dir("/")
                .env_remove("CARGO_TARGET_DIR")
                .env("RUSTFLAGS", STATIC)
                .stdin(Stdio::null());
            packages::output_of(&mut cargo)
                .map(drop)
                .map_err(|error| Unavailable(format!("crate {name} {version}: {error:#}")))
                .context("cargo install")
        })?;
        Ok(folder.join("bin").join(name))
    }
}

/// Builds a program of this package, beside what was built for this machine.
fn built_here(name: &str) -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| package.join("../../target"), PathBuf::from)
        .join("static");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--bin", name, "--target", TARGET])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(package)
        // Without what only debuggers read: the guest keeps it in memory.
        .env("RUSTFLAGS", format!("{STATIC} -C strip=symbols"));
    packages::output_of(&mut cargo).context("cargo build")?;
    Ok(target.join(TARGET).join("debug").join(name))
}
