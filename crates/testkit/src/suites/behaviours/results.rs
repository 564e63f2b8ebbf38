//! What a run printed, and how two runs compare.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use super::known::Known;

/// Check to what it came to (`PASS`, `FAIL`, `NOTHERE`) and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results(BTreeMap<String, (String, String)>);

const PASS: &str = "PASS";

impl Results {
    /// Reads what a run printed; an error if its own sum is another.
    pub fn parse(output: &str) -> Result<Self> {
        let mut results = BTreeMap::new();
        for line in output.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(name), Some(result)) = (words.next(), words.next()) else {
                continue;
            };
            if name.contains("::") && [PASS, "FAIL", "NOTHERE"].contains(&result) {
                let why = words.next().unwrap_or_default();
                results.insert(name.to_owned(), (result.to_owned(), why.to_owned()));
            }
        }
        let sum = output
            .lines()
            .find_map(|line| line.strip_prefix("checks: "));
        let sum = sum.with_context(|| format!("no sum: {output}"))?;
        ensure!(
            sum.parse() == Ok(results.len()),
            "{} results, but {sum} checks: {output}",
            results.len()
        );
        Ok(Self(results))
    }

    /// How many passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.0.values().filter(|(result, _)| result == PASS).count()
    }

    /// One line for each check that failed.
    #[must_use]
    pub fn failed(&self) -> String {
        let failed = self.0.iter().filter(|(_, (result, _))| result == "FAIL");
        failed.fold(String::new(), |mut lines, (name, (_, why))| {
            let _ = writeln!(lines, "{name}: {why}");
            lines
        })
    }

    /// One line for each check that passed here and not on `share`, unless that is `known`, and
    /// for each known one that passes there.
    #[must_use]
    pub fn lost_on(&self, share: &Self, known: &[Known]) -> String {
        let mut lines = String::new();
        let missing = ("MISSING".to_owned(), String::new());
        for (name, (here, _)) in &self.0 {
            let (there, why) = share.0.get(name).unwrap_or(&missing);
            let lost = here == PASS && there != PASS;
            let known = known.iter().find(|known| known.0 == name);
            match known {
                None if lost => _ = writeln!(lines, "{name}: {there} on the share: {why}"),
                Some(known) if there == PASS => {
                    let why = known.1;
                    _ = writeln!(lines, "{name}: passes, but is known not to, because {why}");
                }
                None | Some(_) => {}
            }
        }
        for known in known.iter().filter(|known| !self.0.contains_key(known.0)) {
            let _ = writeln!(lines, "{}: no such check", known.0);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "a::one PASS\na::two FAIL why\na::three NOTHERE why\na::four PASS\nchecks: 4\n";

    fn lost(share: &str, known: &[&'static str]) -> Vec<String> {
        let known: Vec<Known> = known.iter().map(|check| Known(check, "why")).collect();
        let (host, share) = (
            Results::parse(HOST).unwrap(),
            Results::parse(share).unwrap(),
        );
        let lost = host.lost_on(&share, &known);
        lost.lines()
            .filter_map(|line| line.split_once(": ").map(|(name, _)| name.to_owned()))
            .collect()
    }

    #[test]
    fn what_the_store_can_and_the_share_cannot_is_lost() {
        let share = "a::one NOTHERE x\na::two FAIL x\na::three PASS\nchecks: 3\n";
        assert_eq!(lost(share, &[]), ["a::four", "a::one"]);
        assert_eq!(lost(share, &["a::one", "a::four"]), [""; 0]);
        assert!(lost(HOST, &[]).is_empty());
    }

    #[test]
    fn a_known_difference_that_is_none_is_told() {
        assert_eq!(lost(HOST, &["a::one", "a::two"]), ["a::one"]);
        assert_eq!(lost(HOST, &["a::five"]), ["a::five"]);
    }

    #[test]
    fn a_sum_that_differs_is_an_error() {
        assert!(Results::parse("a::one PASS\nchecks: 2\n").is_err());
        assert!(Results::parse("a::one PASS\n").is_err());
    }
}
