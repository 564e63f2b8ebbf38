//! Test programs of Debian on this machine: unpacked into the cache, not installed.

use anyhow::Result;

use crate::bridge::share::skipped;
use crate::guest::Unavailable;
use crate::guest::packages::{Suite, Tree};

/// The packages that have them.
const PACKAGES: &[&str] = &["stress-ng", "fio", "dbench"];

/// All of them; `None` where they cannot be had, which is said then.
///
/// # Panics
///
/// When skipping is forbidden.
pub fn programs_or_skip() -> Result<Option<Tree>> {
    match Tree::fetch(Suite::Bookworm, PACKAGES) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) => {
            let why = error.downcast::<Unavailable>()?;
            skipped(&why.to_string());
            Ok(None)
        }
    }
}
