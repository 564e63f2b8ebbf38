//! Test programs of cargo's registry, linked statically so that they run in any guest.

use std::path::PathBuf;
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
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

impl Program {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsx => "fsx",
            Self::Pjdfstest => "pjdfstest",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Fsx => "0.3.2",
            Self::Pjdfstest => "0.2.2",
        }
    }

    /// Where it is, built once.
    pub fn path(self) -> Result<PathBuf> {
        let (name, version) = (self.name(), self.version());
        let folder = cache::entry(name, &format!("static {version}"), |staging| {
            let mut cargo = Command::new("cargo");
            cargo
                .args(["install", name, "--version", version, "--locked", "--quiet"])
                .args(["--no-track", "--target", TARGET, "--root"])
                .arg(staging)
                // Built apart: a workspace's settings are not meant for it.
                .current_dir("/")
                .env_remove("CARGO_TARGET_DIR")
                .env("RUSTFLAGS", "-C target-feature=+crt-static")
                .stdin(Stdio::null());
            packages::output_of(&mut cargo)
                .map(drop)
                .map_err(|error| Unavailable(format!("crate {name} {version}: {error:#}")))
                .context("cargo install")
        })?;
        Ok(folder.join("bin").join(name))
    }
}
