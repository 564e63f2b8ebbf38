//! The larger root of a guest: a Debian system with a compiler and test programs.
//!
//! Its packages are unpacked and not configured: none of their scripts runs,
//! so no privilege beyond ownership of files is needed and it is quick. What
//! the scripts would have made and tests need is made here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::packages::{self, Suite, Tree};
use super::{ACCOUNTS, cache};

/// What scripts find in the guest.
const PACKAGES: &[&str] = &[
    "acl",
    "attr",
    "base-files",
    "bash",
    "bc",
    "coreutils",
    "dash",
    "dbench",
    "debianutils",
    "diffutils",
    "e2fsprogs",
    "findutils",
    "fio",
    "gawk",
    "gcc",
    "git",
    "grep",
    "gzip",
    "libc6-dev",
    "make",
    "mount",
    "perl",
    "procps",
    "sed",
    "sqlite3",
    "stress-ng",
    "tar",
    "util-linux",
];

/// Space for the packages and some to spare; the image has holes.
const IMAGE_SIZE: &str = "1200M";

const GROUPS: &str = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n";

/// An ext4 image of it, made once. It is only ever read.
pub fn debian() -> Result<PathBuf> {
    let recipe = format!("4 {PACKAGES:?} {IMAGE_SIZE} {ACCOUNTS} {GROUPS}");
    let folder = cache::entry("debian-root", &recipe, |staging| {
        let tree = Tree::fetch(Suite::Bookworm, PACKAGES)?;
        let root = tree.path("");
        complete(&root)?;
        let mut mke2fs = Tree::fetch(Suite::Bookworm, &["e2fsprogs"])?.command("usr/sbin/mke2fs");
        mke2fs
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
            .arg(&root)
            .arg(staging.join("image"))
            .arg(IMAGE_SIZE);
        packages::output_of(&mut mke2fs).map(drop)
    })?;
    Ok(folder.join("image"))
}

/// Makes what the packages' own scripts would have made.
fn complete(root: &Path) -> Result<()> {
    fs::write(root.join("etc/passwd"), ACCOUNTS)?;
    fs::write(root.join("etc/group"), GROUPS)?;
    for (name, program) in [
        ("awk", "gawk"),
        ("cc", "gcc"),
        ("sh", "dash"),
        ("which", "which.debianutils"),
    ] {
        let link = root.join("usr/bin").join(name);
        if !link.exists() {
            symlink(program, link)?;
        }
    }
    for folder in ["dev", "proc", "sys", "tmp", "mnt", "job"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}
