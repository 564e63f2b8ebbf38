//! Counting: what a run of libtest printed, as passed, failed and skipped tests.

use std::fmt;
use std::ops::AddAssign;

use anyhow::Result;

/// How many tests ended which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// The count of one test that is no libtest's; shows how it ended as libtest would.
    pub(super) fn of_one(name: &str, outcome: Result<()>) -> Self {
        match outcome {
            Ok(()) => {
                println!("test {name} ... ok");
                Self {
                    passed: 1,
                    ..Self::default()
                }
            }
            Err(error) => {
                println!("{error:#}\ntest {name} ... FAILED");
                Self {
                    failed: 1,
                    ..Self::default()
                }
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// What to do with a line that a test binary printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// Worth showing.
    Show(String),
    /// Output of a test that passed.
    Hide,
}

/// Which part of libtest's output is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Running,
    /// Output of tests that passed, under a title per test.
    Successes,
    Failures,
}

/// Reads the output of one or more libtest runs with `--show-output`.
#[derive(Debug)]
pub(super) struct Reader {
    section: Section,
    /// The test whose output is being read, until it says that it was skipped.
    test: Option<String>,
    /// What tests that passed have counted, each line with its test's name.
    results: Vec<String>,
    seen: Tally,
    /// Skipped tests of the run that has not yet printed its sum.
    skipped: usize,
    sums: Tally,
    summed: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            section: Section::Running,
            test: None,
            results: Vec::new(),
            seen: Tally::default(),
            skipped: 0,
            sums: Tally::default(),
            summed: false,
        }
    }

    /// Takes one line.
    pub(super) fn line(&mut self, line: &str) -> Echo {
        if line.starts_with("running ") && line.trim_end_matches('s').ends_with(" test") {
            self.begin();
        } else if let Some(sum) = line.strip_prefix("test result: ") {
            self.sum(sum);
        } else if line == "successes:" {
            self.section = Section::Successes;
            return Echo::Hide;
        } else if line == "failures:" {
            self.section = Section::Failures;
        } else if self.section == Section::Running {
            self.outcome(line);
        } else if self.section == Section::Successes {
            return self.output_of_success(line);
        }
        if line.is_empty() {
            Echo::Hide
        } else {
            Echo::Show(line.to_owned())
        }
    }

    fn begin(&mut self) {
        self.section = Section::Running;
        self.summed = false;
        self.seen = Tally::default();
        self.skipped = 0;
    }

    fn outcome(&mut self, line: &str) {
        if !line.starts_with("test ") {
            return;
        }
        if line.ends_with(" ... ok") {
            self.seen.passed += 1;
        } else if line.ends_with(" ... FAILED") {
            self.seen.failed += 1;
        }
    }

    fn output_of_success(&mut self, line: &str) -> Echo {
        let title = line
            .strip_prefix("---- ")
            .and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(test) = title {
            self.test = Some(test.to_owned());
            return Echo::Hide;
        }
        // A test counts once, however often it says so.
        if line.starts_with("SKIPPED: ")
            && let Some(test) = self.test.take()
        {
            self.skipped += 1;
            return Echo::Show(format!("test {test} ... {line}"));
        }
        if let (Some(result), Some(test)) = (line.strip_prefix("RESULT: "), &self.test) {
            self.results.push(format!("{test}: {result}"));
        }
        Echo::Hide
    }

    /// Takes libtest's own sum, such as `ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn sum(&mut self, text: &str) {
        let count = |what: &str| -> usize {
            text.split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        let skipped = self.skipped.min(count("passed"));
        self.sums += Tally {
            passed: count("passed") - skipped,
            failed: count("failed"),
            skipped: skipped + count("ignored"),
        };
        self.summed = true;
    }

    /// Takes the lines `RESULT: ...` of tests that passed.
    pub(super) fn take_results(&mut self) -> Vec<String> {
        std::mem::take(&mut self.results)
    }

    /// The counts, where the program ended as it did.
    ///
    /// A program that failed without a failed test, or ended before its sum,
    /// has at least one failure that libtest could not count.
    pub(super) fn finish(mut self, succeeded: bool) -> Tally {
        if !self.summed {
            self.sums += self.seen;
        }
        if !succeeded && self.sums.failed == 0 {
            self.sums.failed = 1;
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "\
running 5 tests
test a ... ok
test b ... ok
test c ... FAILED
test d ... ignored
test e ... ok

successes:

---- a stdout ----
SKIPPED: no /dev/fuse
SKIPPED: and no guest
---- b stdout ----
seed 7

successes:
    a
    b
    e

failures:

---- c stdout ----
SKIPPED: nothing, it failed

failures:
    c

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    fn read(text: &str, succeeded: bool) -> Tally {
        let mut reader = Reader::new();
        for line in text.lines() {
            reader.line(line);
        }
        reader.finish(succeeded)
    }

    #[test]
    fn a_test_that_says_skipped_is_not_counted_as_passed() {
        assert_eq!(
            read(RUN, false),
            Tally {
                passed: 2,
                failed: 1,
                skipped: 2
            }
        );
    }

    #[test]
    fn results_are_those_of_tests_that_passed() {
        let mut reader = Reader::new();
        let run = RUN
            .replace("seed 7", "RESULT: 10 rounds")
            .replace("SKIPPED: nothing", "RESULT: 9 rounds");
        for line in run.lines() {
            reader.line(line);
        }
        assert_eq!(reader.take_results(), ["b: 10 rounds"]);
    }

    #[test]
    fn several_runs_add_up() {
        let want = Tally {
            passed: 4,
            failed: 2,
            skipped: 4,
        };
        assert_eq!(read(&RUN.repeat(2), false), want);
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure() {
        let cases = [
            (
                "running 2 tests\ntest a ... ok\n",
                Tally {
                    passed: 1,
                    failed: 1,
                    skipped: 0,
                },
            ),
            (
                "",
                Tally {
                    passed: 0,
                    failed: 1,
                    skipped: 0,
                },
            ),
        ];
        for (text, want) in cases {
            assert_eq!(read(text, false), want, "{text}");
        }
    }

    #[test]
    fn the_sum_reads_as_people_expect() {
        let tally = Tally {
            passed: 3,
            failed: 0,
            skipped: 1,
        };
        assert_eq!(tally.to_string(), "3 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn output_of_passed_tests_is_hidden_but_for_the_reason_of_a_skip() {
        let mut reader = Reader::new();
        let shown: Vec<String> = RUN
            .lines()
            .filter_map(|line| match reader.line(line) {
                Echo::Show(line) => Some(line),
                Echo::Hide => None,
            })
            .collect();
        assert!(
            shown.contains(&"test a ... SKIPPED: no /dev/fuse".to_owned()),
            "{shown:?}"
        );
        assert!(
            !shown.iter().any(|line| line.contains("seed 7")),
            "{shown:?}"
        );
        assert!(
            shown.contains(&"---- c stdout ----".to_owned()),
            "{shown:?}"
        );
    }
}
