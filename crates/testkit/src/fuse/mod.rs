//! FUSE as a client speaks it: requests built, replies read.
//!
//! The structs are written down here once more, apart from the product's, so
//! that a wrong layout there does not agree with itself. [`Request`] builds
//! any request of any opcode, right or wrong; [`FuseClient`] sends requests
//! through a queue of a [`Frontend`](crate::frontend::Frontend) and turns the
//! usual ones into plain calls.

pub mod abi;
mod calls;
mod client;
mod reply;
mod request;
mod round_trip;
mod session;

pub use client::{Answer, ClientOptions, FuseClient, Shape};
pub use reply::{DirEntry, Failure, dir_entries, dir_entries_plus, errno};
pub use request::{Caller, Request};
pub use round_trip::{pattern, round_trip};
pub use session::Session;
