//! fsx on a bridged share: random operations on one file, every byte checked.
//!
//! 20,000 operations for each cache policy, 100,000 with `VIRTIOFSD_LONG=1`.
//! A seed can be repeated with `VIRTIOFSD_SEED`.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{
    BridgedShare, Tmpfs, can_mount, installed_crate, run_within, skipped,
};
use virtiofs_testkit::frontend::Launch;

/// Every operation has a weight: by default fsx leaves half of them out.
/// `MAPPED` stands for the weight of those that map the file.
const CONFIGURATION: &str = "
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 1.0
invalidate = MAPPED
mapread = MAPPED
mapwrite = MAPPED
read = 10.0
write = 10.0
truncate = 3.0
fsync = 1.0
fdatasync = 1.0
posix_fallocate = 2.0
punch_hole = 3.0
sendfile = 3.0
posix_fadvise = 1.0
copy_file_range = 5.0
";

fn seed() -> Result<u64> {
    match std::env::var("VIRTIOFSD_SEED") {
        Ok(seed) => Ok(seed.parse()?),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
    }
}

fn run_with(mapped: &str, arguments: &[&str]) -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let operations = if long { "100000" } else { "20000" };
    let seed = seed()?.to_string();
    println!("VIRTIOFSD_SEED={seed}");
    let program = installed_crate("fsx")?;
    let shared = Tmpfs::new()?;
    let artifacts = tempfile::tempdir()?;
    let configuration = artifacts.path().join("fsx.toml");
    std::fs::write(&configuration, CONFIGURATION.replace("MAPPED", mapped))?;
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
    let ran = run_within(Duration::from_secs(900), &mut command)?;
    ensure!(
        ran.status.success(),
        "seed {seed}, {arguments:?}: {}",
        ran.output
    );
    share.finish()
}

#[test]
fn fsx_finds_every_byte_with_the_default_cache() -> Result<()> {
    run_with("2.0", &[])
}

/// Without a cache there is nothing to map: mmap is ENODEV (fuse_file_mmap).
#[test]
fn fsx_finds_every_byte_without_a_cache() -> Result<()> {
    run_with("0.0", &["--cache", "never"])
}

#[test]
fn fsx_finds_every_byte_with_write_back() -> Result<()> {
    run_with("2.0", &["--cache", "always", "--writeback"])
}
