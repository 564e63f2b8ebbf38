//! The `virtiofsd` program.

fn main() {}
