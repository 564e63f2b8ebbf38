//! `cargo xtask ci`: what must be green before anything lands.

use anyhow::Result;

use crate::{check, fuzz, test};

/// Runs the checks, then hostile bytes for a while, then the tests, whose counts are the last line.
pub(crate) fn run() -> Result<()> {
    check::run(&check::Args::default())?;
    fuzz::run(&fuzz::Args::planted())?;
    fuzz::run(&fuzz::Args::search())?;
    test::run(&test::Args::default())
}
