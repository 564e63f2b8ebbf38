//! pjdfstest: what POSIX says of file systems, one small test after the other.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

/// Whose clocks files get their times from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// One kernel's. A tick of its timestamps is at most 10 ms (`CONFIG_HZ` 100).
    One,
    /// Host's and guest's: with write-back the guest sets times itself. Each
    /// has its ticks, and the guest's come late when the host is busy.
    Two,
}

/// `nobody` and `daemon` are users of every Debian system. `NAP` stands for
/// the seconds after which a new timestamp has to be a later one. Tests of a
/// read-only remount stay off: on tmpfs, too, half of them fail with EBUSY
/// because the ones before leave files open.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = NAP
allow_remount = false
expected_failures = []

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// The text of a configuration file.
#[must_use]
pub fn configuration(clocks: Clocks) -> String {
    let nap_secs = match clocks {
        Clocks::One => "0.011",
        Clocks::Two => "0.4",
    };
    CONFIGURATION.replace("NAP", nap_secs)
}

/// The last of its three steps opens a running program with `O_RDONLY|O_TRUNC`. Where
/// ATOMIC_O_TRUNC was agreed on, Linux's client has the file cut before it asks whether it may be
/// written; the program dies of that, and if it is dead by then the answer is no longer ETXTBSY.
/// `bridge_names` tests the steps that Linux refuses in time.
const DECIDED_BY_A_RACE: &str = "open::etxtbsy";

/// Test name to `ok`, `skipped` or `FAILED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results(BTreeMap<String, String>);

impl Results {
    /// Reads what a run printed; an error if its own sum is another.
    pub fn parse(output: &str) -> Result<Self> {
        let by_name: BTreeMap<String, String> = output
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
            .filter(|(_, result)| matches!(result.as_str(), "ok" | "skipped" | "FAILED"))
            .collect();
        let summary = output.lines().find(|line| line.starts_with("Summary: "));
        let summary = summary.with_context(|| format!("no summary: {output}"))?;
        let total = format!("{} total", by_name.len());
        ensure!(
            summary.ends_with(&total),
            "{} results, but {summary}",
            by_name.len()
        );
        println!("{summary}");
        Ok(Self(by_name))
    }

    /// One line for each test that did better here than on `share`.
    #[must_use]
    pub fn lost_on(&self, share: &Self) -> String {
        let mut lines = String::new();
        for (name, here) in &self.0 {
            let there = share.0.get(name).map_or("missing", String::as_str);
            if there != here && there != "ok" && name != DECIDED_BY_A_RACE {
                let _ = writeln!(lines, "{name}: {here} on the host, {there} on the share");
            }
        }
        lines
    }

    /// The tests that failed, but for the one that a race decides.
    #[must_use]
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.0.iter().filter(|(_, result)| *result == "FAILED");
        let names = failed.map(|(name, _)| name.as_str());
        names.filter(|name| *name != DECIDED_BY_A_RACE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &str) -> Results {
        let total = lines.lines().count();
        Results::parse(&format!("{lines}\nSummary: {total} total\n")).unwrap()
    }

    #[test]
    fn what_the_share_lost_is_named() {
        let host = results("a ok\nb skipped\nc FAILED\nd ok\ne ok");
        let share = results("a FAILED\nb ok\nc FAILED\nd skipped");
        let lost = host.lost_on(&share);
        let names: Vec<&str> = lost
            .lines()
            .filter_map(|line| line.split(':').next())
            .collect();
        assert_eq!(names, ["a", "d", "e"]);
        assert_eq!(share.failed(), ["a", "c"]);
        assert_eq!(host.lost_on(&host), "");
    }

    #[test]
    fn a_sum_that_differs_is_an_error() {
        assert!(Results::parse("a ok\nSummary: 2 total\n").is_err());
        assert!(Results::parse("a ok\n").is_err());
    }
}
