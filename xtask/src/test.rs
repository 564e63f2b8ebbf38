//! `cargo xtask test`: builds what the tests need, runs every test, and counts them honestly.
//!
//! Unit tests run first, then one integration test binary after the other:
//! some of those boot guests, and two at once would make each other late. A
//! test that could not do its work prints `SKIPPED: why` and is counted as
//! skipped, not as passed. The last line is `N passed, N failed, N skipped`.

mod models;
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

    /// Only tests whose name contains one of these, or whose suite's name does
    filters: Vec<String>,
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
    for mut suite in suites::build(&surroundings)? {
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
    filters: Vec<String>,
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
            filters: args.filters.clone(),
            limit,
            environment,
            seed,
        }
    }

    /// Whether the filters let a test, or a whole suite, run.
    fn admits(&self, name: &str) -> bool {
        let mut filters = self.filters.iter();
        self.filters.is_empty() || filters.any(|filter| name.contains(filter.as_str()))
    }

    /// What chooses tests of a suite.
    fn filters_in(&self, suite: &str) -> &[String] {
        if self.admits(suite) {
            &[]
        } else {
            &self.filters
        }
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
        let filters = vec!["suites_model".to_owned(), "fsx".to_owned()];
        let surroundings = Surroundings::new(&Args {
            long: false,
            filters: filters.clone(),
        });
        for whole in ["suites_model (test)", "suites_fsx (test)"] {
            assert!(surroundings.filters_in(whole).is_empty(), "{whole}");
        }
        assert_eq!(surroundings.filters_in("guest_suites (test)"), filters);
        let all = Surroundings::new(&Args::default());
        assert!(all.filters_in("guest_suites (test)").is_empty());
    }
}
