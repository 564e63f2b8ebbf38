//! FUSE as types: requests parsed once, replies written once. No system calls, no virtio.
//!
//! The life of one request, in the order of the modules:
//!
//! 1. The device copies the header and as many bytes as [`arguments_len`] says out of guest memory
//!    and makes a [`Request`] of them, of the payload's pages and of the room for the reply.
//! 2. [`Session::serve`] reads the bytes into an [`op::Op`]: past that line nothing is unchecked.
//!    What makes no sense is [`Malformed`], answered and counted.
//! 3. The session's gates: no request before INIT, none that changes a read-only share.
//! 4. The one dispatch calls a method of [`Filesystem`].
//! 5. The reply goes straight into the guest's pages ([`ReplySpace`]), its header last.
//! 6. An operation that would sleep has said so before any side effect: its request is parked
//!    ([`Served::Parked`]) and served again by [`Session::resume`] on a thread that may sleep.

pub mod abi;
mod attributes;
mod cancel;
mod fields;
mod filesystem;
mod flags;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ids;
mod malformed;
mod name;
mod negotiated;
mod offset;
pub mod op;
mod opcode;
mod pages;
mod reply;
mod request;
mod session;
mod sync;
#[cfg(test)]
mod testing;
#[cfg(all(fuzzing, not(test)))]
#[expect(dead_code, reason = "fuzz targets take the golden requests only")]
mod testing;
mod waiting;

pub use attributes::{Attr, Attributes, Entry, ExtendedAttr, Statistics, Validity};
pub use cancel::{Cancel, HangUp};
pub use filesystem::{Context, Filesystem, Lane, Opened, Outcome, Patience, Refusal};
pub use flags::{AttrFlags, FallocateMode, FopenFlags, InitFlags, RenameFlags, SetxattrFlags};
pub use ids::{Caller, Fh, Gid, Guest, LockOwner, NO_ID, NodeId, Uid, Unique};
pub use malformed::Malformed;
pub use name::{LookupName, Name};
pub use negotiated::Negotiated;
pub use offset::{DirOffset, FileOffset, Timestamp};
pub use opcode::Opcode;
pub use pages::{GuestPages, IoVec, PageWriter, Readable, Writable};
pub use reply::{DirEntries, DirEntry, Push, ReplySpace};
pub use request::{HEADER_BYTES, Head, Request, arguments_len};
pub use rustix::io::Errno;
pub use session::{Access, Completed, Served, Session, SessionOptions};
pub use waiting::{MOST_LOCK_WAITS, Ticket};
