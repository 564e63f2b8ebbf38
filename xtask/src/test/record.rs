//! What a run of the tests came to, and the page that a long run leaves in `docs/results`.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::repo;

use super::{Surroundings, Tally};

/// One suite's result.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) tally: Tally,
    pub(super) time: Duration,
}

/// All results of one run.
pub(super) struct Report {
    seed: Option<String>,
    entries: Vec<Entry>,
}

impl Report {
    pub(super) fn new(surroundings: &Surroundings) -> Self {
        Self {
            seed: surroundings.seed.clone(),
            entries: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.entries.iter().for_each(|entry| total += entry.tally);
        total
    }

    /// Writes the page of a long run, named by date and commit.
    pub(super) fn write(&self) -> Result<()> {
        let ask = |program: &str, arguments: &[&str]| {
            repo::output(Command::new(program).args(arguments)).map(|text| text.trim().to_owned())
        };
        let date = ask("date", &["--utc", "+%Y-%m-%d"])?;
        let commit = ask("git", &["describe", "--always", "--dirty", "--exclude=*"])?;
        let folder = repo::root().join("docs/results");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{date}-{commit}.md"));
        fs::write(&file, self.page(&date, &commit))
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("written: {}", file.display());
        Ok(())
    }

    fn page(&self, date: &str, commit: &str) -> String {
        let mut page = format!("# Long tests, {date}\n\nCommit {commit}");
        if let Some(seed) = &self.seed {
            let _ = write!(page, ", seed {seed} (`VIRTIOFSD_SEED={seed}` repeats it)");
        }
        page.push_str(".\n\n| suite | passed | failed | skipped | seconds |\n");
        page.push_str("|---|---:|---:|---:|---:|\n");
        for Entry { name, tally, time } in &self.entries {
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
            tally: Tally {
                passed,
                failed,
                skipped: 0,
            },
            time: Duration::from_secs(2),
        };
        let report = Report {
            seed: Some("7".to_owned()),
            entries: vec![entry("a", 3, 0), entry("b", 1, 1)],
        };
        let page = report.page("2026-01-02", "abc");
        for part in [
            "2026-01-02",
            "Commit abc",
            "seed 7",
            "| b | 1 | 1 | 0 | 2 |",
            "4 passed, 1 failed, 0 skipped",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }
}
