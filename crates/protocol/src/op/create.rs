//! Requests that make something: SYMLINK, MKNOD, MKDIR, CREATE, TMPFILE, LINK.

use std::ffi::CStr;

use crate::abi::{CreateIn, LinkIn, MkdirIn, MknodIn};
use crate::fields::Fields;
use crate::ids::NodeId;
use crate::malformed::Malformed;
use crate::name::Name;
use crate::op::extensions::{Extensions, Extras};
use crate::op::io::OpenOptions;
use rustix::io::Errno;

/// The twelve permission bits of a mode: read, write, execute, set-id, sticky.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Permissions(u16);

impl Permissions {
    /// Keeps the permission bits; the type bits that a guest may add are not its to choose.
    pub fn from_wire(raw: u32) -> Self {
        let [low, high, ..] = (raw & 0o7777).to_le_bytes();
        Self(u16::from_le_bytes([low, high]))
    }

    /// The bits as `mode_t`.
    pub fn bits(self) -> u32 {
        self.0.into()
    }
}

/// MKDIR: makes a directory `name` in the request's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mkdir<'a> {
    /// The new name.
    pub name: Name<'a>,
    /// Permission bits after the caller's umask, unless DONT_MASK was negotiated.
    pub mode: Permissions,
    /// The caller's umask.
    pub umask: Permissions,
    /// Extensions.
    pub extras: Extras<'a>,
}

impl<'a> Mkdir<'a> {
    pub(in crate::op) fn parse(
        mut fields: Fields<'a>,
        extensions: Extensions<'a>,
    ) -> Result<Self, Malformed> {
        let MkdirIn { mode, umask } = *fields.take()?;
        Ok(Self {
            name: fields.name()?,
            mode: Permissions::from_wire(mode.get()),
            umask: Permissions::from_wire(umask.get()),
            extras: extensions.read(fields)?,
        })
    }
}

/// What MKNOD makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device of this number (the kernel's 32-bit encoding).
    CharDevice(u32),
    /// A block device of this number (the kernel's 32-bit encoding).
    BlockDevice(u32),
}

/// MKNOD: makes a file that is neither directory nor symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mknod<'a> {
    /// The new name.
    pub name: Name<'a>,
    /// What it becomes.
    pub kind: NodeKind,
    /// Permission bits, as in [`Mkdir`].
    pub mode: Permissions,
    /// The caller's umask.
    pub umask: Permissions,
    /// Extensions.
    pub extras: Extras<'a>,
}

impl<'a> Mknod<'a> {
    pub(in crate::op) fn parse(
        mut fields: Fields<'a>,
        extensions: Extensions<'a>,
    ) -> Result<Self, Malformed> {
        let MknodIn {
            mode, rdev, umask, ..
        } = *fields.take()?;
        // S_IFMT and its values (man 7 inode). Linux makes a regular file when no type is given.
        let kind = match mode.get() & 0o170_000 {
            0 | 0o100_000 => NodeKind::File,
            0o010_000 => NodeKind::Fifo,
            0o140_000 => NodeKind::Socket,
            0o020_000 => NodeKind::CharDevice(rdev.get()),
            0o060_000 => NodeKind::BlockDevice(rdev.get()),
            raw => {
                return Err(Malformed::Undefined {
                    field: "fuse_mknod_in.mode",
                    raw: raw.into(),
                });
            }
        };
        Ok(Self {
            name: fields.name()?,
            kind,
            mode: Permissions::from_wire(mode.get()),
            umask: Permissions::from_wire(umask.get()),
            extras: extensions.read(fields)?,
        })
    }
}

/// SYMLINK: makes a symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symlink<'a> {
    /// The new name.
    pub name: Name<'a>,
    /// What the symlink says: any bytes, at most 4095, never followed here.
    pub target: &'a CStr,
    /// Extensions.
    pub extras: Extras<'a>,
}

impl<'a> Symlink<'a> {
    /// Longest target (`PATH_MAX` without its NUL), in bytes.
    pub const TARGET_MAX: usize = 4095;

    pub(in crate::op) fn parse(
        mut fields: Fields<'a>,
        extensions: Extensions<'a>,
    ) -> Result<Self, Malformed> {
        let name = fields.name()?;
        let target = fields.string()?;
        if target.to_bytes().len() > Self::TARGET_MAX {
            return Err(Malformed::BadName(Errno::NAMETOOLONG));
        }
        Ok(Self {
            name,
            target,
            extras: extensions.read(fields)?,
        })
    }
}

/// CREATE: makes a regular file and opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create<'a> {
    /// The new name.
    pub name: Name<'a>,
    /// How it is opened; says `exclusive` too.
    pub options: OpenOptions,
    /// Permission bits, as in [`Mkdir`].
    pub mode: Permissions,
    /// The caller's umask.
    pub umask: Permissions,
    /// Extensions.
    pub extras: Extras<'a>,
}

impl<'a> Create<'a> {
    pub(in crate::op) fn parse(
        mut fields: Fields<'a>,
        extensions: Extensions<'a>,
    ) -> Result<Self, Malformed> {
        let CreateIn {
            flags,
            mode,
            umask,
            open_flags,
        } = *fields.take()?;
        Ok(Self {
            name: fields.name()?,
            options: OpenOptions::from_wire(flags.get(), open_flags.get()),
            mode: Permissions::from_wire(mode.get()),
            umask: Permissions::from_wire(umask.get()),
            extras: extensions.read(fields)?,
        })
    }
}

/// TMPFILE: makes a regular file without a name and opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tmpfile<'a> {
    /// How it is opened.
    pub options: OpenOptions,
    /// Permission bits, as in [`Mkdir`].
    pub mode: Permissions,
    /// The caller's umask.
    pub umask: Permissions,
    /// Extensions.
    pub extras: Extras<'a>,
}

impl<'a> Tmpfile<'a> {
    pub(in crate::op) fn parse(
        mut fields: Fields<'a>,
        extensions: Extensions<'a>,
    ) -> Result<Self, Malformed> {
        let raw: &CreateIn = fields.take()?;
        // Linux sends a name here, too: "/", that of its nameless entry (`vfs_tmpfile`). It must
        // end, and means nothing.
        fields.string()?;
        Ok(Self {
            options: OpenOptions::from_wire(raw.flags.get(), raw.open_flags.get()),
            mode: Permissions::from_wire(raw.mode.get()),
            umask: Permissions::from_wire(raw.umask.get()),
            extras: extensions.read(fields)?,
        })
    }
}

/// LINK: gives `target` one more name in the request's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The file that gets the name.
    pub target: NodeId,
    /// The new name.
    pub name: Name<'a>,
}

impl<'a> Link<'a> {
    pub(in crate::op) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let LinkIn { oldnodeid } = *fields.take()?;
        Ok(Self {
            target: NodeId::from_raw(oldnodeid.get()),
            name: fields.name()?,
        })
    }
}
