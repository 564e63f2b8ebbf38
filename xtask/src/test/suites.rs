//! The test binaries of the workspace, in the order in which they run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::build;
use crate::repo;

use super::{Surroundings, models};

/// One program that runs tests.
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) command: Command,
    pub(super) tests: Tests,
}

/// Which tests of a program are meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tests {
    All,
    /// These, by their whole names.
    Named(Vec<String>),
}

/// A test binary as cargo reports it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Binary {
    stage: Stage,
    pub(super) name: String,
    pub(super) executable: PathBuf,
    package_dir: PathBuf,
}

/// What comes first; the cheap tests tell most about a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Unit,
    Integration,
}

/// Builds the tests and says how each binary is run.
pub(super) fn build(surroundings: &Surroundings) -> Result<Vec<Suite>> {
    let daemon = build::daemon()?;
    let mut cargo = Command::new("cargo");
    cargo.args([
        "test",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let mut binaries: Vec<Binary> = build::messages(&mut cargo)?
        .iter()
        .filter_map(binary)
        .collect();
    binaries.sort();
    let mut suites: Vec<Suite> = binaries
        .iter()
        .flat_map(|binary| in_each_sandbox(binary, &daemon))
        .collect();
    suites.extend(models::build(surroundings)?);
    let mut documentation = Command::new("cargo");
    documentation.args(["test", "--quiet", "--workspace", "--doc", "--"]);
    documentation.current_dir(repo::root());
    suites.push(Suite {
        name: "documentation".to_owned(),
        command: documentation,
        tests: Tests::All,
    });
    Ok(suites)
}

/// The test binary that a message of cargo announces, if it does.
pub(super) fn binary(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let target = &message["target"];
    let kind = target["kind"][0].as_str()?;
    let stage = match kind {
        "test" => Stage::Integration,
        _ => Stage::Unit,
    };
    let package_dir = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_owned();
    Some(Binary {
        stage,
        name: format!("{} ({kind})", target["name"].as_str()?),
        executable: message["executable"].as_str()?.into(),
        package_dir,
    })
}

/// Suites that drive the whole daemon run in each of its sandboxes; they start it without one by themselves.
const IN_EACH_SANDBOX: &[&str] = &[
    "bridge_mount (test)",
    "frontend_parking (test)",
    "frontend_life (test)",
    "frontend_requests (test)",
    "hostile_chains (test)",
    "hostile_exhaustion (test)",
    "hostile_kills (test)",
    "hostile_lifecycle (test)",
    "hostile_limits (test)",
    "hostile_memory (test)",
    "hostile_messages (test)",
    "hostile_names (test)",
    "hostile_once (test)",
    "hostile_opcodes (test)",
    "hostile_queues (test)",
    "hostile_rings (test)",
    "hostile_sessions (test)",
    "hostile_stores (test)",
    "hostile_tables (test)",
    "identity_requests (test)",
    "store_errors (test)",
    "suites_pjdfstest (test)",
];

fn in_each_sandbox(binary: &Binary, daemon: &Path) -> Vec<Suite> {
    let mut suites = vec![suite(binary, daemon)];
    if IN_EACH_SANDBOX.contains(&binary.name.as_str()) {
        suites.extend(modes().iter().map(|mode| {
            let mut confined = suite(binary, daemon);
            confined.name = format!("{} in {mode}", binary.name);
            confined.command.env("VIRTIOFSD_SANDBOX", mode);
            confined
        }));
    }
    suites
}

/// Sandboxes that can be entered here; only root has what chroot needs.
fn modes() -> &'static [&'static str] {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_root || std::env::var_os("VIRTIOFSD_NO_SKIP").is_some() {
        return &["namespace", "chroot"];
    }
    println!("SKIPPED: suites in chroot: only root has CAP_SYS_CHROOT");
    &["namespace"]
}

fn suite(binary: &Binary, daemon: &Path) -> Suite {
    let mut command = Command::new(&binary.executable);
    // As `cargo test` would run it.
    command.env("CARGO_MANIFEST_DIR", &binary.package_dir);
    command.env("CARGO_BIN_EXE_virtiofsd", daemon);
    // Where testkit looks for the daemon under test.
    command.env("VIRTIOFSD", daemon);
    command.current_dir(&binary.package_dir);
    Suite {
        name: binary.name.clone(),
        command,
        tests: Tests::All,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn artifact(kind: &str, name: &str, test: bool) -> Value {
        json!({
            "reason": "compiler-artifact", "manifest_path": "/r/crates/a/Cargo.toml",
            "target": {"kind": [kind], "name": name}, "profile": {"test": test},
            "executable": "/t/a",
        })
    }

    #[test]
    fn unit_tests_come_before_integration_tests() {
        let messages = [
            artifact("test", "a", true),
            artifact("bin", "z", true),
            artifact("bin", "y", false),
        ];
        let mut binaries: Vec<Binary> = messages.iter().filter_map(binary).collect();
        binaries.sort();
        let names: Vec<&str> = binaries.iter().map(|binary| binary.name.as_str()).collect();
        assert_eq!(names, ["z (bin)", "a (test)"]);
        assert_eq!(binaries[0].package_dir, Path::new("/r/crates/a"));
    }
}
