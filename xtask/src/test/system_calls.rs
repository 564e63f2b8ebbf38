//! The promise that a request costs no more system calls than its budget.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bench;
use crate::build::{self, Profile};

use super::record::Entry;
use super::{Surroundings, Tally};

const NAME: &str = "system_calls_per_request_stay_within_the_budget";

/// Counts with strace, unless the filter names other tests.
pub(super) fn test(surroundings: &Surroundings) -> Option<Entry> {
    if !surroundings.admits(NAME) {
        return None;
    }
    println!("\n== system calls");
    let begun = Instant::now();
    let outcome = build::daemon(Profile::Debug).and_then(|daemon| keeps_budget(&daemon));
    let tally = Tally::of_one(NAME, outcome);
    Some(Entry {
        name: "system calls".to_owned(),
        tally,
        time: begun.elapsed(),
    })
}

fn keeps_budget(daemon: &Path) -> Result<()> {
    let sentences = bench::over_budget(daemon)?;
    ensure!(
        sentences.is_empty(),
        "over the budget:\n  {}",
        sentences.join("\n  ")
    );
    Ok(())
}
