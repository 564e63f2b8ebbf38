//! The vhost-user-fs device: guest memory, virtqueues, connection. No host files, no opcodes.
//!
//! From the outside in:
//!
//! - [`serve_connection`] takes a front-end from its first message to teardown (`connection`);
//! - `message` reads and answers vhost-user messages, with room for their descriptors kept by `spare`;
//!   `features` says what is offered;
//! - `memory` maps what the front-end shares, a generation per memory table;
//! - `ring` is a split virtqueue (virtio 1.3, 2.7) in that memory, `chain` one request in it;
//! - `worker` serves one queue on one thread, which sleeps by a `doorbell` and looks for more before
//!   it does, as `polling` says, unless others wait for its processor (`pressure`); `used` completes chains from any thread;
//! - `alertness` wakes the monitor, which sleeps while every queue does;
//! - `seat` says whose turn it is to serve a queue, `monitor` gives it to another thread when a call
//!   takes long;
//! - `pool` has the threads that may sleep, in a `lane` for each thing they sleep for.

mod alertness;
mod chain;
mod connection;
mod doorbell;
mod error;
mod features;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lane;
mod memory;
mod message;
mod monitor;
mod polling;
mod pool;
mod pressure;
mod ring;
mod seat;
mod spare;
mod sync;
mod used;
mod worker;

pub use connection::{DeviceOptions, Ended, serve_connection};
pub use error::{ConnectionError, DeviceError};
pub use polling::Polling;
pub use pressure::ProcessorPressure;
