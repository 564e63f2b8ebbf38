//! Headers and INIT.

use zerocopy::native_endian::{I32, U16, U32, U64};

super::wire! {
    /// `struct fuse_in_header`: the first bytes of every request.
    40 InHeader {
        len: U32, opcode: U32, unique: U64, nodeid: U64, uid: U32, gid: U32, pid: U32,
        /// Length of the extensions at the end of the request, in units of 8 bytes.
        total_extlen: U16,
        padding: U16,
    }
    /// `struct fuse_out_header`: the first bytes of every reply.
    16 OutHeader {
        len: U32,
        /// Zero, or a negated error number.
        error: I32,
        unique: U64,
    }
    /// The part of `struct fuse_init_in` that every supported guest sends.
    16 InitIn { major: U32, minor: U32, max_readahead: U32, flags: U32, }
    /// The rest of `struct fuse_init_in`, since 7.36.
    48 InitInExtended { flags2: U32, unused: [U32; 11], }
    /// `struct fuse_init_out`, since 7.23 of this size.
    64 InitOut {
        major: U32, minor: U32, max_readahead: U32, flags: U32,
        max_background: U16, congestion_threshold: U16,
        max_write: U32,
        /// Granularity of times, in nanoseconds.
        time_gran: U32,
        max_pages: U16, map_alignment: U16, flags2: U32, max_stack_depth: U32,
        request_timeout: U16, unused: [U16; 11],
    }
    /// `struct fuse_interrupt_in`.
    8 InterruptIn { unique: U64, }
    /// `struct fuse_ext_header`: the first bytes of an extension.
    8 ExtHeader {
        /// Bytes of the extension with this header and its padding.
        size: U32,
        type_: U32,
    }
    /// `struct fuse_secctx`: the first bytes of a security context. Its name follows, NUL-terminated, then the label.
    8 Secctx {
        /// Bytes of the label.
        size: U32,
        padding: U32,
    }
}
