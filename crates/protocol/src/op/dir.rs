//! Requests on open directories: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR.

use crate::abi::{OpenIn, ReadIn, ReleaseIn};
use crate::fields::Fields;
use crate::ids::Fh;
use crate::malformed::Malformed;
use crate::offset::DirOffset;

/// OPENDIR: opens the request's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opendir {
    /// Flags as Linux numbers them (`O_*`); none of them changes how a directory is read.
    pub guest_flags: u32,
}

impl Opendir {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let OpenIn { flags, .. } = *fields.take()?;
        Ok(Self {
            guest_flags: flags.get(),
        })
    }
}

/// READDIR, READDIRPLUS: entries from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readdir {
    /// The open directory.
    pub directory: Fh,
    /// Where an earlier reply ended; 0 is the start.
    pub offset: DirOffset,
    /// At most so many bytes of entries.
    pub size_bytes: usize,
}

impl Readdir {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &ReadIn = fields.take()?;
        Ok(Self {
            directory: Fh::from_raw(raw.fh.get()),
            offset: DirOffset(raw.offset.get()),
            size_bytes: raw.size.get().try_into().unwrap_or(usize::MAX),
        })
    }
}

/// RELEASEDIR: the guest's last descriptor of the open directory is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Releasedir {
    /// The open directory.
    pub directory: Fh,
}

impl Releasedir {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &ReleaseIn = fields.take()?;
        Ok(Self {
            directory: Fh::from_raw(raw.fh.get()),
        })
    }
}
