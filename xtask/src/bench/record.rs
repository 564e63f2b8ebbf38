//! The tables in `docs/PERFORMANCE.md`, between two marks; what stands around them is written by hand.

use std::fs;

use anyhow::{Context, Result};

use crate::repo;

const PAGE: &str = "docs/PERFORMANCE.md";
const BEGIN: &str = "<!-- made by 'cargo xtask bench --record' from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Puts a run's tables into the page.
pub(super) fn write(tables: &str) -> Result<()> {
    let file = repo::root().join(PAGE);
    let page = fs::read_to_string(&file).with_context(|| format!("cannot read {PAGE}"))?;
    fs::write(&file, spliced(&page, tables)?)?;
    println!("written: {}", file.display());
    Ok(())
}

fn spliced(page: &str, tables: &str) -> Result<String> {
    let lost = || format!("{PAGE} has lost a mark: {BEGIN}");
    let (before, rest) = page.split_once(BEGIN).with_context(lost)?;
    let (_, after) = rest.split_once(END).with_context(lost)?;
    Ok(format!(
        "{before}{BEGIN}\n{}\n\n{END}{after}",
        tables.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("by hand\n{BEGIN}old\n{END}more by hand\n");
        let once = spliced(&page, "new\n").unwrap();
        assert_eq!(
            once,
            format!("by hand\n{BEGIN}\nnew\n\n{END}more by hand\n")
        );
        assert_eq!(spliced(&once, "new\n").unwrap(), once);
        assert!(spliced("by hand\n", "new").is_err());
    }
}
