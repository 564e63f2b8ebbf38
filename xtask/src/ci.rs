//! `cargo xtask ci`: what must be green before anything lands.

use anyhow::Result;

use crate::{check, test};

/// Runs the checks, then the tests.
pub(crate) fn run() -> Result<()> {
    check::run(&check::Args::default())?;
    test::run(&test::Args::default())
}
