//! fsx on a bridged share: random operations on one file, every byte checked.
//!
//! 20,000 operations for each cache policy, 1,000,000 with `VIRTIOFSD_LONG=1`.
//! A seed can be repeated with `VIRTIOFSD_SEED`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{
    BridgedShare, Tmpfs, can_mount, installed_crate, run_within, skipped,
};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::suites::fsx::{self, Mapping};

fn run_with(mapping: Mapping, arguments: &[&str]) -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let (operations, limit_secs) = if long {
        ("1000000", 3 * 60 * 60)
    } else {
        ("20000", 900)
    };
    let seed = fsx::seed()?.to_string();
    println!("VIRTIOFSD_SEED={seed}");
    let program = installed_crate("fsx")?;
    let shared = Tmpfs::new()?;
    let artifacts = tempfile::tempdir()?;
    let configuration = artifacts.path().join("fsx.toml");
    std::fs::write(&configuration, fsx::configuration(mapping))?;
    let launch = arguments
        .iter()
        .fold(Launch::new(shared.path()), |l, a| l.arg(*a));
    let share = BridgedShare::start(launch, &BridgeOptions::default())?;
    let mut command = Command::new(program);
    command
        .arg("-f")
        .arg(&configuration)
        .arg("-P")
        .arg(artifacts.path());
    command
        .args(["-N", operations, "-S", &seed])
        .arg(share.path().join("file"));
    let ran = run_within(Duration::from_secs(limit_secs), &mut command)?;
    ensure!(
        ran.status.success(),
        "seed {seed}, {arguments:?}: {}",
        ran.output
    );
    println!("RESULT: {operations} operations");
    share.finish()
}

#[test]
fn fsx_finds_every_byte_with_the_default_cache() -> Result<()> {
    run_with(Mapping::Works, &[])
}

#[test]
fn fsx_finds_every_byte_without_a_cache() -> Result<()> {
    run_with(Mapping::Refused, &["--cache", "never"])
}

#[test]
fn fsx_finds_every_byte_that_is_mapped_without_a_cache() -> Result<()> {
    run_with(Mapping::Works, &["--cache", "never", "--allow-mmap"])
}

#[test]
fn fsx_finds_every_byte_with_write_back() -> Result<()> {
    run_with(Mapping::Works, &["--cache", "always", "--writeback"])
}
