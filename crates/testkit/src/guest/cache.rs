//! What is fetched or built once and kept for every later run.
//!
//! An entry is named after its recipe, so a changed recipe makes a new entry
//! and nothing has to be thrown away by hand. Entries appear by rename, under
//! a lock between processes: what exists is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The cache directory: `$VIRTIOFSD_TEST_CACHE`, or `virtiofsd-tests` in the
/// user's cache directory (`$XDG_CACHE_HOME`, `~/.cache`).
pub fn dir() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIRTIOFSD_TEST_CACHE") {
        return Ok(path.into());
    }
    let caches = match std::env::var_os("XDG_CACHE_HOME") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(caches.join("virtiofsd-tests"))
}

/// The entry called `name` and made by `recipe`; `make` fills its directory
/// if it is not there yet.
///
/// `recipe` is everything that decides about the content, as text.
pub fn entry(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = dir()?;
    let path = cache.join(format!("{name}-{:016x}", fingerprint(recipe)));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(path.with_extension("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    // Another process may have made it while this one waited.
    if path.exists() {
        return Ok(path);
    }
    let staging = path.with_extension("new");
    // Left behind by a run that was ended by force.
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir(&staging)?;
    make(&staging).with_context(|| format!("make {}", path.display()))?;
    fs::rename(&staging, &path)?;
    Ok(path)
}

/// FNV-1a, 64 bits: the same in every release of the compiler, which names on
/// disk have to be.
fn fingerprint(recipe: &str) -> u64 {
    recipe.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the published test vectors of FNV-1a.
    #[test]
    fn names_on_disk_stay_what_they_are() {
        assert_eq!(fingerprint(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
    }
}
