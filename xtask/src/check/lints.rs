//! What cargo's own tools say, with every warning an error.

use std::process::Command;

use crate::repo;

use super::Finding;

/// rustfmt, defaults.
pub(super) fn format() -> Vec<Finding> {
    verdict(
        Command::new("cargo").args(["fmt", "--all", "--", "--check"]),
        "run 'cargo fmt --all'",
    )
}

/// clippy with the workspace's lints, tests and examples included.
pub(super) fn clippy() -> Vec<Finding> {
    let mut command = Command::new("cargo");
    command.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    verdict(&mut command, "see above")
}

/// The same for the fuzz targets, which are no part of the workspace, and the tests of what they judge by.
pub(super) fn fuzz_targets() -> Vec<Finding> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    let for_fuzzing = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .args(arguments)
            .args(["--quiet", "--locked"])
            .args(manifest)
            .env("CARGO_TARGET_DIR", repo::target_dir().join("fuzz/clippy"))
            .env("RUSTFLAGS", "--cfg=fuzzing");
        command
    };
    let mut format = Command::new("cargo");
    format.arg("fmt").args(manifest).args(["--", "--check"]);
    let mut clippy = for_fuzzing(&["clippy", "--all-targets"]);
    clippy.args(["--", "-D", "warnings"]);
    let mut test = for_fuzzing(&["test", "--lib"]);
    let mut findings = verdict(
        &mut format,
        "run 'cargo fmt --manifest-path fuzz/Cargo.toml'",
    );
    findings.extend(verdict(&mut clippy, "see above"));
    findings.extend(verdict(&mut test, "see above"));
    findings
}

/// rustdoc, which finds links that lead nowhere, in private items too.
pub(super) fn documentation() -> Vec<Finding> {
    let mut command = Command::new("cargo");
    command.args([
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    verdict(&mut command, "see above")
}

/// A tool's exit code as a finding; what it printed stands above it.
fn verdict(command: &mut Command, hint: &str) -> Vec<Finding> {
    match repo::run(command) {
        Ok(()) => Vec::new(),
        Err(error) => vec![Finding::about("cargo", format!("{error:#}; {hint}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_fails_is_a_finding() {
        assert_eq!(verdict(&mut Command::new("true"), "").len(), 0);
        assert_eq!(verdict(&mut Command::new("false"), "").len(), 1);
        assert_eq!(verdict(&mut Command::new("/no/such/program"), "").len(), 1);
    }
}
