//! `cargo xtask man`: the manual page, made from the command line's own description.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap_mangen::Man;

use crate::repo;

/// Where the page is in the repository.
pub(crate) const PATH: &str = "docs/virtiofsd.1";

/// Writes the page.
pub(crate) fn run() -> Result<()> {
    fs::write(file(), page()?).with_context(|| format!("cannot write {PATH}"))
}

/// The page as it should be.
pub(crate) fn page() -> Result<String> {
    let mut page = Vec::new();
    Man::new(virtiofsd::cli::command()).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}

pub(crate) fn file() -> PathBuf {
    repo::root().join(PATH)
}
