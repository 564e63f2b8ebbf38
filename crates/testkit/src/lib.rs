//! Development only: a vhost-user front-end, the /dev/fuse bridge, real guests, containers, generators.

pub mod allocations;
pub mod bridge;
pub mod cgroup;
pub mod container;
pub mod frontend;
pub mod fuse;
pub mod guest;
pub mod model;
#[cfg(model)]
pub mod orders;
pub mod program;
pub mod random;
pub mod slowfs;
pub mod suites;
