//! Requests that make no sense.

use rustix::io::Errno;

/// Why a request was refused before any operation began. Answered and counted, never fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A struct or name is cut off.
    #[error("request ends after {have} bytes, {need} more expected")]
    Truncated {
        /// Bytes left.
        have: usize,
        /// Bytes that the next field takes.
        need: usize,
    },
    /// The header's length is not that of the message.
    #[error("header states {stated} bytes, {readable} are there")]
    Length {
        /// `len` of the header, in bytes.
        stated: u32,
        /// Bytes the guest made readable.
        readable: usize,
    },
    /// The arguments are longer than this request's may be.
    #[error("arguments of {have} bytes, at most {limit} make sense")]
    Oversized {
        /// Bytes of arguments.
        have: usize,
        /// Most bytes this request takes.
        limit: usize,
    },
    /// A name runs to the end of the request.
    #[error("name is not NUL-terminated")]
    UnterminatedName,
    /// A name that may not be used.
    #[error("bad name: {0}")]
    BadName(Errno),
    /// A position that no file has.
    #[error("offset {raw} is beyond the largest position")]
    Offset {
        /// As stated.
        raw: u64,
    },
    /// Nanoseconds that are not below one second.
    #[error("{raw} nanoseconds are more than a second")]
    Nanoseconds {
        /// As stated.
        raw: u32,
    },
    /// An id that names nobody.
    #[error("id 4294967295 cannot own anything")]
    NoOwner,
    /// A field has a value that the protocol does not define.
    #[error("{field} has the undefined value {raw:#x}")]
    Undefined {
        /// The field's name in `fuse.h`.
        field: &'static str,
        /// As stated.
        raw: u64,
    },
    /// Extensions at the end of the request do not add up.
    #[error("extensions do not fit their stated lengths")]
    Extensions,
    /// A security context without a label, or under a name that is no label's.
    #[error("security context is no label")]
    Label,
    /// The guest left less room than this request's reply takes.
    #[error("reply space of {have} bytes, {need} needed")]
    ReplySpace {
        /// Bytes the guest made writable.
        have: usize,
        /// Bytes the reply takes.
        need: usize,
    },
    /// A request that only an initialised session answers, or INIT in a form nobody sends.
    #[error("request in the wrong state of the session")]
    OutOfOrder,
}

impl Malformed {
    /// The error number that the guest is told.
    pub fn errno(self) -> Errno {
        match self {
            // A name has an answer of its own on Linux: ENAMETOOLONG, ENOENT.
            Self::BadName(errno) => errno,
            // chown(2) and open(2) answer EINVAL to what these describe; for the rest Linux has
            // no precedent, since its own client never sends it.
            Self::Truncated { .. }
            | Self::Length { .. }
            | Self::Oversized { .. }
            | Self::UnterminatedName
            | Self::Offset { .. }
            | Self::Nanoseconds { .. }
            | Self::NoOwner
            | Self::Undefined { .. }
            | Self::Extensions
            | Self::Label
            | Self::ReplySpace { .. }
            | Self::OutOfOrder => Errno::INVAL,
        }
    }
}
