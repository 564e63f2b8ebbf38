//! Suites of the registry and of Debian: how they are configured and how their results are read.
//!
//! They run on the bridge and in guests, with the same configuration.

pub mod behaviours;
pub mod dbench;
pub mod debian;
pub mod fio;
pub mod fsx;
pub mod overlay;
pub mod pjdfstest;
pub mod stress_ng;
