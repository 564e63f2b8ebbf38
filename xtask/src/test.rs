//! `cargo xtask test`: builds what the tests need, runs every test, and counts them honestly.
//!
//! Unit tests run first, then one integration test binary after the other:
//! some of those boot guests, and two at once would make each other late. A
//! test that could not do its work prints `SKIPPED: why` and is counted as
//! skipped, not as passed. The last line is `N passed, N failed, N skipped`.

mod record;
mod run;
mod static_build;
mod suites;
mod tally;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::tools;

pub(crate) use tally::Tally;

/// Options of `cargo xtask test`.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// The long forms of the random and racing tests; writes the result to docs/results
    #[arg(long)]
    long: bool,

    /// Only tests whose name contains this, or whose suite's name does
    filter: Option<String>,
}

/// Longest time that one test may take before it counts as hung.
const TEST_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The same for the long forms.
const LONG_TEST_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// What tests run or look for, and the Debian package that has it. Guests and
/// what they are made with come from a cache of their own (docs/GUESTS.md).
const NEEDED: &[(&str, &str)] = &[
    ("mke2fs", "e2fsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.xfs", "xfsprogs"),
    ("strace", "strace"),
    ("runc", "runc"),
    ("git", "git"),
    ("diff", "diffutils"),
];

/// Runs the tests and fails if any failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    install_needed();
    let surroundings = Surroundings::new(args);
    let mut report = record::Report::new(&surroundings)?;
    for mut suite in suites::build()? {
        static_build::lend(&mut suite, &surroundings)?;
        let tally = run::suite(suite, &surroundings)?;
        report.add(tally);
    }
    if let Some(entry) = static_build::test(&surroundings) {
        report.add(entry);
    }
    if args.long {
        report.write()?;
    }
    let total = report.total();
    println!("\n{total}");
    ensure!(total.failed == 0, "{} tests failed", total.failed);
    ensure!(
        total.skipped == 0 || !in_continuous_integration(),
        "{} tests were skipped, and here nothing may be",
        total.skipped
    );
    Ok(())
}

/// There, everything that a test needs is there.
fn in_continuous_integration() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// What is the same for all tests of one run.
struct Surroundings {
    filter: Option<String>,
    limit: Duration,
    environment: Vec<(&'static str, String)>,
    seed: Option<String>,
}

impl Surroundings {
    fn new(args: &Args) -> Self {
        let mut environment = Vec::new();
        // In continuous integration everything a test needs is there, so a
        // test that skips itself has lost its way.
        if in_continuous_integration() {
            environment.push(("VIRTIOFSD_NO_SKIP", "1".to_owned()));
        }
        let mut seed = std::env::var("VIRTIOFSD_SEED").ok();
        if args.long {
            environment.push(("VIRTIOFSD_LONG", "1".to_owned()));
            // A long run looks where none has looked before, and says where it looked.
            let seed = seed.get_or_insert_with(record::fresh_seed);
            environment.push(("VIRTIOFSD_SEED", seed.clone()));
        }
        let limit = if args.long {
            LONG_TEST_LIMIT
        } else {
            TEST_LIMIT
        };
        Self {
            filter: args.filter.clone(),
            limit,
            environment,
            seed,
        }
    }

    /// Whether the filter lets a test, or a whole suite, run.
    fn admits(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
    }

    /// What chooses tests of a suite.
    fn filter_in(&self, suite: &str) -> Option<&str> {
        let filter = self.filter.as_deref()?;
        (!self.admits(suite)).then_some(filter)
    }
}

/// Installs what tests need; a test that still lacks something says so itself.
fn install_needed() {
    if let Err(error) = tools::debian(NEEDED) {
        println!("test: {error:#}");
    }
    for suite in ["fsx", "pjdfstest"] {
        if let Err(error) = virtiofs_testkit::bridge::share::installed_crate(suite) {
            println!("test: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_names_a_suite_lets_all_of_it_run() {
        let surroundings = Surroundings::new(&Args {
            long: false,
            filter: Some("suites_model".to_owned()),
        });
        assert_eq!(surroundings.filter_in("suites_model (test)"), None);
        assert_eq!(
            surroundings.filter_in("suites_fsx (test)"),
            Some("suites_model")
        );
        let all = Surroundings::new(&Args::default());
        assert_eq!(all.filter_in("suites_fsx (test)"), None);
    }
}
