//! stress-ng's file system class: each stressor hammers one kind of call and verifies what it can.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

/// Runs all of them; its head says how.
pub const SCRIPT: &str = include_str!("../../guest/stress-ng.sh");

/// The class has 48 stressors in the release that is used; with far fewer something went wrong.
const FEWEST: usize = 40;

/// How a stressor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// It found that the kernel or the file system lacks something.
    Skipped,
    /// Its exit code.
    Failed(u8),
}

/// By stressor: how it ended, and what it said.
type Run = BTreeMap<String, (Outcome, String)>;

/// What the script printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    share: Run,
    /// Of those only that did not pass on the share.
    store: Run,
}

impl Results {
    /// Reads it; an error unless the whole class ran.
    pub fn parse(output: &str) -> Result<Self> {
        let (mut share, mut store, mut said) = (Run::new(), Run::new(), String::new());
        for line in output.lines() {
            let Some(result) = line.strip_prefix("== ") else {
                let _ = writeln!(said, "{line}");
                continue;
            };
            let said = std::mem::take(&mut said);
            let mut words = result.split(' ');
            let run = match words.next() {
                Some("share") => &mut share,
                _ => &mut store,
            };
            let name = words.next().context("no name")?.to_owned();
            let code: u8 = words.next().context("no exit code")?.parse()?;
            let outcome = match code {
                _ if said.to_lowercase().contains("skip") => Outcome::Skipped,
                0 => Outcome::Passed,
                code => Outcome::Failed(code),
            };
            run.insert(name, (outcome, said));
        }
        ensure!(
            share.len() >= FEWEST,
            "only {} stressors: {output}",
            share.len()
        );
        let passed = share.values().filter(|(o, _)| *o == Outcome::Passed);
        println!("{} stressors, {} passed", share.len(), passed.count());
        Ok(Self { share, store })
    }

    /// What each said that ended on the share worse than, or otherwise than, on the store.
    #[must_use]
    pub fn lost(&self) -> String {
        let mut lines = String::new();
        for (name, (outcome, said)) in &self.share {
            let on_store = self.store.get(name).map(|(outcome, _)| *outcome);
            if *outcome != Outcome::Passed && on_store != Some(*outcome) {
                let _ = writeln!(
                    lines,
                    "{name}: {outcome:?} on the share, {on_store:?} on the store\n{said}"
                );
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(more: &str) -> String {
        let passed = (0..FEWEST).map(|number| format!("fine\n== share s{number} 0\n"));
        passed.chain([more.to_owned()]).collect()
    }

    #[test]
    fn what_the_share_lost_is_told_with_what_it_said() {
        let cases = [
            ("", ""),
            (
                "no verity, skipping\n== share v 0\nskipping\n== store v 3\n",
                "",
            ),
            ("broken\n== share a 2\nbroken\n== store a 2\n", ""),
            (
                "broken\n== share a 2\nfine\n== store a 0\n",
                "a: Failed(2) on the share, Some(Passed) on the store\nbroken\n\n",
            ),
            (
                "will be skipped\n== share a 3\n== store a 0\n",
                "a: Skipped on the share, Some(Passed) on the store\nwill be skipped\n\n",
            ),
            (
                "== share a 2\n",
                "a: Failed(2) on the share, None on the store\n\n",
            ),
        ];
        for (more, want) in cases {
            assert_eq!(Results::parse(&class(more)).unwrap().lost(), want);
        }
    }

    #[test]
    fn a_class_that_did_not_run_whole_is_an_error() {
        assert!(Results::parse("fine\n== share access 0\n").is_err());
    }
}
