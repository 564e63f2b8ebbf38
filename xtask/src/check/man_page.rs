//! The manual page says what the command line takes.

use std::fs;

use anyhow::Result;

use crate::man;

use super::Finding;

/// Whether the page in the repository is the one that the command line makes now.
pub(super) fn findings() -> Result<Vec<Finding>> {
    let kept = fs::read_to_string(man::file()).unwrap_or_default();
    Ok(compare(&kept, &man::page()?))
}

fn compare(kept: &str, made: &str) -> Vec<Finding> {
    let differs = kept
        .lines()
        .zip(made.lines())
        .position(|(kept, made)| kept != made);
    let same = kept == made;
    let line = differs.unwrap_or_else(|| kept.lines().count().min(made.lines().count())) + 1;
    let what = || format!("out of date from line {line}; run 'cargo xtask man'");
    if same {
        Vec::new()
    } else {
        vec![Finding::about(man::PATH, what())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_differs_anywhere_is_found() {
        let cases = [
            ("a\nb\n", "a\nb\n", None),
            ("a\nb\n", "a\nc\n", Some("line 2;")),
            ("a\n", "a\nb\n", Some("line 2;")),
            ("", "a\n", Some("line 1;")),
            ("a\nb", "a\nb\n", Some("line 3;")),
        ];
        for (kept, made, want) in cases {
            let found = compare(kept, made);
            assert_eq!(found.is_empty(), want.is_none(), "{kept:?} {made:?}");
            let what = found
                .first()
                .map_or(String::new(), |finding| finding.what.clone());
            assert!(what.contains(want.unwrap_or("")), "{what}");
        }
    }
}
