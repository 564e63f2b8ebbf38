//! Our own suite of what Linux promises of file systems, on bridged shares and on their stores.
//!
//! The store says what can be expected: a check that passes there must pass on the share. By hand:
//! `target/debug/behaviours DIRECTORY [FILTER]`, as root, in any directory of any file system.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{BridgedShare, run_within};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::suites::behaviours::Results;
use virtiofs_testkit::suites::behaviours::known::{
    CUT_BY_SETATTR, EVERYTHING, Known, NEVER, WRITE_BACK, WRITTEN_AT_ONCE, WRITTEN_LATER,
};

#[path = "../../hostfs/tests/kit/store.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "stores of other tests, too")]
mod store;
use store::Store;

/// Longest that all checks may take together; each has a limit of its own.
const LIMIT: Duration = Duration::from_secs(900);

fn run_in(directory: &Path) -> Result<Results> {
    let output = output_in(directory, &[])?;
    Results::parse(&output)
}

fn output_in(directory: &Path, arguments: &[&str]) -> Result<String> {
    let place = tempfile::tempdir_in(directory)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_behaviours"));
    let ran = run_within(LIMIT, command.arg(place.path()).args(arguments))?;
    ensure!(ran.status.success(), "{}", ran.output);
    Ok(ran.output)
}

/// What the store must be able to do at least, so that the suite does not shrink unseen.
struct AtLeast(usize);

fn compare(
    store: Option<Store>,
    at_least: Option<AtLeast>,
    further: &[&str],
    known: &[&[Known]],
) -> Result<()> {
    let Some(store) = store else { return Ok(()) };
    let bare = run_in(store.path()).context("on the store itself")?;
    println!("{} pass on the store", bare.passed());
    if let Some(AtLeast(passed)) = at_least {
        ensure!(bare.failed().is_empty(), "{}", bare.failed());
        ensure!(bare.passed() >= passed, "only {} pass", bare.passed());
    }
    let launch = Launch::new(store.path())
        .sandbox("chroot")
        .args(EVERYTHING)
        .args(further);
    let share = BridgedShare::start(launch, &BridgeOptions::default())?;
    let shared = run_in(share.path()).context("on the share")?;
    let lost = bare.lost_on(&shared, &known.concat());
    ensure!(lost.is_empty(), "{further:?}:\n{lost}");
    share.finish()
}

#[test]
fn a_share_on_tmpfs_keeps_what_tmpfs_promises() -> Result<()> {
    compare(
        Store::tmpfs(),
        Some(AtLeast(740)),
        &[],
        &[NEVER, WRITTEN_AT_ONCE],
    )
}

#[test]
fn a_share_on_ext4_keeps_what_ext4_promises() -> Result<()> {
    compare(
        Store::ext4(),
        Some(AtLeast(750)),
        &[],
        &[NEVER, WRITTEN_AT_ONCE],
    )
}

#[test]
fn a_share_on_xfs_keeps_what_xfs_promises() -> Result<()> {
    compare(Store::xfs(), None, &[], &[NEVER, WRITTEN_AT_ONCE])
}

#[test]
fn a_share_on_btrfs_keeps_what_btrfs_promises() -> Result<()> {
    compare(Store::btrfs(), None, &[], &[NEVER, WRITTEN_AT_ONCE])
}

#[test]
fn with_write_back_a_share_keeps_what_ext4_promises() -> Result<()> {
    compare(Store::ext4(), None, WRITE_BACK, &[NEVER, WRITTEN_LATER])
}

#[test]
fn without_a_cache_a_share_keeps_what_tmpfs_promises() -> Result<()> {
    compare(
        Store::tmpfs(),
        None,
        &["--cache", "never", "--allow-mmap"],
        &[NEVER, WRITTEN_AT_ONCE],
    )
}

#[test]
fn with_locks_of_its_own_a_share_keeps_what_tmpfs_promises() -> Result<()> {
    compare(
        Store::tmpfs(),
        None,
        &["--no-posix-lock", "--no-flock"],
        &[NEVER, WRITTEN_AT_ONCE],
    )
}

#[test]
fn where_the_guest_drops_privileges_a_share_keeps_what_tmpfs_promises() -> Result<()> {
    compare(
        Store::tmpfs(),
        None,
        &["--no-killpriv-v2"],
        &[NEVER, CUT_BY_SETATTR],
    )
}

/// What goes wrong in a check is told of that check, and the others run.
#[test]
fn each_way_in_which_a_check_can_fail_is_told() -> Result<()> {
    let Some(store) = Store::tmpfs() else {
        return Ok(());
    };
    let output = output_in(store.path(), &["--planted"])?;
    let told = [
        ("passes PASS", ""),
        ("fails FAIL", "not so: a file is there"),
        ("differs FAIL", "not -1"),
        ("is_refused_otherwise FAIL", "No such file or directory"),
        ("is_not_here NOTHERE", "not supported"),
        ("panics FAIL", "101"),
        ("dies FAIL", "6"),
        ("hangs FAIL", "took over 5s"),
    ];
    for (result, why) in told {
        let begin = format!("planted::{result}");
        let line = output.lines().find(|line| line.starts_with(&begin));
        let line = line.with_context(|| format!("no {begin}: {output}"))?;
        ensure!(line.contains(why), "{line}");
    }
    Results::parse(&output).map(drop)
}
