//! stress-ng's file system class and dbench on a bridged share: nothing fails that does not fail on the store itself.
//!
//! A second for each stressor, and two for dbench with each cache policy; half a minute with `VIRTIOFSD_LONG=1`, and
//! then stress-ng, too, with each cache policy.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, on_tmpfs, run_within, skipped};
use virtiofs_testkit::suites::debian::programs_or_skip;
use virtiofs_testkit::suites::{dbench, stress_ng};

const MINUTE: Duration = Duration::from_secs(60);
const WRITE_BACK: &[&str] = &["--xattr", "--cache", "always", "--writeback"];
const NO_CACHE: &[&str] = &["--xattr", "--cache", "never", "--allow-mmap"];

fn long() -> bool {
    std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1")
}

#[test]
fn stress_ng_finds_nothing_that_the_store_does_not_show() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let Some(programs) = programs_or_skip()? else {
        return Ok(());
    };
    let (secs, policies): (_, &[&[&str]]) = if long() {
        ("30", &[&["--xattr"], WRITE_BACK, NO_CACHE])
    } else {
        ("1", &[&["--xattr"]])
    };
    let stress_ng = programs.command_line("usr/bin/stress-ng");
    for arguments in policies {
        let Some((_shared, share)) = on_tmpfs(arguments)? else {
            return Ok(());
        };
        let beside = Tmpfs::new()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", stress_ng::SCRIPT])
            .env("PLACE", share.path())
            .env("BESIDE", beside.path())
            .env("SECS", secs)
            .env("STRESS_NG", &stress_ng);
        let ran = run_within(30 * MINUTE, &mut command)?;
        let lost = stress_ng::Results::parse(&ran.output)?.lost();
        ensure!(lost.is_empty(), "{arguments:?}: {lost}");
        share.finish()?;
    }
    Ok(())
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
    }
    Ok(())
}
