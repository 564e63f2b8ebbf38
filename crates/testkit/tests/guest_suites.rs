//! Suites of the registry and of Debian in a user-mode Linux guest.
//!
//! The shares are on tmpfs, as on the bridge: on a disk the suites would wait for syncs most of
//! the time, and one of pjdfstest's tests runs only where the C library knows
//! the most links of a kind of file system, which it does for neither tmpfs nor FUSE.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, run_within, skipped};
use virtiofs_testkit::guest::programs::Program;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Guest, Machine, Root, Unavailable, scenarios};
use virtiofs_testkit::suites::fsx::{self, Mapping};
use virtiofs_testkit::suites::overlay::{self, Attributes};
use virtiofs_testkit::suites::pjdfstest::{self, Clocks, Results};
use virtiofs_testkit::suites::{dbench, fio, stress_ng};

const NO_TMPFS: &str = "needs root, to mount a tmpfs";
const MINUTE: Duration = Duration::from_secs(60);

/// A Debian guest with a program; `None` where one of them cannot be had,
/// which is said then.
fn guest_with(machine: Machine, program: Program) -> Result<Option<Guest>> {
    match program.path() {
        Ok(_) => {}
        Err(error) => {
            let why = error.downcast::<Unavailable>()?;
            skipped(&why.to_string());
            return Ok(None);
        }
    }
    let guest = guest_or_skip(machine, Root::Debian)?;
    Ok(guest.map(|guest| guest.program(program)))
}

/// As many operations as stated, a million with `VIRTIOFSD_LONG=1`.
fn fsx(machine: Machine, (operations, mapping): (u32, Mapping), options: &[&str]) -> Result<()> {
    if Tmpfs::new().is_err() {
        skipped(NO_TMPFS);
        return Ok(());
    }
    let Some(guest) = guest_with(machine, Program::Fsx)? else {
        return Ok(());
    };
    let (operations, limit) = if long() {
        (1_000_000, 3 * 60 * MINUTE)
    } else {
        (operations, 10 * MINUTE)
    };
    let seed = fsx::seed()?;
    println!("VIRTIOFSD_SEED={seed}");
    let script = format!(
        "cat >/tmp/fsx.toml <<'END'\n{}END\n/job/fsx -f /tmp/fsx.toml -P /tmp -N {operations} -S {seed} file",
        fsx::configuration(mapping)
    );
    let store = Tmpfs::new()?;
    let mut share = GuestShare::start_in(store.path(), options)?;
    share
        .run(&guest, &script, limit)
        .with_context(|| format!("VIRTIOFSD_SEED={seed}, {machine}, {options:?}"))?;
    println!("RESULT: {operations} operations");
    Ok(())
}

#[test]
fn fsx_finds_every_byte_under_linux_7_2() -> Result<()> {
    fsx(Machine::Uml72, (100_000, Mapping::Works), &[])
}

/// User-mode Linux 6.1 takes eight times as long for an operation as 7.2.
#[test]
fn fsx_finds_every_byte_under_linux_6_1() -> Result<()> {
    fsx(Machine::Uml61, (5_000, Mapping::Works), &[])
}

#[test]
fn fsx_finds_every_byte_with_write_back() -> Result<()> {
    let options = ["--cache", "always", "--writeback"];
    fsx(Machine::Uml72, (20_000, Mapping::Works), &options)
}

#[test]
fn fsx_finds_every_byte_without_a_cache() -> Result<()> {
    let options = ["--cache", "never"];
    fsx(Machine::Uml72, (20_000, Mapping::Refused), &options)
}

/// What the store itself answers, to the same program.
fn pjdfstest_on_the_host(secondary: &Path) -> Result<Results> {
    let program = Program::Pjdfstest.path()?;
    let store = Tmpfs::new()?;
    let configuration = tempfile::NamedTempFile::new()?;
    std::fs::write(&configuration, pjdfstest::configuration(Clocks::One))?;
    let mut command = Command::new(program);
    command.env("NO_COLOR", "1");
    command.arg("-c").arg(configuration.path());
    command.arg("-p").arg(store.path()).arg("-s").arg(secondary);
    let ran = run_within(10 * MINUTE, &mut command)?;
    Results::parse(&ran.output)
}

fn pjdfstest(machine: Machine, options: &[&str]) -> Result<()> {
    if Tmpfs::new().is_err() {
        skipped(NO_TMPFS);
        return Ok(());
    }
    let Some(guest) = guest_with(machine, Program::Pjdfstest)? else {
        return Ok(());
    };
    let (store, secondary) = (Tmpfs::new()?, Tmpfs::new()?);
    let host = pjdfstest_on_the_host(secondary.path())?;
    let mut share = GuestShare::start_in(store.path(), options)?;
    // It ends with 1 when a test failed; what failed is judged here.
    let script = format!(
        "cat >/tmp/pjdfstest.toml <<'END'\n{}END\nmkdir /tmp/second\n\
         NO_COLOR=1 /job/pjdfstest -c /tmp/pjdfstest.toml -p /mnt -s /tmp/second\n\
         [ $? -le 1 ]",
        pjdfstest::configuration(Clocks::Two)
    );
    let outcome = share.run(&guest, &script, 10 * MINUTE)?;
    let guest = Results::parse(&outcome.output)?;
    let lost = host.lost_on(&guest);
    ensure!(lost.is_empty(), "{lost}\n{}", outcome.output);
    let failed = guest.failed();
    ensure!(failed.is_empty(), "{failed:?}\n{}", outcome.output);
    Ok(())
}

