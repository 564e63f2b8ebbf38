//! Replies of READDIR and READDIRPLUS, taken apart.

use virtiofs_protocol::op::Releasedir;
use virtiofs_protocol::{Errno, Fh, Filesystem, NodeId};

use super::Guest;

/// `struct fuse_entry_out` and `struct fuse_dirent` (uapi/linux/fuse.h), in bytes.
const ENTRY_OUT: usize = 128;
const DIRENT: usize = 24;

/// Which request lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Names,
    LookedUp,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    pub(crate) ino: u64,
    pub(crate) next: u64,
    /// The node, where it was looked up.
    pub(crate) node: Option<NodeId>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The entries of a reply.
pub(crate) fn entries(bytes: &[u8], kind: Kind) -> Vec<Listed> {
    let head = match kind {
        Kind::Names => 0,
        Kind::LookedUp => ENTRY_OUT,
    };
    let (mut listed, mut at) = (Vec::new(), 0);
    while at + head + DIRENT < bytes.len() {
        let dirent = &bytes[at + head..];
        let len = u32::from_ne_bytes(dirent[16..20].try_into().unwrap());
        let len = usize::try_from(len).unwrap();
        if len == 0 {
            break;
        }
        let node = (head > 0)
            .then(|| word(bytes, at))
            .filter(|node| *node != 0);
        listed.push(Listed {
            name: dirent[DIRENT..DIRENT + len].to_vec(),
            ino: word(dirent, 0),
            next: word(dirent, 8),
            node: node.map(NodeId::from_raw),
        });
        at += head + (DIRENT + len).next_multiple_of(8);
    }
    listed
}

impl Guest {
    /// One request's entries.
    pub(crate) fn piece(
        &self,
        (node, directory): (NodeId, Fh),
        from: u64,
        size_bytes: usize,
        kind: Kind,
    ) -> Result<Vec<Listed>, Errno> {
        self.readdir_bytes((node, directory), from, size_bytes, kind)
            .map(|bytes| entries(&bytes, kind))
    }

    pub(crate) fn release_directory(&self, node: NodeId, directory: Fh) {
        let op = Releasedir { directory };
        assert!(self.fs.releasedir(&self.cx(), node, op).is_ok());
    }

    /// A whole directory, in replies of that size; without the two dots.
    pub(crate) fn list(
        &self,
        node: NodeId,
        size_bytes: usize,
        kind: Kind,
    ) -> Result<Vec<Listed>, Errno> {
        let directory = self.opendir(node)?;
        let mut at = 0;
        let pieces = std::iter::from_fn(|| {
            let piece = self.piece((node, directory), at, size_bytes, kind);
            if let Ok(piece) = &piece {
                at = piece.last()?.next;
            }
            Some(piece)
        });
        // Up to the first error; the directory is closed all the same.
        let all: Result<Vec<_>, Errno> = pieces.collect();
        self.release_directory(node, directory);
        let mut all: Vec<_> = all?.into_iter().flatten().collect();
        all.retain(|entry| entry.name != b"." && entry.name != b"..");
        Ok(all)
    }
}
