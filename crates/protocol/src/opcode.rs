//! Request numbers (`enum fuse_opcode`).

/// Declares the opcodes that have a type, and their numbers.
macro_rules! opcodes {
    ($($name:ident = $number:literal,)*) => {
        /// A request's kind, as `fuse.h` numbers and names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[expect(missing_docs, reason = "the names are those of fuse.h")]
        pub enum Opcode { $($name = $number,)* }

        impl Opcode {
            /// Every opcode there is, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Recognises a number; `None` for what no supported guest sends.
            pub const fn from_wire(raw: u32) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6, Mknod = 8, Mkdir = 9,
    Unlink = 10, Rmdir = 11, Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16, Statfs = 17,
    Release = 18, Fsync = 20, Setxattr = 21, Getxattr = 22, Listxattr = 23, Removexattr = 24, Flush = 25,
    Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29, Fsyncdir = 30, Getlk = 31, Setlk = 32,
    Setlkw = 33, Access = 34, Create = 35, Interrupt = 36, Bmap = 37, Destroy = 38, Ioctl = 39, Poll = 40,
    BatchForget = 42, Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46, CopyFileRange = 47,
    Setupmapping = 48, Removemapping = 49, Syncfs = 50, Tmpfile = 51, Statx = 52, CopyFileRange64 = 53,
}

impl Opcode {
    /// Most argument bytes that make sense, counted behind the header and without a WRITE's data.
    ///
    /// Bounds what is copied out of guest memory for one request.
    pub const fn most_argument_bytes(self) -> usize {
        if matches!(self, Self::Write) {
            size_of::<crate::abi::WriteIn>()
        } else if matches!(self, Self::BatchForget | Self::Removemapping) {
            // As many as a reader of 1 MiB gets from /dev/fuse.
            1 << 20
        } else {
            // An extended attribute or security label of 64 KiB (XATTR_SIZE_MAX), names, and room
            // to refuse the byte too many properly.
            72 << 10
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_both_ways() {
        for &opcode in Opcode::ALL {
            assert_eq!(Opcode::from_wire(opcode as u32), Some(opcode));
        }
        for unused in [0, 7, 19, 41, 54, 4096, u32::MAX] {
            assert_eq!(Opcode::from_wire(unused), None);
        }
    }
}
