//! Requests about the session, and those that no file system of a host serves.

use crate::abi::{BmapIn, InitIn, InitInExtended, InterruptIn, PollIn};
use crate::abi::{RemovemappingIn, RemovemappingOne, SetupmappingIn, SyncfsIn};
use crate::fields::Fields;
use crate::flags::InitFlags;
use crate::ids::{Fh, Unique};
use crate::malformed::Malformed;
use crate::op::Op;

/// INIT: the guest begins a session and says what it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Protocol version: must be 7.
    pub major: u32,
    /// Protocol revision.
    pub minor: u32,
    /// Most bytes the guest reads ahead.
    pub max_readahead: u32,
    /// What the guest offers; bits without a name are kept.
    pub offered: InitFlags,
}

impl Init {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &InitIn = fields.take()?;
        let mut offered = u64::from(raw.flags.get());
        if InitFlags::from_bits_retain(offered).contains(InitFlags::INIT_EXT) {
            let InitInExtended { flags2, .. } = *fields.take()?;
            offered |= u64::from(flags2.get()) << 32;
        }
        Ok(Self {
            major: raw.major.get(),
            minor: raw.minor.get(),
            max_readahead: raw.max_readahead.get(),
            offered: InitFlags::from_bits_retain(offered),
        })
    }
}

/// INTERRUPT: the caller of another request does not want to wait any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// That request.
    pub target: Unique,
}

impl Interrupt {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let InterruptIn { unique } = *fields.take()?;
        Ok(Self {
            target: Unique::from_raw(unique.get()),
        })
    }
}

/// POLL (man 2 poll).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The open file.
    pub file: Fh,
    /// Events asked for.
    pub events: u32,
}

impl Poll {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let raw: &PollIn = fields.take()?;
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            events: raw.events.get(),
        })
    }
}

/// BMAP: which block of the device holds a block of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bmap {
    /// Block of the file.
    pub block: u64,
    /// Size of a block, in bytes.
    pub block_bytes: u32,
}

impl Bmap {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let BmapIn {
            block, blocksize, ..
        } = *fields.take()?;
        Ok(Self {
            block: block.get(),
            block_bytes: blocksize.get(),
        })
    }
}

impl Op<'_> {
    /// SYNCFS: its one field is padding.
    pub(super) fn sync_fs(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let _: &SyncfsIn = fields.take()?;
        Ok(Self::Syncfs)
    }

    /// SETUPMAPPING belongs to DAX, which is not offered: its form is checked, its meaning unused.
    pub(super) fn setup_mapping(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let _: &SetupmappingIn = fields.take()?;
        Ok(Self::Setupmapping)
    }

    /// REMOVEMAPPING, as above.
    pub(super) fn remove_mapping(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let RemovemappingIn { count } = *fields.take()?;
        for _ in 0..count.get() {
            let _: &RemovemappingOne = fields.take()?;
        }
        Ok(Self::Removemapping)
    }
}
