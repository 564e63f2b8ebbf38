//! Replies, written once and straight into the guest's pages.
//!
//! The body goes first, the 16 bytes of the header last, so that a reply's length and result are
//! known when they are written.

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use crate::abi::{Dirent, EntryOut, OutHeader};
use crate::attributes::Entry;
use crate::ids::Unique;
use crate::offset::DirOffset;
use crate::pages::{GuestPages, PageWriter, Writable};

/// The room that the guest left for a reply: its header's bytes and the bytes behind them.
///
/// Whoever makes it has cut the guest's pages at [`ReplySpace::HEADER_BYTES`] already, so a body
/// needs no copy, wherever the guest's own cuts are.
#[derive(Debug)]
pub struct ReplySpace<'a> {
    header: GuestPages<'a, Writable>,
    body: GuestPages<'a, Writable>,
}

impl<'a> ReplySpace<'a> {
    /// Length of `struct fuse_out_header`, in bytes.
    pub const HEADER_BYTES: usize = size_of::<OutHeader>();

    /// Takes the pages of the header (at most [`Self::HEADER_BYTES`]) and those behind it.
    pub fn new(header: GuestPages<'a, Writable>, body: GuestPages<'a, Writable>) -> Self {
        Self { header, body }
    }

    /// No room: a FORGET, or a guest that expects no answer.
    pub fn none() -> Self {
        Self {
            header: GuestPages::none(),
            body: GuestPages::none(),
        }
    }

    /// Whether a header fits.
    pub fn takes_header(&self) -> bool {
        self.header.len_bytes() >= Self::HEADER_BYTES
    }

    /// Room behind the header, in bytes.
    pub fn body_bytes(&self) -> usize {
        self.body.len_bytes()
    }

    /// The body's first `limit_bytes` bytes, for data that goes there by itself (READ).
    pub fn body_pages(&mut self, limit_bytes: usize) -> GuestPages<'_, Writable> {
        self.body.truncate(limit_bytes);
        self.body.reborrow()
    }

    /// Writes a fixed-size body; returns its length, or `None` when it does not fit.
    pub fn put<T: IntoBytes + Immutable>(&mut self, body: &T) -> Option<usize> {
        let mut writer = PageWriter::new(self.body.reborrow());
        writer.push(body.as_bytes()).then(|| writer.written_bytes())
    }

    /// Room for directory entries, at most `limit_bytes`.
    pub fn entries(&mut self, limit_bytes: usize) -> DirEntries<'_> {
        DirEntries {
            writer: PageWriter::new(self.body_pages(limit_bytes)),
        }
    }

    /// Room for bytes of any length (READLINK, GETXATTR, LISTXATTR), at most `limit_bytes`.
    pub fn bytes(&mut self, limit_bytes: usize) -> PageWriter<'_> {
        PageWriter::new(self.body_pages(limit_bytes))
    }

    /// Writes the header of a reply whose body is in place; returns the bytes of the whole reply.
    ///
    /// Zero when no header fits: the chain is completed empty.
    pub fn finish(self, unique: Unique, result: Result<usize, Errno>) -> u32 {
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(errno) => (-told(errno).raw_os_error(), 0),
        };
        let Ok(len) = u32::try_from(Self::HEADER_BYTES + body) else {
            return 0;
        };
        let header = OutHeader {
            len: len.into(),
            error: error.into(),
            unique: unique.raw().into(),
        };
        if PageWriter::new(self.header).push(header.as_bytes()) {
            len
        } else {
            0
        }
    }
}

/// One entry of a directory as READDIR states it.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number that the guest shows.
    pub ino: u64,
    /// Where the reading goes on behind this entry.
    pub next: DirOffset,
    /// File type as `d_type` of `getdents64(2)`.
    pub kind: u32,
    /// The name; at most 255 bytes.
    pub name: &'a [u8],
}

/// Directory entries on their way into the reply.
#[derive(Debug)]
pub struct DirEntries<'a> {
    writer: PageWriter<'a>,
}

/// Whether an entry fit into the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// It is in.
    Done,
    /// No room; nothing was written.
    Full,
}