#[test]
fn pjdfstest_passes_as_on_the_host_under_linux_6_1() -> Result<()> {
    pjdfstest(Machine::Uml61, &[])
}

#[test]
fn pjdfstest_passes_as_on_the_host_under_linux_7_2_with_write_back() -> Result<()> {
    pjdfstest(Machine::Uml72, &["--cache", "always", "--writeback"])
}

const WRITE_BACK: &[&str] = &["--xattr", "--cache", "always", "--writeback"];

fn long() -> bool {
    std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1")
}

/// What a script prints in a Debian guest that has mounted a tmpfs of the host; `None` where that cannot be.
fn in_debian(machine: Machine, options: &[&str], script: &str) -> Result<Option<String>> {
    if Tmpfs::new().is_err() {
        skipped(NO_TMPFS);
        return Ok(None);
    }
    let Some(guest) = guest_or_skip(machine, Root::Debian)? else {
        return Ok(None);
    };
    let store = Tmpfs::new()?;
    let mut share = GuestShare::start_in(store.path(), options)?;
    let outcome = share
        .run(&guest, script, 60 * MINUTE)
        .with_context(|| format!("{machine}, {options:?}"))?;
    Ok(Some(outcome.output))
}

fn fio(mapping: Mapping, options: &[&str]) -> Result<()> {
    let seed = fsx::seed()?;
    println!("VIRTIOFSD_SEED={seed}");
    let size_mib = if long() { 64 } else { 4 };
    let jobs = fio::jobs(mapping, size_mib, seed);
    let words = fio::OPTIONS.join(" ");
    let script = format!("cat >/tmp/jobs <<'END'\n{jobs}END\nfio {words} /tmp/jobs");
    in_debian(Machine::Uml72, options, &script)?
        .map_or(Ok(()), |output| fio::judge(&jobs, &output))
        .with_context(|| format!("VIRTIOFSD_SEED={seed}, {options:?}"))
}

#[test]
fn fio_verifies_what_it_wrote_with_the_default_cache() -> Result<()> {
    fio(Mapping::Works, &[])
}

#[test]
fn fio_verifies_what_it_wrote_with_write_back() -> Result<()> {
    fio(Mapping::Works, WRITE_BACK)
}

#[test]
fn fio_verifies_what_it_wrote_without_a_cache() -> Result<()> {
    fio(Mapping::Refused, &["--cache", "never"])
}

#[test]
fn dbench_gets_the_answers_that_were_recorded() -> Result<()> {
    let secs = if long() { 60 } else { 2 };
    let script = format!("dbench -c /{} -t {secs} -D /mnt 2", dbench::CALLS);
    match in_debian(Machine::Uml72, WRITE_BACK, &script)? {
        Some(output) => dbench::judge(&output),
        None => Ok(()),
    }
}

/// What does not pass on the share is tried on the guest's own tmpfs.
#[test]
fn stress_ng_finds_nothing_that_a_tmpfs_does_not_show() -> Result<()> {
    let secs = if long() { "30" } else { "1" };
    let variables = [
        ("PLACE", "/mnt/share"),
        ("BESIDE", "/tmp/beside"),
        ("SECS", secs),
        ("STRESS_NG", "stress-ng"),
    ];
    let script = scenarios::with(&variables, stress_ng::SCRIPT);
    if let Some(output) = in_debian(Machine::Uml72, &["--xattr"], &script)? {
        let lost = stress_ng::Results::parse(&output)?.lost();
        ensure!(lost.is_empty(), "{lost}");
    }
    Ok(())
}

/// Layers on the share, and beside them layers on the guest's own tmpfs.
fn overlay(machine: Machine, attributes: Attributes) -> Result<()> {
    let script = format!(
        "cat >/tmp/overlay.sh <<'THE_END'\n{}THE_END\nset -e\nexport OPTIONS='{}' PLACE\n\
         PLACE=/tmp/layers\nsh /tmp/overlay.sh >/tmp/expected 2>&1 || {{ cat /tmp/expected; exit 1; }}\n\
         PLACE=/mnt/layers\nsh /tmp/overlay.sh >/tmp/actual 2>&1 || {{ cat /tmp/actual; dmesg | tail; exit 1; }}\n\
         diff /tmp/expected /tmp/actual && wc -l </tmp/actual",
        overlay::SCRIPT,
        attributes.mount
    );
    if let Some(output) = in_debian(machine, attributes.daemon, &script)? {
        let lines: u32 = output.trim().parse().context(output.clone())?;
        ensure!(lines > 100, "only {lines} lines to compare");
    }
    Ok(())
}

#[test]
fn an_overlay_works_on_the_share_under_linux_6_1() -> Result<()> {
    overlay(Machine::Uml61, overlay::TRUSTED)
}

#[test]
fn an_overlay_works_on_the_share_under_linux_7_2() -> Result<()> {
    overlay(Machine::Uml72, overlay::MAPPED)
}
