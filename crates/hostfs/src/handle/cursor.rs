//! Reading a directory in the pieces that a guest asks for.
//!
//! A position is the 64-bit number that the host's file system gave with the entry before it, so
//! a listing goes on at the right place whatever was made or removed meanwhile. What one
//! `getdents64` brought and a reply could not take is kept for the next request.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, seek};
use virtiofs_protocol::{DirEntry, DirOffset, Errno};

use crate::sys::raw::getdents64;

/// Bytes asked for at once: some hundred entries.
const BUFFER_BYTES: usize = 32 << 10;

/// Where `struct linux_dirent64` keeps its fields (man 2 getdents).
const RECLEN: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;

/// A place in a directory.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    buffer: Vec<u8>,
    filled: usize,
    at: usize,
    position: Option<u64>,
}

/// An entry and its length in the buffer.
struct Record<'a> {
    entry: DirEntry<'a>,
    name: &'a CStr,
    len: usize,
}

/// What the visitor of an entry decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Taken; the next one, please.
    Next,
    /// No room: it comes again with the next request.
    Stop,
}

impl Cursor {
    /// Calls `visit` with the entries from `from` on.
    ///
    /// # Errors
    ///
    /// The host's, from moving or reading, and the visitor's.
    pub(crate) fn walk(
        &mut self,
        directory: BorrowedFd<'_>,
        from: DirOffset,
        mut visit: impl FnMut(&DirEntry<'_>, &CStr) -> Result<Visit, Errno>,
    ) -> Result<(), Errno> {
        // A listing from the start is asked of the host again, so that it shows what is new.
        if from.0 == 0 || self.position != Some(from.0) {
            self.move_to(directory, from)?;
        }
        let mut any = false;
        loop {
            if self.at == self.filled {
                match self.refill(directory) {
                    // What was taken is answered, with its lookups; the next request meets the error.
                    Ok(false) => return Ok(()),
                    Err(_) if any => return Ok(()),
                    refilled => refilled?,
                };
            }
            let record = record(&self.buffer[self.at..self.filled]).ok_or(Errno::IO)?;
            if visit(&record.entry, record.name)? == Visit::Stop {
                return Ok(());
            }
            let (len, next) = (record.len, record.entry.next.0);
            self.at += len;
            self.position = Some(next);
            any = true;
        }
    }

    fn move_to(&mut self, directory: BorrowedFd<'_>, to: DirOffset) -> Result<(), Errno> {
        // Only a first reading starts where a fresh descriptor stands.
        if self.position.is_some() || to.0 != 0 {
            seek(directory, SeekFrom::Start(to.0))?;
        }
        (self.at, self.filled, self.position) = (0, 0, Some(to.0));
        Ok(())
    }

    fn refill(&mut self, directory: BorrowedFd<'_>) -> Result<bool, Errno> {
        self.buffer.resize(BUFFER_BYTES, 0);
        self.at = 0;
        self.filled = 0;
        self.filled = getdents64(directory, &mut self.buffer)?.min(BUFFER_BYTES);
        if self.filled == 0 {
            // Read to its end, as most are: an idle handle keeps no room.
            self.buffer = Vec::new();
        }
        Ok(self.filled > 0)
    }
}

/// Reads the record at the front; `None` if the host's bytes make no sense.
fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let (ino, rest) = bytes.split_first_chunk::<8>()?;
    let (next, _) = rest.split_first_chunk::<8>()?;
    let len = usize::from(u16::from_ne_bytes(
        bytes.get(RECLEN..KIND)?.try_into().ok()?,
    ));
    let kind = u32::from(*bytes.get(KIND)?);
    let name = CStr::from_bytes_until_nul(bytes.get(NAME..len)?).ok()?;
    let entry = DirEntry {
        ino: u64::from_ne_bytes(*ino),
        next: DirOffset(u64::from_ne_bytes(*next)),
        kind,
        name: name.to_bytes(),
    };
    Some(Record { entry, name, len })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn names(
        cursor: &mut Cursor,
        directory: BorrowedFd<'_>,
        from: u64,
        most: usize,
    ) -> (Vec<Vec<u8>>, u64) {
        let (mut names, mut next) = (Vec::new(), from);
        let walked = cursor.walk(directory, DirOffset(from), |entry, _| {
            if names.len() == most {
                return Ok(Visit::Stop);
            }
            names.push(entry.name.to_vec());
            next = entry.next.0;
            Ok(Visit::Next)
        });
        walked.unwrap();
        (names, next)
    }

