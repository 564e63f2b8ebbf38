//! RENAME and RENAME2.

use crate::abi::{Rename2In, RenameIn};
use crate::fields::Fields;
use crate::flags::RenameFlags;
use crate::ids::NodeId;
use crate::malformed::Malformed;
use crate::name::Name;

/// RENAME, RENAME2: moves a name of the request's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rename<'a> {
    /// The name it has.
    pub from: Name<'a>,
    /// The directory it goes to.
    pub to_parent: NodeId,
    /// The name it gets.
    pub to: Name<'a>,
    /// Variants.
    pub flags: RenameFlags,
}

impl<'a> Rename<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let RenameIn { newdir } = *fields.take()?;
        Self::names(fields, NodeId::from_raw(newdir.get()), RenameFlags::empty())
    }

    pub(crate) fn parse_with_flags(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let Rename2In { newdir, flags, .. } = *fields.take()?;
        let flags = RenameFlags::from_bits(flags.get()).ok_or(Malformed::Undefined {
            field: "fuse_rename2_in.flags",
            raw: flags.get().into(),
        })?;
        Self::names(fields, NodeId::from_raw(newdir.get()), flags)
    }

    fn names(
        mut fields: Fields<'a>,
        to_parent: NodeId,
        flags: RenameFlags,
    ) -> Result<Self, Malformed> {
        Ok(Self {
            from: fields.name()?,
            to_parent,
            to: fields.name()?,
            flags,
        })
    }
}
