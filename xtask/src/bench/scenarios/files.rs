//! Files and directories that the rows work on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use super::super::guest::{Guest, ROOT};

/// Files of a directory whose entries the guest does not know.
pub(super) const MANY: u32 = 1024;

/// Permission and type bits of a new file.
pub(super) const FILE_MODE: u32 = 0o100_644;

/// Length of the known file.
pub(super) const KNOWN_BYTES: u32 = 1 << 20;

/// A file of one mebibyte that the guest has looked up.
pub(super) fn known_file(guest: &mut Guest) -> Result<u64> {
    let path = guest.host_path("known");
    if !path.exists() {
        fs::write(path, vec![7; usize::try_from(KNOWN_BYTES)?])?;
    }
    Ok(guest.client().lookup(ROOT, "known")?.nodeid)
}

/// The known file, open.
pub(super) fn open_file(guest: &mut Guest) -> Result<(u64, u64)> {
    let node = known_file(guest)?;
    let opened = guest.client().open(node, O_RDWR).context("OPEN")?;
    Ok((node, opened.fh))
}

/// Flags of OPEN and CREATE are Linux's, as on x86-64.
pub(super) const O_RDONLY: u32 = 0;
pub(super) const O_RDWR: u32 = 0o2;
pub(super) const O_CREAT: u32 = 0o100;
pub(super) const O_EXCL: u32 = 0o200;

/// A directory in the share that everyone may write, with these empty files; looked up once.
pub(super) fn directory(guest: &mut Guest, name: &str, files: &[String]) -> Result<u64> {
    let path = guest.host_path(name);
    fs::create_dir_all(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    for file in files {
        fs::write(path.join(file), [])?;
    }
    Ok(guest.client().lookup(ROOT, name)?.nodeid)
}
