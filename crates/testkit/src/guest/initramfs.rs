//! The guest's first file system: a `newc` archive (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::path::Path;

use anyhow::{Context, Result};

/// File type bits of `st_mode` (`man 7 inode`).
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive that grows by one member at a time. Folders come before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    members: u32,
}

/// What a member has besides name and content.
struct Member<'a> {
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

impl Archive {
    /// Adds a folder.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.plain(name, DIRECTORY | 0o755, &[])
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.plain(name, SYMLINK | 0o777, target.as_bytes())
    }

    /// Adds a file that may be executed.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.plain(name, REGULAR | 0o755, content)
    }

    /// Adds a file of this machine.
    pub fn copy(self, name: &str, from: &Path) -> Result<Self> {
        let content = std::fs::read(from).with_context(|| from.display().to_string())?;
        Ok(self.file(name, &content))
    }

    /// Adds a character device.
    #[must_use]
    pub fn character_device(mut self, name: &str, device: (u32, u32)) -> Self {
        self.member(
            name,
            &Member {
                mode: CHARACTER_DEVICE | 0o600,
                device,
                content: &[],
            },
        );
        self
    }

    /// The archive, complete.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.member(
            "TRAILER!!!",
            &Member {
                mode: 0,
                device: (0, 0),
                content: &[],
            },
        );
        self.bytes
    }

    fn plain(mut self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.member(
            name,
            &Member {
                mode,
                device: (0, 0),
                content,
            },
        );
        self
    }

    fn member(&mut self, name: &str, member: &Member<'_>) {
        self.members += 1;
        let len = |bytes: usize| u32::try_from(bytes).expect("members are below 4 GiB");
        let fields = [
            self.members, // inode
            member.mode,
            0, // uid
            0, // gid
            1, // links
            0, // mtime
            len(member.content.len()),
            0, // the archive's own device, major and minor
            0,
            member.device.0,
            member.device.1,
            len(name.len() + 1),
            0, // checksum, unused in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(member.content);
        self.align();
    }

    /// Name and content are padded to four bytes, counted from the archive's start.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As busybox's cpio writes it, but for case, inode, time and devices.
    #[test]
    fn a_member_is_laid_out_as_cpio_does() {
        let bytes = Archive::default().file("a/bc", b"12345").finish();
        let text = String::from_utf8(bytes).unwrap();
        let want = concat!(
            "070701",
            "00000001000081ed00000000000000000000000100000000",
            "0000000500000000000000000000000000000000",
            "0000000500000000a/bc\0\0",
            "12345\0\0\0",
            "070701"
        );
        assert!(text.starts_with(want), "{text:?}");
        assert!(text.contains("TRAILER!!!\0"), "{text:?}");
        assert_eq!(text.len() % 4, 0);
    }
}
