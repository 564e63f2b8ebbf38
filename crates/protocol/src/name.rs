//! Names of directory entries, checked once.
//!
//! Holding a [`Name`] is the proof that `mkdirat(dir, name)` and its relatives stay inside `dir`.
//! Nothing weaker ever reaches a system call.

use std::ffi::CStr;

use rustix::io::Errno;

/// One path component: not empty, no `/`, neither `.` nor `..`, at most [`Name::MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Longest component Linux accepts (`NAME_MAX`), in bytes.
    pub const MAX: usize = 255;

    /// Checks a component.
    ///
    /// # Errors
    ///
    /// What Linux answers for the same path: `ENOENT` for an empty one, `ENAMETOOLONG` above
    /// [`Name::MAX`] bytes; `EINVAL` for what a kernel client never sends (`/`, `.`, `..`).
    pub fn new(raw: &'a CStr) -> Result<Self, Errno> {
        match raw.to_bytes() {
            b"" => Err(Errno::NOENT),
            b"." | b".." => Err(Errno::INVAL),
            name if name.contains(&b'/') => Err(Errno::INVAL),
            name if name.len() > Self::MAX => Err(Errno::NAMETOOLONG),
            _ => Ok(Self(raw)),
        }
    }

    /// The component with its NUL, for a system call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// The component's bytes without the NUL; any encoding.
    pub fn to_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

/// What a LOOKUP may ask for: a name, or the two that only an exporting guest sends (`FUSE_EXPORT_SUPPORT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupName<'a> {
    /// The node itself (`.`).
    Myself,
    /// The node's parent (`..`), answered from what is known, never by a path.
    Parent,
    /// A component.
    Name(Name<'a>),
}

impl<'a> LookupName<'a> {
    /// Checks what a LOOKUP names.
    ///
    /// # Errors
    ///
    /// As [`Name::new`], but for `.` and `..`, which are answered here.
    pub fn new(raw: &'a CStr) -> Result<Self, Errno> {
        match raw.to_bytes() {
            b"." => Ok(Self::Myself),
            b".." => Ok(Self::Parent),
            _ => Name::new(raw).map(Self::Name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row is one promise `Name` makes to the system call layer.
    #[test]
    fn name_admits_single_components_only() {
        let longest = [b'x'; 255];
        let too_long = [b'x'; 256];
        let cases: &[(&[u8], Result<(), Errno>)] = &[
            (b"...", Ok(())),
            (b"\xff\xfe", Ok(())),
            (b" ", Ok(())),
            (b"a\\b", Ok(())),
            (&longest, Ok(())),
            (&too_long, Err(Errno::NAMETOOLONG)),
            (b"", Err(Errno::NOENT)),
            (b".", Err(Errno::INVAL)),
            (b"..", Err(Errno::INVAL)),
            (b"/", Err(Errno::INVAL)),
            (b"a/b", Err(Errno::INVAL)),
            (b"../a", Err(Errno::INVAL)),
            (b"a/", Err(Errno::INVAL)),
        ];
        for (raw, want) in cases {
            let raw = std::ffi::CString::new(*raw).unwrap();
            assert_eq!(Name::new(&raw).map(drop), *want, "{raw:?}");
        }
    }

    #[test]
    fn lookup_has_a_type_of_its_own_for_the_dots() {
        assert_eq!(LookupName::new(c"."), Ok(LookupName::Myself));
        assert_eq!(LookupName::new(c".."), Ok(LookupName::Parent));
        assert_eq!(LookupName::new(c"a/b"), Err(Errno::INVAL));
        assert_eq!(
            LookupName::new(c"..."),
            Ok(LookupName::Name(Name::new(c"...").unwrap()))
        );
    }
}
