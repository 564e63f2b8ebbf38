//! What goes wrong, by consequence.

use rustix::io::Errno;

/// A queue cannot go on. It stops, its error eventfd is signalled, the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The driver's index is further ahead than the ring is long.
    #[error("available index runs {ahead} entries ahead of a ring of {size}")]
    AvailableIndex {
        /// Entries.
        ahead: u16,
        /// Entries.
        size: u16,
    },
    /// A chain that was not given back stands in the ring once more.
    #[error("chain {head} is available again before it was used")]
    InFlight {
        /// Its first descriptor.
        head: u16,
    },
    /// The descriptors by which a queue is woken do not work.
    #[error("cannot wait for the driver's kick: {0}")]
    Kick(Errno),
}

/// The connection cannot go on: it is closed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The front-end breaks the vhost-user protocol.
    #[error("vhost-user protocol violation: {0}")]
    Protocol(String),
    /// The socket does not work.
    #[error("vhost-user socket: {0}")]
    Socket(Errno),
    /// The front-end took away memory that it shares.
    #[error("the front-end truncated the memory it shares")]
    Memory,
    /// Requests that the store does not end, when a queue had to stop.
    #[error(
        "{requests} requests are still inside a call of the store; they were answered with EIO"
    )]
    Late {
        /// How many.
        requests: usize,
    },
    /// The front-end asks and does not listen.
    #[error("the front-end does not read replies")]
    Deaf,
    /// A thread or descriptor could not be had.
    #[error("cannot serve the front-end: {0}")]
    Resources(std::io::Error),
}
