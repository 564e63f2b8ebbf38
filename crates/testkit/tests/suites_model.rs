//! Random steps from the guest's and the host's side, compared with a directory of the host.
//!
//! 10,000 steps for each cache policy, 1,000,000 with `VIRTIOFSD_LONG=1`. A seed can be repeated with `VIRTIOFSD_SEED`.

use anyhow::{Context, Result};
use virtiofs_testkit::bridge::share::{Tmpfs, on_tmpfs};
use virtiofs_testkit::model::World;
use virtiofs_testkit::suites::fsx::seed;

/// Seeds that have found something, run first.
const FOUND_SOMETHING: &[u64] = &[];

fn run_with(arguments: &[&str]) -> Result<()> {
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let steps = if long { 1_000_000 } else { 10_000 };
    let seed = seed()?;
    println!("VIRTIOFSD_SEED={seed}");
    let old = FOUND_SOMETHING.iter().map(|seed| (*seed, 10_000));
    for (seed, steps) in old.chain([(seed, steps)]) {
        let arguments = [&["--xattr"], arguments].concat();
        let Some((shared, share)) = on_tmpfs(&arguments)? else {
            return Ok(());
        };
        let reference = Tmpfs::new()?;
        World::new(share.path(), shared.path(), reference.path())
            .run(seed, steps)
            .with_context(|| format!("VIRTIOFSD_SEED={seed}, {arguments:?}"))?;
        share.finish()?;
    }
    Ok(())
}

#[test]
fn guest_and_host_agree_with_a_directory_without_a_cache() -> Result<()> {
    run_with(&["--cache", "never"])
}

/// The guest asks each time whether what it keeps still holds.
#[test]
fn guest_and_host_agree_with_a_directory_when_nothing_is_believed() -> Result<()> {
    run_with(&["--cache", "auto", "-o", "timeout=0"])
}
