//! A connection without threads, for fuzz targets: a run follows from its input alone and waits for nobody.
//!
//! A queue is served where it is started, until there is nothing in it, and stops as if it had been told to. What
//! would be parked for another thread is served again at once. No call is long enough to lose a queue.
//!
//! Compiled with `--cfg fuzzing` only, which is how fuzz targets are built.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use virtiofs_protocol::{Filesystem, Session};

use crate::connection::{DeviceOptions, Ended, serve_connection};
use crate::error::ConnectionError;

pub use crate::connection::rig::{MappedRegion, Rig, Ring};

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn is_alone() -> bool {
    ALONE.get()
}

/// Serves one front-end as [`serve_connection`] does, on this thread alone.
///
/// # Errors
///
/// As [`serve_connection`].
pub fn serve_connection_alone<F: Filesystem + 'static>(
    stream: &UnixStream,
    session: &Arc<Session<F>>,
    options: &DeviceOptions,
    stop: BorrowedFd<'_>,
) -> Result<Ended, ConnectionError> {
    alone(|| serve_connection(stream, session, options, stop))
}

/// Does something without threads.
pub(crate) fn alone<T>(work: impl FnOnce() -> T) -> T {
    ALONE.set(true);
    let done = work();
    ALONE.set(false);
    done
}
