//! Suites of the registry: how they are configured and how their results are read.
//!
//! They run on the bridge and in guests, with the same configuration.

pub mod fsx;
pub mod pjdfstest;
