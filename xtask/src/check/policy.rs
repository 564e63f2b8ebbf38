//! What `deny.toml` says about dependencies: bans, licences, sources, known vulnerabilities.
//!
//! cargo-deny judges; where it is missing it is built once below the target
//! directory, which takes about two minutes on two processors.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{repo, tools};

use super::{Finding, Outcome};

/// The release of cargo-deny that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// Dependencies that are banned, badly licensed or from somewhere else.
pub(super) fn findings() -> Result<Outcome> {
    Ok(judge(
        &installed()?,
        &repo::root(),
        &["bans", "licenses", "sources"],
    ))
}

/// Dependencies with a known vulnerability, where the database of them was fetched before.
pub(super) fn advisories() -> Result<Outcome> {
    if !has_entries(&cargo_home().join("advisory-dbs")) {
        return Ok(Outcome::Skipped(
            "no database; 'cargo deny fetch' gets it where the network allows",
        ));
    }
    Ok(judge(
        &installed()?,
        &repo::root(),
        &["--disable-fetch", "advisories"],
    ))
}

/// Runs cargo-deny on the workspace at `root`, with the repository's rules.
fn judge(cargo_deny: &Path, root: &Path, what: &[&str]) -> Outcome {
    let mut command = Command::new(cargo_deny);
    command
        .args(["--log-level", "error", "--config"])
        .arg(repo::root().join("deny.toml"))
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("check")
        .args(what);
    match repo::output(&mut command) {
        Ok(_) => Outcome::Findings(Vec::new()),
        Err(error) => Outcome::Findings(vec![Finding::about("deny.toml", format!("{error:#}"))]),
    }
}

/// cargo-deny, installed if need be.
fn installed() -> Result<PathBuf> {
    if let Some(program) = at_hand() {
        return Ok(program);
    }
    tools::cargo_install("cargo-deny", VERSION, &tools::dir())?;
    Ok(tools::dir().join("bin/cargo-deny"))
}

fn at_hand() -> Option<PathBuf> {
    let ours = tools::dir().join("bin/cargo-deny");
    if ours.is_file() {
        Some(ours)
    } else {
        tools::find("cargo-deny")
    }
}

fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    std::env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

fn has_entries(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A package of one file under a licence, judged by the repository's rules.
    fn judged(cargo_deny: &Path, license: &str) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let manifest = format!(
            "[package]\nname = \"planted\"\nversion = \"0.1.0\"\nlicense = \"{license}\"\n[workspace]\n"
        );
        fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/lib.rs"), "").unwrap();
        judge(cargo_deny, folder.path(), &["licenses"])
    }

    #[test]
    fn a_planted_licence_is_found() {
        let Some(cargo_deny) = at_hand() else {
            assert!(
                std::env::var_os("VIRTIOFSD_NO_SKIP").is_none(),
                "cargo-deny is not installed"
            );
            println!("SKIPPED: cargo-deny is not installed; 'cargo xtask check' installs it");
            return;
        };
        assert_eq!(judged(&cargo_deny, "MIT"), Outcome::Findings(Vec::new()));
        assert_ne!(
            judged(&cargo_deny, "GPL-3.0-only"),
            Outcome::Findings(Vec::new())
        );
    }
}