    #[test]
    fn pieces_add_up_to_the_directory_and_the_start_is_fresh() {
        let share = tempfile::tempdir().unwrap();
        for number in 0..500 {
            std::fs::write(share.path().join(format!("file-{number}")), b"").unwrap();
        }
        let directory = std::fs::File::open(share.path()).unwrap();
        let mut cursor = Cursor::default();
        let (mut seen, mut at) = (Vec::new(), 0);
        loop {
            let (mut piece, next) = names(&mut cursor, directory.as_fd(), at, 7);
            if piece.is_empty() {
                break;
            }
            seen.append(&mut piece);
            at = next;
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 502, "500 files and the two dots, each once");
        std::fs::write(share.path().join("later"), b"").unwrap();
        let (again, _) = names(&mut cursor, directory.as_fd(), 0, usize::MAX);
        assert!(again.contains(&b"later".to_vec()));
    }

    /// READDIRPLUS has counted a lookup of each entry that went in: an error would lose them.
    #[test]
    fn an_error_behind_entries_that_were_taken_waits_for_the_next_request() {
        let share = tempfile::tempdir().unwrap();
        for number in 0..10 {
            std::fs::write(share.path().join(format!("file-{number}")), b"").unwrap();
        }
        let directory = std::fs::File::open(share.path()).unwrap();
        let mut cursor = Cursor::default();
        let (taken, at) = names(&mut cursor, directory.as_fd(), 0, 5);
        assert_eq!(taken.len(), 5);
        // What cannot be listed stands for a store that fails after these.
        let failing = std::fs::File::open(share.path().join("file-0")).unwrap();
        let (rest, at) = names(&mut cursor, failing.as_fd(), at, usize::MAX);
        assert_eq!(rest.len(), 7);
        let again = cursor.walk(failing.as_fd(), DirOffset(at), |_, _| Ok(Visit::Next));
        assert_eq!(again, Err(Errno::NOTDIR));
    }

    #[test]
    fn a_position_that_is_refused_does_not_move_the_start() {
        let share = tempfile::tempdir().unwrap();
        for number in 0..10 {
            std::fs::write(share.path().join(format!("file-{number}")), b"").unwrap();
        }
        let directory = std::fs::File::open(share.path()).unwrap();
        let mut cursor = Cursor::default();
        assert_eq!(names(&mut cursor, directory.as_fd(), 0, 3).0.len(), 3);
        let refused = cursor.walk(directory.as_fd(), DirOffset(1 << 63), |_, _| {
            Ok(Visit::Next)
        });
        assert_eq!(refused, Err(Errno::INVAL));
        assert_eq!(
            names(&mut cursor, directory.as_fd(), 0, usize::MAX).0.len(),
            12
        );
    }

    #[test]
    fn going_back_to_an_entry_lists_the_same_again() {
        let share = tempfile::tempdir().unwrap();
        for number in 0..50 {
            std::fs::write(share.path().join(format!("file-{number}")), b"").unwrap();
        }
        let directory = std::fs::File::open(share.path()).unwrap();
        let mut cursor = Cursor::default();
        let (_, middle) = names(&mut cursor, directory.as_fd(), 0, 20);
        let (rest, _) = names(&mut cursor, directory.as_fd(), middle, usize::MAX);
        let (same, _) = names(&mut cursor, directory.as_fd(), middle, usize::MAX);
        assert_eq!(rest, same);
        assert_eq!(rest.len(), 32);
    }
}
