//! A whole tree as a value.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// One name, and what stands under it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Node {
    mode: u32,
    links: u64,
    owner: (u32, u32),
    /// The first of its names, in order of the whole tree: hard links have it in common.
    first_name: String,
    contents: Contents,
}

#[derive(Clone, PartialEq, Eq)]
enum Contents {
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    /// Never opened: it would be waited at.
    Special,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match &self.contents {
            Contents::File(bytes) => format!("{} bytes, sum {}", bytes.len(), sum(bytes)),
            Contents::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
            Contents::Directory => "directory".to_owned(),
            Contents::Special => "special".to_owned(),
        };
        let Self { mode, links, .. } = self;
        write!(
            f,
            "{mode:o} {links} {:?} {} {what}",
            self.owner, self.first_name
        )
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte))
}

/// Reads everything below `root`.
pub(super) fn read(root: &Path) -> Result<BTreeMap<String, Node>> {
    let mut nodes = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    walk(root, "", &mut |name, path| {
        let metadata = path.symlink_metadata()?;
        let first_name = first_names.entry(metadata.ino()).or_insert(name.to_owned());
        let contents = if metadata.is_dir() {
            Contents::Directory
        } else if metadata.is_symlink() {
            Contents::Symlink(path.read_link()?.as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() {
            Contents::File(std::fs::read(path)?)
        } else {
            Contents::Special
        };
        let node = Node {
            mode: metadata.mode(),
            links: metadata.nlink(),
            owner: (metadata.uid(), metadata.gid()),
            first_name: first_name.clone(),
            contents,
        };
        nodes.insert(name.to_owned(), node);
        Ok(())
    })?;
    Ok(nodes)
}

/// Has every file below `root` written to where it is kept. File by file: for FUSE, Linux 6.18 does not wait for what
/// `syncfs(2)` has begun.
pub(super) fn sync(root: &Path) -> Result<()> {
    walk(root, "", &mut |_, path| {
        if path.symlink_metadata()?.is_file() {
            File::open(path)?.sync_all()?;
        }
        Ok(())
    })
}

/// In order of names, directories before what is in them.
fn walk(
    directory: &Path,
    prefix: &str,
    visit: &mut impl FnMut(&str, &Path) -> Result<()>,
) -> Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("list {prefix}"))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for name in names {
        let (full, path) = (format!("{prefix}/{name}"), directory.join(&name));
        visit(&full, &path).with_context(|| full.clone())?;
        if path.symlink_metadata()?.is_dir() {
            walk(&path, &full, visit)?;
        }
    }
    Ok(())
}
