//! A vhost-user front-end of our own: what a VMM is to the daemon, without a VM.
//!
//! [`Frontend::connect`] shakes hands over the daemon's socket, shares
//! [`GuestMemory`] (memfds) and sets up split rings. Each [`Queue`] is then
//! driven by one thread: [`Queue::add`] chains, [`Queue::publish`] them with
//! one kick, [`Queue::wait`] for completions. Nothing on that path allocates
//! or takes a lock, so the benchmark measures the daemon and not this.
//!
//! Everything can also be done wrongly: [`Connection`] sends any bytes with
//! any descriptors, and [`Queue::addresses`] with [`GuestMemory`] lets a test
//! write whatever it wants into a ring.
//!
//! The daemon is not trusted to be correct: what it writes into rings is
//! checked here and reported as a panic of the test that drives it.

mod connection;
mod daemon;
pub mod hostile;
mod memory;
pub mod message;
mod ring;
mod setup;
pub mod trace;

pub use connection::{Connection, Received};
pub use daemon::{Daemon, Launch, daemon_path};
pub use memory::{GuestMemory, Region, RegionSpec};
pub(crate) use ring::sleep_on;
pub use ring::{Buffer, Completion, Descriptors, Queue, RingAddresses, RingFeatures, Waiting};
pub use setup::{Frontend, MemoryMessages, Options};
