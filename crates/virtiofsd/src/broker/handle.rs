//! Handles as the broker makes, signs and opens them.
//!
//! A signature is SipHash-2-4 of 128 bits, keyed, over everything that decides what is opened: the mount, the kind of
//! handle, its bytes. Whoever has not got the key has one chance in 2^128 for each attempt.

use std::hash::Hasher;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use siphasher::sip128::{Hasher128, SipHasher24};
use virtiofs_protocol::{Access, Name};

use super::look;
use crate::sys::{self, RawHandle};

/// The bytes of a signature.
const TAG_BYTES: usize = 16;
/// Without opening it, whatever it is.
const HELD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What may be asked for beside reading and writing.
const ALLOWED: OFlags = OFlags::RWMODE
    .union(OFlags::DIRECT)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC)
    .union(OFlags::NONBLOCK);

/// A handle with its signature, as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed(Vec<u8>);

impl Signed {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whoever has the key of a share.
pub(super) struct Keeper {
    root: OwnedFd,
    mount: u64,
    access: Access,
    key: [u8; 16],
}

impl Keeper {
    /// Takes the share's directory, opened for reading.
    pub(super) fn new(root: OwnedFd, access: Access, key: [u8; 16]) -> Result<Self, Errno> {
        let (_, mount) = look(root.as_fd())?;
        Ok(Self {
            root,
            mount,
            access,
            key,
        })
    }

    /// Makes a handle of what stands at the end of a path, without following anything on the way.
    ///
    /// # Errors
    ///
    /// EINVAL for what is no path, EXDEV for another mount, and the host's own.
    pub(super) fn make(&self, path: &[u8]) -> Result<Signed, Errno> {
        let held = self.walk(path)?;
        if look(held.as_fd())?.1 != self.mount {
            return Err(Errno::XDEV);
        }
        Ok(self.sign(&sys::name_to_handle(held)?))
    }

    /// A handle of the share itself.
    pub(super) fn of_the_root(&self) -> Result<Signed, Errno> {
        Ok(self.sign(&sys::name_to_handle(&self.root)?))
    }

    /// One name after the other, each of which is a `Name`: so the way leads down.
    fn walk(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut name_bytes = [0; Name::MAX + 1];
        for part in path.split(|byte| *byte == b'/') {
            let name = name(part, &mut name_bytes)?;
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(openat(from, name.as_c_str(), HELD, Mode::empty())?);
        }
        at.ok_or(Errno::INVAL)
    }

    /// Opens what a handle of ours finds.
    ///
    /// # Errors
    ///
    /// EPERM for a handle that is not ours, or more than this share allows; and the host's own.
    pub(super) fn open(&self, signed: &[u8], flags: u32) -> Result<OwnedFd, Errno> {
        let handle = self.verified(signed).ok_or(Errno::PERM)?;
        let held = sys::open_by_handle(self.root.as_fd(), &handle, HELD)?;
        // The mount is the root's own; that this is so costs one call, and would be the end of everything if it were not.
        let (kind, mount) = look(held.as_fd())?;
        if mount != self.mount {
            return Err(Errno::PERM);
        }
        let flags = OFlags::from_bits_retain(flags);
        if flags == OFlags::PATH | OFlags::NOFOLLOW {
            return Ok(held);
        }
        self.allow(kind, flags)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        sys::open_by_handle(self.root.as_fd(), &handle, flags)
    }

    /// The inode of a handle keeps its type: what was looked at is what is opened.
    fn allow(&self, kind: FileType, flags: OFlags) -> Result<(), Errno> {
        let only_read = flags & OFlags::RWMODE == OFlags::RDONLY;
        let may = match kind {
            FileType::RegularFile => only_read || self.access == Access::ReadWrite,
            FileType::Directory => only_read,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => false,
        };
        if may && (flags - ALLOWED).is_empty() {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    }

    fn sign(&self, handle: &RawHandle) -> Signed {
        let mut signed = Vec::with_capacity(TAG_BYTES + 4 + handle.bytes().len());
        signed.extend(self.tag(handle).to_ne_bytes());
        signed.extend(handle.kind().to_ne_bytes());
        signed.extend(handle.bytes());
        Signed(signed)
    }

    fn verified(&self, signed: &[u8]) -> Option<RawHandle> {
        let (tag, rest) = signed.split_first_chunk::<TAG_BYTES>()?;
        let (kind, bytes) = rest.split_first_chunk()?;
        let handle = RawHandle::new(i32::from_ne_bytes(*kind), bytes)?;
        // Numbers of two words: how long comparing takes says nothing of how far they agree.
        (self.tag(&handle) == u128::from_ne_bytes(*tag)).then_some(handle)
    }

    fn tag(&self, handle: &RawHandle) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&self.mount.to_ne_bytes());
        hasher.write(&handle.kind().to_ne_bytes());
        hasher.write(handle.bytes());
        hasher.finish128().as_u128()
    }
}

/// A part of a path as a name, for which `room` has room.
fn name<'a>(part: &[u8], room: &'a mut [u8; Name::MAX + 1]) -> Result<Name<'a>, Errno> {
    let with_end = room.get_mut(..=part.len()).ok_or(Errno::NAMETOOLONG)?;
    with_end[..part.len()].copy_from_slice(part);
    with_end[part.len()] = 0;
    let name = std::ffi::CStr::from_bytes_with_nul(with_end).map_err(|_| Errno::INVAL)?;
    Name::new(name)
}