impl DirEntries<'_> {
    /// Whether a READDIR entry with a name of `name_bytes` fits.
    pub fn takes(&self, name_bytes: usize) -> bool {
        self.writer.room_bytes() >= padded(size_of::<Dirent>() + name_bytes)
    }

    /// Whether a READDIRPLUS entry with a name of `name_bytes` fits: to be asked before the lookup.
    pub fn takes_plus(&self, name_bytes: usize) -> bool {
        self.writer.room_bytes() >= size_of::<EntryOut>() + padded(size_of::<Dirent>() + name_bytes)
    }

    /// Adds a READDIR entry.
    pub fn push(&mut self, entry: &DirEntry<'_>) -> Push {
        if !self.takes(entry.name.len()) {
            return Push::Full;
        }
        self.write(entry)
    }

    /// Adds a READDIRPLUS entry; without `looked_up` the guest looks the name up itself.
    pub fn push_plus(&mut self, looked_up: Option<Entry>, entry: &DirEntry<'_>) -> Push {
        if !self.takes_plus(entry.name.len()) {
            return Push::Full;
        }
        let head = looked_up.map(Entry::to_wire).unwrap_or_default();
        if self.writer.push(head.as_bytes()) {
            self.write(entry)
        } else {
            Push::Full
        }
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.writer.written_bytes() == 0
    }

    pub(crate) fn written_bytes(&self) -> usize {
        self.writer.written_bytes()
    }

    fn write(&mut self, entry: &DirEntry<'_>) -> Push {
        let Ok(namelen) = u32::try_from(entry.name.len()) else {
            return Push::Full;
        };
        let head = Dirent {
            ino: entry.ino.into(),
            off: entry.next.0.into(),
            namelen: namelen.into(),
            type_: entry.kind.into(),
        };
        let padding = padded(entry.name.len()) - entry.name.len();
        let all = self.writer.push(head.as_bytes())
            && self.writer.push(entry.name)
            && self.writer.push(&[0; 8][..padding]);
        if all { Push::Done } else { Push::Full }
    }
}

/// Entries start at multiples of eight bytes (`FUSE_DIRENT_ALIGN`).
const fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// An error as a guest takes it: Linux's own numbers end at 511. What is more never leaves a kernel but by mistake, and
/// means something else to the guest's, ERESTARTSYS (512) for one; `/dev/fuse` refuses it (fs/fuse/dev.c).
fn told(errno: Errno) -> Errno {
    if errno.raw_os_error() < 512 {
        errno
    } else {
        Errno::IO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    #[test]
    fn a_reply_is_header_and_body_wherever_the_guest_cut() {
        for cut in [&[16, 8][..], &[24], &[1, 23], &[20, 4], &[16, 1, 7]] {
            let mut guest = Memory::new(cut);
            let mut reply = guest.reply();
            assert_eq!(reply.put(&0x1122_u64), Some(8));
            assert_eq!(reply.finish(Unique::from_raw(9), Ok(8)), 24);
            let mut want = Vec::new();
            want.extend_from_slice(&24_u32.to_ne_bytes());
            want.extend_from_slice(&0_i32.to_ne_bytes());
            want.extend_from_slice(&9_u64.to_ne_bytes());
            want.extend_from_slice(&0x1122_u64.to_ne_bytes());
            assert_eq!(guest.bytes(), want, "{cut:?}");
        }
    }

    #[test]
    fn an_error_is_a_header_alone() {
        let mut guest = Memory::new(&[16, 100]);
        assert_eq!(
            guest.reply().finish(Unique::from_raw(1), Err(Errno::NOENT)),
            16
        );
        assert_eq!(&guest.bytes()[..8], &[16, 0, 0, 0, 254, 255, 255, 255]);
    }

    #[test]
    fn without_room_for_a_header_nothing_is_written() {
        for room in [&[0][..], &[1], &[15]] {
            let mut guest = Memory::new(room);
            assert_eq!(
                guest.reply().finish(Unique::from_raw(1), Err(Errno::NOENT)),
                0
            );
            assert!(guest.bytes().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn entries_are_padded_with_zeroes_and_stop_when_full() {
        let mut guest = Memory::filled(&[16, 70], 0xAA);
        let mut reply = guest.reply();
        let mut entries = reply.entries(70);
        let entry = |name| DirEntry {
            ino: 5,
            next: DirOffset(u64::MAX),
            kind: 8,
            name,
        };
        assert_eq!(entries.push(&entry(b"abc")), Push::Done);
        assert_eq!(entries.push(&entry(b"12345678")), Push::Done);
        assert!(!entries.takes(1));
        assert_eq!(entries.push(&entry(b"x")), Push::Full);
        assert_eq!(entries.written_bytes(), 64);
        let bytes = guest.bytes();
        assert_eq!(&bytes[16 + 24..16 + 32], b"abc\0\0\0\0\0");
        assert_eq!(&bytes[16 + 56..16 + 64], b"12345678");
    }

    #[test]
    fn a_number_that_is_no_error_to_a_guest_is_eio() {
        for (number, want) in [
            (1, 1),
            (300, 300),
            (511, 511),
            (512, 5),
            (524, 5),
            (4095, 5),
        ] {
            let mut guest = Memory::new(&[16, 100]);
            let errno = Errno::from_raw_os_error(number);
            guest.reply().finish(Unique::from_raw(1), Err(errno));
            let error = i32::from_ne_bytes(guest.bytes()[4..8].try_into().unwrap());
            assert_eq!(-error, want, "{number}");
        }
    }
}
