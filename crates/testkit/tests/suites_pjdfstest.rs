//! pjdfstest on a bridged share: what the host's file system does, the share
//! does too. Both run with the same configuration, every Linux feature on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{
    BridgedShare, Tmpfs, can_mount, installed_crate, run_within, skipped,
};
use virtiofs_testkit::frontend::Launch;

/// `nobody` and `daemon` are users of every Debian system. A timestamp tick
/// of Linux is at most 10 ms (`CONFIG_HZ` 100). Tests of a read-only remount
/// stay off: on tmpfs, too, half of them fail with EBUSY because the ones
/// before leave files open.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.011
allow_remount = false
expected_failures = []

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Test name to `ok`, `skipped` or `FAILED`, and the whole output.
struct Results {
    by_name: BTreeMap<String, String>,
    output: String,
}

fn run_in(directory: &Path, secondary: &Path) -> Result<Results> {
    let program = installed_crate("pjdfstest")?;
    let configuration = tempfile::NamedTempFile::new()?;
    std::fs::write(&configuration, CONFIGURATION)?;
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1");
    command.arg("-c").arg(configuration.path());
    command.arg("-p").arg(directory).arg("-s").arg(secondary);
    let ran = run_within(Duration::from_secs(600), &mut command)?;
    let by_name: BTreeMap<String, String> = ran
        .output
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .filter(|(_, result)| matches!(result.as_str(), "ok" | "skipped" | "FAILED"))
        .collect();
    let summary = ran
        .output
        .lines()
        .find(|line| line.starts_with("Summary: "));
    let summary = summary.with_context(|| format!("no summary: {}", ran.output))?;
    let total = format!("{} total", by_name.len());
    ensure!(
        summary.ends_with(&total),
        "{} results, but {summary}",
        by_name.len()
    );
    println!("{}: {summary}", directory.display());
    Ok(Results {
        by_name,
        output: ran.output,
    })
}

/// One line for each test that did better on the host.
fn lost(host: &Results, share: &Results) -> String {
    let mut lines = String::new();
    for (name, on_host) in &host.by_name {
        let on_share = share.by_name.get(name).map_or("missing", String::as_str);
        if on_share != on_host && on_share != "ok" {
            let _ = writeln!(
                lines,
                "{name}: {on_host} on the host, {on_share} on the share"
            );
        }
    }
    lines
}

#[test]
fn pjdfstest_runs_and_passes_as_on_the_host() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let (on_host, shared, secondary) = (Tmpfs::new()?, Tmpfs::new()?, Tmpfs::new()?);
    let host = run_in(on_host.path(), secondary.path())?;
    let share = BridgedShare::start(Launch::new(shared.path()), &BridgeOptions::default())?;
    let bridged = run_in(share.path(), secondary.path())?;
    let lost = lost(&host, &bridged);
    ensure!(lost.is_empty(), "{lost}\n{}", bridged.output);
    share.finish()
}
