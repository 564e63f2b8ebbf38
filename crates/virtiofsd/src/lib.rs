//! The daemon as a library: command line, plan, sandbox, socket.
//!
//! [`cli`] says what can be asked for, [`compat`] turns the older `-o` spellings into the same
//! struct, [`plan`] decides what is going to happen and knows every rule between options.
//! [`share`] looks at what is to be shared, [`socket`] and [`pid_file`] make what the front-end needs, [`sandbox`]
//! leaves everything else behind, [`broker`] opens file handles for it where they are wanted, and [`serve`] accepts connections; [`helper`] waits outside for it to end. [`inheritance`],
//! `pressure` tells the device how busy the host is,
//! [`background`] and [`logging`] are what a process has to do with whoever started it.

pub mod background;
pub mod broker;
pub mod cli;
pub mod compat;
pub mod helper;
pub mod inheritance;
pub mod limits;
pub mod logging;
pub mod pid_file;
pub mod plan;
mod pressure;
pub mod sandbox;
pub mod serve;
pub mod share;
pub mod signals;
pub mod socket;
mod sys;
