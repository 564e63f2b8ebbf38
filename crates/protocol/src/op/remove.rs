//! UNLINK and RMDIR.

use crate::fields::Fields;
use crate::malformed::Malformed;
use crate::name::Name;

/// UNLINK: removes a name that is no directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlink<'a> {
    /// The name.
    pub name: Name<'a>,
}

impl<'a> Unlink<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            name: fields.name()?,
        })
    }
}

/// RMDIR: removes an empty directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rmdir<'a> {
    /// The name.
    pub name: Name<'a>,
}

impl<'a> Rmdir<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            name: fields.name()?,
        })
    }
}
