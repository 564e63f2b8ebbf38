//! pjdfstest on a bridged share: what the host's file system does, the share
//! does too. Both run with the same configuration, every Linux feature on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{
    BridgedShare, Tmpfs, can_mount, installed_crate, run_within, skipped,
};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::suites::pjdfstest::{self, Clocks, Results};

fn run_in(directory: &Path, secondary: &Path) -> Result<(Results, String)> {
    let program = installed_crate("pjdfstest")?;
    let configuration = tempfile::NamedTempFile::new()?;
    std::fs::write(&configuration, pjdfstest::configuration(Clocks::One))?;
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1");
    command.arg("-c").arg(configuration.path());
    command.arg("-p").arg(directory).arg("-s").arg(secondary);
    let ran = run_within(Duration::from_secs(600), &mut command)?;
    println!("{}:", directory.display());
    Ok((Results::parse(&ran.output)?, ran.output))
}

#[test]
fn pjdfstest_runs_and_passes_as_on_the_host() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let (on_host, shared, secondary) = (Tmpfs::new()?, Tmpfs::new()?, Tmpfs::new()?);
    let (host, _) = run_in(on_host.path(), secondary.path())?;
    let share = BridgedShare::start(Launch::new(shared.path()), &BridgeOptions::default())?;
    let (bridged, output) = run_in(share.path(), secondary.path())?;
    let lost = host.lost_on(&bridged);
    ensure!(lost.is_empty(), "{lost}\n{}", output);
    share.finish()
}
