//! Our own suite of what Linux promises of file systems, on a share in user-mode Linux guests.
//!
//! What passes on the host's store must pass in the guest, on a share on such a store. Host and
//! guest are two kernels, so that a guest's list of differences has what its own cannot do as well.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, run_within, skipped};
use virtiofs_testkit::guest::programs::Program;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root};
use virtiofs_testkit::suites::behaviours::known::{
    EVERYTHING, Known, LINUX_6_1, NEVER, NOT_ASKED, UNINTERRUPTED, WRITE_BACK, WRITTEN_AT_ONCE,
    WRITTEN_LATER,
};
use virtiofs_testkit::suites::behaviours::{Results, TWO_CLOCKS};

/// Longest that all checks may take together; each has a limit of its own.
const LIMIT: Duration = Duration::from_secs(900);

fn on_the_host(program: &std::path::Path) -> Result<Results> {
    let store = Tmpfs::new()?;
    let ran = run_within(LIMIT, Command::new(program).arg(store.path()))?;
    ensure!(ran.status.success(), "{}", ran.output);
    Results::parse(&ran.output)
}

fn compare(machine: Machine, further: &[&str], known: &[&[Known]]) -> Result<()> {
    if Tmpfs::new().is_err() {
        skipped("needs root, to mount a tmpfs");
        return Ok(());
    }
    let Some(guest) = guest_or_skip(machine, Root::Busybox)? else {
        return Ok(());
    };
    let host = on_the_host(&Program::Behaviours.path()?)?;
    ensure!(host.failed().is_empty(), "{}", host.failed());
    let store = Tmpfs::new()?;
    let mut share = GuestShare::start_in(store.path(), &[EVERYTHING, further].concat())?;
    // Host and guest have a clock each.
    let script = format!("mkdir checks && {TWO_CLOCKS}=1 /job/behaviours checks");
    let outcome = share.run(&guest.program(Program::Behaviours), &script, LIMIT)?;
    let known = [known.concat(), NOT_ASKED.to_vec()].concat();
    let lost = host.lost_on(&Results::parse(&outcome.output)?, &known);
    ensure!(lost.is_empty(), "{machine}, {further:?}:\n{lost}");
    Ok(())
}

#[test]
fn a_guest_of_linux_6_1_keeps_what_tmpfs_promises() -> Result<()> {
    let known = [NEVER, WRITTEN_AT_ONCE, UNINTERRUPTED, LINUX_6_1];
    compare(Machine::Uml61, &[], &known)
}

#[test]
fn a_guest_of_linux_7_2_keeps_what_tmpfs_promises() -> Result<()> {
    let known = [NEVER, WRITTEN_AT_ONCE, UNINTERRUPTED];
    compare(Machine::Uml72, &[], &known)
}

/// Its locks are its own kernel's, where a signal ends each wait.
#[test]
fn a_guest_that_writes_back_later_keeps_what_tmpfs_promises() -> Result<()> {
    let options = [WRITE_BACK, &["--no-posix-lock", "--no-flock"]].concat();
    let known = [NEVER, WRITTEN_LATER];
    compare(Machine::Uml72, &options, &known)
}
