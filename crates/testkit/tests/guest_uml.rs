//! User-mode Linux guests: the kernel's own virtio-fs driver at near native speed.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use virtiofs_testkit::guest::Machine;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};

const MINUTE: Duration = Duration::from_secs(60);

fn mounts_and_works(machine: Machine) -> Result<()> {
    let Some(guest) = guest_or_skip(machine)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&[])?;
    fs::write(share.path().join("from the host"), "read me")?;
    let script = "set -e
        grep -q '^share /mnt virtiofs ' /proc/mounts
        cat 'from the host'
        echo written >'from the guest'
        mkdir -m 750 folder
        mv 'from the guest' folder/renamed
        ln -s renamed folder/link";
    let outcome = share.run(&guest, script, MINUTE)?;
    ensure!(outcome.output == "read me", "{:?}", outcome.output);
    ensure!(fs::read(share.path().join("folder/link"))? == b"written\n");
    ensure!(!share.path().join("from the guest").exists());
    Ok(())
}

#[test]
fn linux_6_1_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Uml61)
}

#[test]
fn linux_7_2_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Uml72)
}

#[test]
fn a_scripts_exit_code_and_output_come_back() -> Result<()> {
    let Some(guest) = guest_or_skip(Machine::Uml61)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&[])?;
    let error = share
        .run(&guest, "echo last words; exit 7", MINUTE)
        .unwrap_err()
        .to_string();
    ensure!(error.contains("ended with 7"), "{error}");
    ensure!(error.contains("last words"), "{error}");
    Ok(())
}
