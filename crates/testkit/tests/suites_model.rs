//! Random steps from the guest's and the host's side, compared with a directory of the host.
//!
//! 10,000 steps for each cache policy that believes nothing, 3,000 for each other, always the same, so that a failure
//! is the work of a change; 1,000,000 with `VIRTIOFSD_LONG=1`. `VIRTIOFSD_SEED` chooses others; a long run of `cargo
//! xtask test` looks where none has looked.

use anyhow::{Context, Result};
use virtiofs_testkit::bridge::share::{Tmpfs, on_tmpfs};
use virtiofs_testkit::model::{Company, World};

/// Seeds that have found something where both sides work, run first.
const FOUND_SOMETHING: &[u64] = &[1_795_567_184];

fn run_with(company: Company, arguments: &[&str]) -> Result<()> {
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let (found, steps) = match company {
        Company::GuestAndHost => (FOUND_SOMETHING, 10_000),
        Company::GuestAlone => (&[][..], 3_000),
    };
    let steps = if long { 1_000_000 } else { steps };
    let seed = match std::env::var("VIRTIOFSD_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => 1,
    };
    println!("VIRTIOFSD_SEED={seed}");
    let old = found.iter().map(|seed| (*seed, 10_000));
    for (seed, steps) in old.chain([(seed, steps)]) {
        let arguments = [&["--xattr"], arguments].concat();
        let Some((shared, share)) = on_tmpfs(&arguments)? else {
            return Ok(());
        };
        let reference = Tmpfs::new()?;
        World::new(share.path(), shared.path(), reference.path())
            .company(company)
            .run(seed, steps)
            .with_context(|| format!("VIRTIOFSD_SEED={seed}, {arguments:?}"))?;
        share.finish()?;
    }
    println!("RESULT: {steps} steps");
    Ok(())
}

#[test]
fn guest_and_host_agree_with_a_directory_without_a_cache() -> Result<()> {
    run_with(Company::GuestAndHost, &["--cache", "never"])
}

/// The guest asks each time whether what it keeps still holds.
#[test]
fn guest_and_host_agree_with_a_directory_when_nothing_is_believed() -> Result<()> {
    run_with(
        Company::GuestAndHost,
        &["--cache", "auto", "-o", "timeout=0"],
    )
}

#[test]
fn a_guest_alone_agrees_with_a_directory_with_the_default_cache() -> Result<()> {
    run_with(Company::GuestAlone, &[])
}

#[test]
fn a_guest_alone_agrees_with_a_directory_when_names_are_cached_and_bytes_are_not() -> Result<()> {
    run_with(Company::GuestAlone, &["--cache", "metadata"])
}

#[test]
fn a_guest_alone_agrees_with_a_directory_when_what_is_old_is_believed() -> Result<()> {
    run_with(Company::GuestAlone, &["--cache", "adaptive"])
}

#[test]
fn a_guest_alone_agrees_with_a_directory_when_everything_is_believed() -> Result<()> {
    run_with(Company::GuestAlone, &["--cache", "always"])
}

#[test]
fn a_guest_alone_agrees_with_a_directory_with_write_back() -> Result<()> {
    run_with(Company::GuestAlone, &["--cache", "always", "--writeback"])
}
