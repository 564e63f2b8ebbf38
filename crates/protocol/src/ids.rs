//! Identifiers that cross the wire, each with a type of its own.
//!
//! They are plain numbers chosen by the guest until `hostfs` has looked them up; a type only
//! keeps one kind from being taken for another.

use std::fmt;

use rustix::io::Errno;

/// An inode as the guest names it (`nodeid` in `fuse.h`), handed out by a reply that carries an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    /// The root of the share, known without a LOOKUP (`FUSE_ROOT_ID`).
    pub const ROOT: Self = Self(1);

    /// Takes the number as it stands on the wire.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as it stands on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// An open file or directory as the guest names it (`fh` in `fuse.h`), handed out by OPEN, CREATE and OPENDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(u64);

impl Fh {
    /// Takes the number as it stands on the wire.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as it stands on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// A request's number (`unique` in `fuse.h`): the reply repeats it, INTERRUPT names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unique(u64);

impl Unique {
    /// Takes the number as it stands on the wire.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as it stands on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// The guest's number for the owner of POSIX or flock locks (`lock_owner` in `fuse.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockOwner(pub u64);

/// A user id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uid(pub u32);

/// A group id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gid(pub u32);

/// A value in the guest's numbering: never handed to a system call before it was mapped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Guest<T>(pub T);

impl<T: fmt::Debug> fmt::Debug for Guest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest {:?}", self.0)
    }
}

/// The id that means "leave it as it is" to `chown(2)` and `setresuid(2)`, and "not mapped" to a guest.
pub const NO_ID: u32 = u32::MAX;

impl Guest<Uid> {
    /// Takes a user id that is going to be an owner.
    ///
    /// # Errors
    ///
    /// `EINVAL` for 2^32-1, which names nobody: Linux answers the same (`man 2 chown`, `make_kuid`).
    pub fn owner(raw: u32) -> Result<Self, Errno> {
        if raw == NO_ID {
            Err(Errno::INVAL)
        } else {
            Ok(Self(Uid(raw)))
        }
    }
}

impl Guest<Gid> {
    /// Takes a group id that is going to be an owner.
    ///
    /// # Errors
    ///
    /// `EINVAL` for 2^32-1, which names nobody: Linux answers the same (`man 2 chown`, `make_kgid`).
    pub fn owner(raw: u32) -> Result<Self, Errno> {
        if raw == NO_ID {
            Err(Errno::INVAL)
        } else {
            Ok(Self(Gid(raw)))
        }
    }
}

/// Who asks, as the request's header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    uid: u32,
    gid: u32,
    /// Process id in the guest; 0 for work of the guest's kernel.
    pub pid: u32,
}

impl Caller {
    /// Takes the header's three fields.
    pub const fn new(uid: u32, gid: u32, pid: u32) -> Self {
        Self { uid, gid, pid }
    }

    /// Whether the guest says that its root asks; it need not say so (`FUSE_INVALID_UIDGID`).
    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    /// The identity that a new object gets.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the guest states no valid id, which it does for requests that create nothing
    /// on an idmapped mount (`FUSE_INVALID_UIDGID`).
    pub fn creator(self) -> Result<(Guest<Uid>, Guest<Gid>), Errno> {
        Ok((
            Guest::<Uid>::owner(self.uid)?,
            Guest::<Gid>::owner(self.gid)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmapped_caller_creates_nothing() {
        let cases = [
            (Caller::new(0, 0, 1), true),
            (Caller::new(u32::MAX - 1, u32::MAX - 1, 1), true),
            (Caller::new(NO_ID, 0, 1), false),
            (Caller::new(0, NO_ID, 1), false),
        ];
        for (caller, creates) in cases {
            assert_eq!(caller.creator().is_ok(), creates, "{caller:?}");
        }
    }
}
