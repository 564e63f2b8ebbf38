//! What the fuzz targets share. Each target is a program in `src/bin`:
//!
//! - `request`: the bytes of one request, cut as a guest likes, to a session over [`strict`] and to one over a real
//!   directory;
//! - `session`: a sequence of requests to a session over a real directory, beside a model of it;
//! - `ring`: an image of guest memory with a ring in it, which the device's queues serve;
//! - `messages`: vhost-user messages with descriptors, to the receive loop.
//!
//! Sanitizers see crashes; [`oracle`] and the targets themselves say what must hold besides. The
//! feature `planted` puts one defect into each target's side of the harness, never into the
//! product: a target that does not find it within a minute is not worth running.

pub mod familiar;
pub mod ground;
pub mod guest;
pub mod held;
pub mod image;
pub mod input;
pub mod model;
pub mod oracle;
pub mod seeds;
pub mod serving;
pub mod share;
pub mod strict;
pub mod wire;
pub mod world;
