//! A request's bytes, as far as a model needs them.

use virtiofs_protocol::Opcode;

use super::As;

/// A request of proper form.
pub(super) struct Message<'a> {
    pub(super) opcode: Opcode,
    pub(super) node: u64,
    pub(super) uid: u32,
    /// What stands behind the header.
    pub(super) arguments: &'a [u8],
    /// The names in it, each a single component, but for the target of a link.
    pub(super) names: Vec<&'a [u8]>,
    /// The handle it is about.
    pub(super) handle: Option<u64>,
}

/// Bytes in front of names or data, and how many names there are.
fn layout(opcode: Opcode) -> Option<(usize, usize)> {
    Some(match opcode {
        Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir | Opcode::Removexattr => (0, 1),
        Opcode::Symlink => (0, 2),
        Opcode::Mkdir | Opcode::Link => (8, 1),
        Opcode::Mknod | Opcode::Create | Opcode::Tmpfile => (16, 1),
        Opcode::Rename => (8, 2),
        Opcode::Rename2 => (16, 2),
        Opcode::Getxattr => (8, 1),
        // With FUSE_SETXATTR_EXT there are eight more, so these are looked at without a model.
        Opcode::Setxattr => return None,
        Opcode::Getattr => (16, 0),
        Opcode::Setattr => (88, 0),
        Opcode::Open | Opcode::Opendir | Opcode::Listxattr => (8, 0),
        Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => (40, 0),
        Opcode::Release | Opcode::Releasedir | Opcode::Flush => (24, 0),
        Opcode::Fsync | Opcode::Fsyncdir => (16, 0),
        Opcode::Fallocate => (32, 0),
        Opcode::Lseek => (24, 0),
        Opcode::CopyFileRange | Opcode::CopyFileRange64 => (56, 0),
        Opcode::Readlink => return None,
        _ => return None,
    })
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self
            .names
            .iter()
            .map(|name| name.escape_ascii().to_string());
        let names: Vec<String> = names.collect();
        write!(
            f,
            "{:?} of node {} by {}, names {names:?}",
            self.opcode, self.node, self.uid
        )
    }
}

impl<'a> Message<'a> {
    /// Which request it is.
    pub(super) fn opcode_of(message: &[u8]) -> Option<Opcode> {
        Opcode::from_wire(word(message, 4))
    }

    /// Reads a message; `None` for one that has another form than its opcode has, or names that are none.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let opcode = Self::opcode_of(message)?;
        let arguments = &message[40..];
        let (fixed, count) = match opcode {
            Opcode::Write => (40, 0),
            opcode => layout(opcode)?,
        };
        let behind = arguments.get(fixed..)?;
        let names = match opcode {
            Opcode::Write if behind.len() == word(arguments, 16) as usize => Vec::new(),
            _ if count == 0 && behind.is_empty() => Vec::new(),
            _ => {
                let names: Vec<_> = behind
                    .strip_suffix(&[0])?
                    .split(|byte| *byte == 0)
                    .collect();
                if count == 0 || names.len() != count {
                    return None;
                }
                names
            }
        };
        let is_free_text = matches!(opcode, Opcode::Getxattr | Opcode::Removexattr);
        let last = names.len().saturating_sub(1);
        let mut components = names
            .iter()
            .enumerate()
            .filter(|(place, _)| !is_free_text && (opcode != Opcode::Symlink || *place < last));
        if components.any(|(_, name)| !is_component(name)) {
            return None;
        }
        let handle = match opcode {
            Opcode::Read
            | Opcode::Write
            | Opcode::Readdir
            | Opcode::Readdirplus
            | Opcode::Release
            | Opcode::Releasedir
            | Opcode::Flush
            | Opcode::Fsync
            | Opcode::Fsyncdir
            | Opcode::Fallocate
            | Opcode::Lseek
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64 => Some(long(arguments, 0)),
            _ => None,
        };
        Some(Self {
            opcode,
            node: long(message, 16),
            uid: word(message, 24),
            arguments,
            names,
            handle,
        })
    }

    /// Flags of an OPEN or CREATE.
    pub(super) fn flags(&self) -> u32 {
        word(self.arguments, 0)
    }

    /// What flags of an OPEN or CREATE allow, where they are usual ones.
    pub(super) fn access(&self) -> As {
        const CREATE: u32 = 0o100;
        const EXCLUSIVE: u32 = 0o200;
        const TRUNCATE: u32 = 0o1000;
        match self.flags() & !(CREATE | EXCLUSIVE | TRUNCATE) {
            0 => As::File {
                reads: true,
                writes: false,
            },
            1 => As::File {
                reads: false,
                writes: true,
            },
            2 => As::File {
                reads: true,
                writes: true,
            },
            _ => As::Unsure,
        }
    }

    pub(super) fn truncates(&self) -> bool {
        self.flags() & 0o1000 != 0
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.flags() & 0o200 != 0
    }
}

fn is_component(name: &[u8]) -> bool {
    (1..=255).contains(&name.len()) && !name.contains(&b'/') && name != b"." && name != b".."
}

/// Eight bytes as a number; zero where they are not there.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..at + 8).and_then(|long| long.try_into().ok());
    number.map_or(0, u64::from_ne_bytes)
}

/// Four bytes as a number; zero where they are not there.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    number.map_or(0, u32::from_ne_bytes)
}
