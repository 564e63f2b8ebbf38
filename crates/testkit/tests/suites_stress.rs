//! dbench on a bridged share with each cache policy, and in the long form (`VIRTIOFSD_LONG=1`) stress-ng's file
//! system class: nothing fails that does not fail on the store itself.
//!
//! The short form leaves stress-ng to the guests. It kills what it started, and of some twenty runs here the host's
//! kernel in one kept three processes waiting for answers after the connection was gone.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, on_tmpfs, run_within, skipped};
use virtiofs_testkit::guest::packages::Tree;
use virtiofs_testkit::suites::debian::programs_or_skip;
use virtiofs_testkit::suites::{dbench, stress_ng};

const MINUTE: Duration = Duration::from_secs(60);
const WRITE_BACK: &[&str] = &["--xattr", "--cache", "always", "--writeback"];
const NO_CACHE: &[&str] = &["--xattr", "--cache", "never", "--allow-mmap"];

fn long() -> bool {
    std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1")
}

/// The whole class, on a share with these arguments.
fn stress_ng(programs: &Tree, arguments: &[&str]) -> Result<()> {
    let Some((_shared, share)) = on_tmpfs(arguments)? else {
        return Ok(());
    };
    let beside = Tmpfs::new()?;
    let mut command = Command::new("sh");
    command
        .args(["-c", stress_ng::SCRIPT])
        .env("PLACE", share.path())
        .env("BESIDE", beside.path())
        .env("SECS", "30")
        .env("STRESS_NG", programs.command_line("usr/bin/stress-ng"));
    let ran = run_within(30 * MINUTE, &mut command)?;
    let lost = stress_ng::Results::parse(&ran.output)?.lost();
    ensure!(lost.is_empty(), "{arguments:?}: {lost}");
    share.finish()
}

#[test]
fn dbench_gets_the_answers_that_were_recorded_with_each_cache() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let Some(programs) = programs_or_skip()? else {
        return Ok(());
    };
    let secs = if long() { "30" } else { "2" };
    for arguments in [&["--xattr"], WRITE_BACK, NO_CACHE] {
        let Some((_shared, share)) = on_tmpfs(arguments)? else {
            return Ok(());
        };
        let mut command = programs.command("usr/bin/dbench");
        command
            .arg("-c")
            .arg(programs.path(dbench::CALLS))
            .args(["-t", secs, "-D"])
            .arg(share.path())
            .arg("4");
        let ran = run_within(10 * MINUTE, &mut command)?;
        ensure!(ran.status.success(), "{arguments:?}: {}", ran.output);
        dbench::judge(&ran.output).with_context(|| format!("{arguments:?}"))?;
        share.finish()?;
        if long() {
            stress_ng(&programs, arguments)?;
        }
    }
    Ok(())
}
