//! SIGTERM, SIGINT and SIGHUP as a descriptor that becomes readable.

use std::os::fd::OwnedFd;

use crate::sys;

/// Blocks the three signals in this and every later thread; the descriptor reports them.
///
/// # Errors
///
/// The kernel's.
pub fn stop_descriptor() -> std::io::Result<OwnedFd> {
    sys::signalfd(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
}
