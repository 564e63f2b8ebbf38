//! Every request as a type.
//!
//! [`Op::parse`] is the line past which no length, name, offset or flag is unchecked.

mod attr;
mod control;
mod create;
mod dir;
mod extensions;
mod io;
mod ioctl;
mod lock;
mod lookup;
mod remove;
mod rename;
mod space;
mod xattr;

pub use attr::{Getattr, KillPrivileges, Setattr, Statx, TimeChange};
pub use control::{Bmap, Init, Interrupt, Poll};
pub use create::{Create, Link, Mkdir, Mknod, NodeKind, Permissions, Symlink, Tmpfile};
pub use dir::{Opendir, Readdir, Releasedir};
pub use extensions::{Extras, SecurityLabel};
pub use io::{Durability, Flush, Fsync, Open, OpenOptions, Read, Release, Write, WriteOrigin};
pub use ioctl::{Ioctl, IoctlCommand};
pub use lock::{HeldLock, Lock, LockKind, LockRange, LockType};
pub use lookup::{BatchForget, Forget, Lookup};
pub use remove::{Rmdir, Unlink};
pub use rename::Rename;
pub use space::{CopyFileRange, Fallocate, Lseek, Whence};
pub use xattr::{Getxattr, Listxattr, Removexattr, Setxattr};

use crate::abi::InHeader;
use crate::fields::Fields;
use crate::flags::InitFlags;
use crate::malformed::Malformed;
use crate::opcode::Opcode;
use extensions::Extensions;

