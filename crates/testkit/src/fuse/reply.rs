//! What comes back.

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::abi;

/// Why a call gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The file system said no.
    #[error("{0}")]
    Errno(Errno),
    /// The daemon did not complete the request in time.
    #[error("no answer in time")]
    NoAnswer,
    /// The request does not fit the ring or the slots.
    #[error("no room in the queue")]
    Full,
    /// The reply breaks the protocol.
    #[error("malformed reply: {why} (header {header:?}, {written_bytes} bytes written)")]
    Malformed {
        /// Which rule.
        why: &'static str,
        /// What stood where the header belongs.
        header: abi::OutHeader,
        /// What the used ring said.
        written_bytes: u32,
    },
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Failure {
    /// The errno, if it was one.
    #[must_use]
    pub fn errno(self) -> Option<Errno> {
        match self {
            Self::Errno(errno) => Some(errno),
            Self::NoAnswer | Self::Full | Self::Malformed { .. } => None,
        }
    }
}

/// The errno that a call failed with, if it did.
pub fn errno<T>(result: Result<T, Failure>) -> Option<Errno> {
    result.err().and_then(Failure::errno)
}

/// One directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number, cookie, length of the name, type.
    pub dirent: abi::Dirent,
    /// The name.
    pub name: Vec<u8>,
    /// READDIRPLUS: what LOOKUP would say; node 0 where it says nothing.
    pub entry: Option<abi::EntryOut>,
}

/// Parses a READDIR reply.
///
/// # Panics
///
/// When it is not one.
#[must_use]
pub fn dir_entries(bytes: &[u8]) -> Vec<DirEntry> {
    parse(bytes, false)
}

/// Parses a READDIRPLUS reply.
///
/// # Panics
///
/// When it is not one.
#[must_use]
pub fn dir_entries_plus(bytes: &[u8]) -> Vec<DirEntry> {
    parse(bytes, true)
}

fn parse(mut bytes: &[u8], plus: bool) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let before = bytes.len();
        let entry = plus.then(|| take::<abi::EntryOut>(&mut bytes));
        let dirent: abi::Dirent = take(&mut bytes);
        let len = usize::try_from(dirent.namelen).expect("fits a usize");
        let (name, rest) = bytes
            .split_at_checked(len)
            .expect("a name inside the reply");
        let padding = (before - rest.len()).next_multiple_of(8) - (before - rest.len());
        let (padding, rest) = rest
            .split_at_checked(padding)
            .expect("padding after the name");
        assert!(padding.iter().all(|byte| *byte == 0), "padding is not zero");
        entries.push(DirEntry {
            dirent,
            name: name.to_vec(),
            entry,
        });
        bytes = rest;
    }
    entries
}

fn take<T: FromBytes>(bytes: &mut &[u8]) -> T {
    let (value, rest) = T::read_from_prefix(bytes)
        .map_err(drop)
        .expect("a whole entry");
    *bytes = rest;
    value
}
