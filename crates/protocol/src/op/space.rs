//! Requests about a file's blocks: FALLOCATE, LSEEK, COPY_FILE_RANGE.

use crate::abi::{CopyFileRangeIn, FallocateIn, LseekIn};
use crate::fields::Fields;
use crate::flags::FallocateMode;
use crate::ids::{Fh, NodeId};
use crate::malformed::Malformed;
use crate::offset::FileOffset;

/// FALLOCATE (man 2 fallocate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallocate {
    /// The open file.
    pub file: Fh,
    /// Where.
    pub offset: FileOffset,
    /// How far, in bytes.
    pub length: FileOffset,
    /// What. Bits that Linux does not define are kept, for the host's kernel to refuse.
    pub mode: FallocateMode,
}

impl Fallocate {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &FallocateIn = fields.take()?;
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            offset: FileOffset::new(raw.offset.get())?,
            length: FileOffset::new(raw.length.get())?,
            mode: FallocateMode::from_bits_retain(raw.mode.get()),
        })
    }
}

/// What LSEEK looks for; the guest answers the other kinds of `lseek(2)` itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// `SEEK_SET`.
    Start,
    /// `SEEK_END`.
    End,
    /// `SEEK_DATA`: the next byte that is not in a hole.
    Data,
    /// `SEEK_HOLE`: the next hole.
    Hole,
}

/// LSEEK (man 2 lseek).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lseek {
    /// The open file.
    pub file: Fh,
    /// From where.
    pub offset: FileOffset,
    /// For what.
    pub whence: Whence,
}

impl Lseek {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &LseekIn = fields.take()?;
        let whence = match raw.whence.get() {
            0 => Whence::Start,
            2 => Whence::End,
            3 => Whence::Data,
            4 => Whence::Hole,
            raw => {
                return Err(Malformed::Undefined {
                    field: "fuse_lseek_in.whence",
                    raw: raw.into(),
                });
            }
        };
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            offset: FileOffset::new(raw.offset.get())?,
            whence,
        })
    }
}

/// COPY_FILE_RANGE (man 2 copy_file_range), in its 32-bit and its 64-bit form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFileRange {
    /// Open file read from.
    pub from: Fh,
    /// Where it is read.
    pub from_offset: FileOffset,
    /// Node written to.
    pub to_node: NodeId,
    /// Open file written to.
    pub to: Fh,
    /// Where it is written.
    pub to_offset: FileOffset,
    /// At most so many bytes.
    pub len_bytes: u64,
}

impl CopyFileRange {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &CopyFileRangeIn = fields.take()?;
        // "The flags argument ... is provided for future extensions and currently must be 0" (man page).
        if raw.flags.get() != 0 {
            return Err(Malformed::Undefined {
                field: "fuse_copy_file_range_in.flags",
                raw: raw.flags.get(),
            });
        }
        Ok(Self {
            from: Fh::from_raw(raw.fh_in.get()),
            from_offset: FileOffset::new(raw.off_in.get())?,
            to_node: NodeId::from_raw(raw.nodeid_out.get()),
            to: Fh::from_raw(raw.fh_out.get()),
            to_offset: FileOffset::new(raw.off_out.get())?,
            len_bytes: raw.len.get(),
        })
    }
}
