//! Extended attributes: SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR.

use std::ffi::CStr;

use crate::abi::{GetxattrIn, SetxattrIn, SetxattrInExtended};
use crate::fields::Fields;
use crate::flags::{InitFlags, SetxattrFlags};
use crate::malformed::Malformed;

/// SETXATTR (man 2 setxattr).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setxattr<'a> {
    /// Attribute's name with its namespace.
    pub name: &'a CStr,
    /// The value.
    pub value: &'a [u8],
    /// `XATTR_CREATE`, `XATTR_REPLACE`.
    pub flags: u32,
    /// More flags, where SETXATTR_EXT was negotiated.
    pub extended_flags: SetxattrFlags,
}

impl<'a> Setxattr<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>, agreed: InitFlags) -> Result<Self, Malformed> {
        let SetxattrIn { size, flags } = *fields.take()?;
        let extended_flags = if agreed.contains(InitFlags::SETXATTR_EXT) {
            let SetxattrInExtended { setxattr_flags, .. } = *fields.take()?;
            SetxattrFlags::from_bits_truncate(setxattr_flags.get())
        } else {
            SetxattrFlags::empty()
        };
        let name = fields.string()?;
        let value = fields.bytes(size.get().try_into().unwrap_or(usize::MAX))?;
        Ok(Self {
            name,
            value,
            flags: flags.get(),
            extended_flags,
        })
    }
}

/// GETXATTR (man 2 getxattr).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Getxattr<'a> {
    /// Attribute's name with its namespace.
    pub name: &'a CStr,
    /// Room for the value, in bytes; 0 asks for its length.
    pub size_bytes: usize,
}

impl<'a> Getxattr<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let GetxattrIn { size, .. } = *fields.take()?;
        Ok(Self {
            name: fields.string()?,
            size_bytes: size.get().try_into().unwrap_or(usize::MAX),
        })
    }
}

/// LISTXATTR (man 2 listxattr).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listxattr {
    /// Room for the names, in bytes; 0 asks for their length.
    pub size_bytes: usize,
}

impl Listxattr {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let GetxattrIn { size, .. } = *fields.take()?;
        Ok(Self {
            size_bytes: size.get().try_into().unwrap_or(usize::MAX),
        })
    }
}

/// REMOVEXATTR (man 2 removexattr).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removexattr<'a> {
    /// Attribute's name with its namespace.
    pub name: &'a CStr,
}

impl<'a> Removexattr<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            name: fields.string()?,
        })
    }
}
