//! Cursor over a request's arguments.
//!
//! The only place that does byte arithmetic on them. The bytes were copied out of guest memory
//! once, so what was checked cannot change afterwards.

use std::ffi::CStr;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::malformed::Malformed;
use crate::name::{LookupName, Name};

/// The arguments of one request that were not taken yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Starts at the first byte behind the header.
    pub(crate) fn new(arguments: &'a [u8]) -> Self {
        Self(arguments)
    }

    /// Takes the next fixed-size struct.
    ///
    /// # Errors
    ///
    /// [`Malformed::Truncated`] when fewer bytes are left.
    pub(crate) fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &mut self,
    ) -> Result<&'a T, Malformed> {
        let have = self.0.len();
        let (value, rest) = T::ref_from_prefix(self.0).map_err(|_| Malformed::Truncated {
            have,
            need: size_of::<T>(),
        })?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed::Truncated`] when fewer bytes are left.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed::Truncated {
            have: self.0.len(),
            need: len,
        })?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes a NUL-terminated string of any content.
    ///
    /// # Errors
    ///
    /// [`Malformed::UnterminatedName`] when no NUL is left.
    pub(crate) fn string(&mut self) -> Result<&'a CStr, Malformed> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Malformed::UnterminatedName)?;
        self.bytes(text.to_bytes_with_nul().len())?;
        Ok(text)
    }

    /// Takes one NUL-terminated path component.
    ///
    /// # Errors
    ///
    /// [`Malformed::UnterminatedName`], or [`Malformed::BadName`] with the errno of [`Name::new`].
    pub(crate) fn name(&mut self) -> Result<Name<'a>, Malformed> {
        Name::new(self.string()?).map_err(Malformed::BadName)
    }

    /// Takes what a LOOKUP names.
    ///
    /// # Errors
    ///
    /// As [`Fields::name`].
    pub(crate) fn lookup_name(&mut self) -> Result<LookupName<'a>, Malformed> {
        LookupName::new(self.string()?).map_err(Malformed::BadName)
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::native_endian::U64;

    use super::*;

    #[test]
    fn fields_are_taken_in_order_and_never_past_the_end() {
        let mut fields = Fields::new(b"\x07\0\0\0\0\0\0\0name\0xy");
        assert_eq!(fields.take::<U64>().map(|raw| raw.get()), Ok(7));
        assert_eq!(fields.name(), Ok(Name::new(c"name").unwrap()));
        assert_eq!(
            fields.take::<U64>().err(),
            Some(Malformed::Truncated { have: 2, need: 8 })
        );
        assert_eq!(
            fields.bytes(3).err(),
            Some(Malformed::Truncated { have: 2, need: 3 })
        );
        assert_eq!(fields.name().err(), Some(Malformed::UnterminatedName));
        assert_eq!(fields.bytes(2), Ok(&b"xy"[..]));
        assert!(fields.rest().is_empty());
    }
}