/// One request of the guest. The node it is about stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "a variant is the request of its name; what it carries is documented on its type"
)]
pub enum Op<'a> {
    Lookup(Lookup<'a>),
    Forget(Forget),
    BatchForget(BatchForget<'a>),
    Getattr(Getattr),
    Setattr(Setattr),
    Statx(Statx),
    Access { mask: u32 },
    Readlink,
    Symlink(Symlink<'a>),
    Mknod(Mknod<'a>),
    Mkdir(Mkdir<'a>),
    Create(Create<'a>),
    Tmpfile(Tmpfile<'a>),
    Link(Link<'a>),
    Unlink(Unlink<'a>),
    Rmdir(Rmdir<'a>),
    Rename(Rename<'a>),
    Open(Open),
    Read(Read),
    Write(Write),
    Flush(Flush),
    Fsync(Fsync),
    Release(Release),
    Opendir(Opendir),
    Readdir(Readdir),
    Readdirplus(Readdir),
    Fsyncdir(Fsync),
    Releasedir(Releasedir),
    Statfs,
    Syncfs,
    Fallocate(Fallocate),
    Lseek(Lseek),
    CopyFileRange(CopyFileRange),
    CopyFileRange64(CopyFileRange),
    Setxattr(Setxattr<'a>),
    Getxattr(Getxattr<'a>),
    Listxattr(Listxattr),
    Removexattr(Removexattr<'a>),
    Getlk(Lock),
    Setlk(Lock),
    Setlkw(Lock),
    Ioctl(Ioctl<'a>),
    Poll(Poll),
    Bmap(Bmap),
    Setupmapping,
    Removemapping,
    Init(Init),
    Interrupt(Interrupt),
    Destroy,
}

impl<'a> Op<'a> {
    /// Reads a request's arguments.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for arguments that are cut off or name what cannot be named.
    pub fn parse(
        opcode: Opcode,
        header: &InHeader,
        arguments: &'a [u8],
        agreed: InitFlags,
    ) -> Result<Self, Malformed> {
        let (arguments, extensions) = Extensions::split(header, arguments, agreed)?;
        let fields = Fields::new(arguments);
        Ok(match opcode {
            Opcode::Lookup => Self::Lookup(Lookup::parse(fields)?),
            Opcode::Forget => Self::Forget(Forget::parse(fields)?),
            Opcode::BatchForget => Self::BatchForget(BatchForget::parse(fields)?),
            Opcode::Getattr => Self::Getattr(Getattr::parse(fields)?),
            Opcode::Setattr => Self::Setattr(Setattr::parse(fields)?),
            Opcode::Statx => Self::Statx(Statx::parse(fields)?),
            Opcode::Access => Self::Access {
                mask: attr::access_mask(fields)?,
            },
            Opcode::Readlink => Self::Readlink,
            Opcode::Symlink => Self::Symlink(Symlink::parse(fields, extensions)?),
            Opcode::Mknod => Self::Mknod(Mknod::parse(fields, extensions)?),
            Opcode::Mkdir => Self::Mkdir(Mkdir::parse(fields, extensions)?),
            Opcode::Create => Self::Create(Create::parse(fields, extensions)?),
            Opcode::Tmpfile => Self::Tmpfile(Tmpfile::parse(fields, extensions)?),
            Opcode::Link => Self::Link(Link::parse(fields)?),
            Opcode::Unlink => Self::Unlink(Unlink::parse(fields)?),
            Opcode::Rmdir => Self::Rmdir(Rmdir::parse(fields)?),
            Opcode::Rename => Self::Rename(Rename::parse(fields)?),
            Opcode::Rename2 => Self::Rename(Rename::parse_with_flags(fields)?),
            Opcode::Open => Self::Open(Open::parse(fields)?),
            Opcode::Read => Self::Read(Read::parse(fields)?),
            Opcode::Write => Self::Write(Write::parse(fields)?),
            Opcode::Flush => Self::Flush(Flush::parse(fields)?),
            Opcode::Fsync => Self::Fsync(Fsync::parse(fields)?),
            Opcode::Release => Self::Release(Release::parse(fields)?),
            Opcode::Opendir => Self::Opendir(Opendir::parse(fields)?),
            Opcode::Readdir => Self::Readdir(Readdir::parse(fields)?),
            Opcode::Readdirplus => Self::Readdirplus(Readdir::parse(fields)?),
            Opcode::Fsyncdir => Self::Fsyncdir(Fsync::parse(fields)?),
            Opcode::Releasedir => Self::Releasedir(Releasedir::parse(fields)?),
            Opcode::Statfs => Self::Statfs,
            Opcode::Syncfs => Self::sync_fs(fields)?,
            Opcode::Fallocate => Self::Fallocate(Fallocate::parse(fields)?),
            Opcode::Lseek => Self::Lseek(Lseek::parse(fields)?),
            Opcode::CopyFileRange => Self::CopyFileRange(CopyFileRange::parse(fields)?),
            Opcode::CopyFileRange64 => Self::CopyFileRange64(CopyFileRange::parse(fields)?),
            Opcode::Setxattr => Self::Setxattr(Setxattr::parse(fields, agreed)?),
            Opcode::Getxattr => Self::Getxattr(Getxattr::parse(fields)?),
            Opcode::Listxattr => Self::Listxattr(Listxattr::parse(fields)?),
            Opcode::Removexattr => Self::Removexattr(Removexattr::parse(fields)?),
            Opcode::Getlk => Self::Getlk(Lock::parse(fields)?),
            Opcode::Setlk => Self::Setlk(Lock::parse(fields)?),
            Opcode::Setlkw => Self::Setlkw(Lock::parse(fields)?),
            Opcode::Ioctl => Self::Ioctl(Ioctl::parse(fields)?),
            Opcode::Poll => Self::Poll(Poll::parse(fields)?),
            Opcode::Bmap => Self::Bmap(Bmap::parse(fields)?),
            Opcode::Setupmapping => Self::setup_mapping(fields)?,
            Opcode::Removemapping => Self::remove_mapping(fields)?,
            Opcode::Init => Self::Init(Init::parse(fields)?),
            Opcode::Interrupt => Self::Interrupt(Interrupt::parse(fields)?),
            Opcode::Destroy => Self::Destroy,
        })
    }
}

#[cfg(test)]
mod tests;
