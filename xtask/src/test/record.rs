//! What a run of the tests came to, and the page that a long run leaves in `docs/results`.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::repo;

use super::{Surroundings, Tally};

/// One suite's result.
pub(super) struct Entry {
    pub(super) name: String,
    /// What its tests have counted.
    pub(super) results: Vec<String>,
    pub(super) tally: Tally,
    pub(super) time: Duration,
}

impl Entry {
    /// The result of a suite without a test that was asked for.
    pub(super) fn nothing(name: String) -> Self {
        Self {
            name,
            results: Vec::new(),
            tally: Tally::default(),
            time: Duration::ZERO,
        }
    }
}

/// All results of one run.
pub(super) struct Report {
    stamp: repo::Stamp,
    filters: Vec<String>,
    seed: Option<String>,
    entries: Vec<Entry>,
}

impl Report {
    /// Names the commit before anything runs: what is checked out may be another by the end.
    pub(super) fn new(surroundings: &Surroundings) -> Result<Self> {
        Ok(Self {
            stamp: repo::Stamp::now()?,
            filters: surroundings.filters.clone(),
            seed: surroundings.seed.clone(),
            entries: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.entries.iter().for_each(|entry| total += entry.tally);
        total
    }

    /// Writes the page of a long run, named by date, commit and what the filter let through.
    pub(super) fn write(&self) -> Result<()> {
        let name: String = [&self.stamp.date, &self.stamp.commit]
            .into_iter()
            .chain(&self.filters)
            .flat_map(|part| ["-", part])
            .skip(1)
            .collect();
        // A filter may be a path of modules.
        let file = repo::results_dir()?.join(format!("{}.md", name.replace("::", "-")));
        fs::write(&file, self.page())
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("written: {}", file.display());
        Ok(())
    }

    fn page(&self) -> String {
        let repo::Stamp { date, commit } = &self.stamp;
        let mut page = format!("# Long tests, {date}\n\nCommit {commit}");
        if !self.filters.is_empty() {
            let _ = write!(page, ", tests named `{}`", self.filters.join("`, `"));
        }
        if let Some(seed) = &self.seed {
            let _ = write!(page, ", seed {seed} (`VIRTIOFSD_SEED={seed}` repeats it)");
        }
        page.push_str(".\n\n| suite | passed | failed | skipped | seconds |\n");
        page.push_str("|---|---:|---:|---:|---:|\n");
        // A filter leaves most suites without a test.
        let ran = |entry: &&Entry| entry.tally != Tally::default();
        for entry in self.entries.iter().filter(ran) {
            let Entry {
                name, tally, time, ..
            } = entry;
            let Tally {
                passed,
                failed,
                skipped,
            } = tally;
            let secs = time.as_secs();
            let _ = writeln!(
                page,
                "| {name} | {passed} | {failed} | {skipped} | {secs} |"
            );
        }
        let _ = writeln!(page, "\n{}", self.total());
        for result in self.entries.iter().flat_map(|entry| &entry.results) {
            let _ = write!(page, "\n- {result}");
        }
        if !page.ends_with('\n') {
            page.push('\n');
        }
        page
    }
}

/// A seed that no earlier run had.
pub(super) fn fresh_seed() -> String {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since_epoch.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_commit_seed_and_counts() {
        let entry = |name: &str, passed, failed| Entry {
            name: name.to_owned(),
            results: vec![format!("{passed} rounds")],
            tally: Tally {
                passed,
                failed,
                skipped: 0,
            },
            time: Duration::from_secs(2),
        };
        let report = Report {
            stamp: repo::Stamp {
                date: "2026-01-02".to_owned(),
                commit: "abc".to_owned(),
            },
            filters: vec!["races".to_owned()],
            seed: Some("7".to_owned()),
            entries: vec![entry("a", 3, 0), entry("b", 1, 1), entry("none", 0, 0)],
        };
        let page = report.page();
        for part in [
            "2026-01-02",
            "Commit abc",
            "tests named `races`",
            "seed 7",
            "| b | 1 | 1 | 0 | 2 |",
            "4 passed, 1 failed, 0 skipped",
            "- 3 rounds\n",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("none"), "{page}");
    }
}
