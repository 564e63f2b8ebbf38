//! A store that lies: every request has a well-formed answer in time, what is acknowledged is what the store
//! acknowledged, and the daemon lives.

mod attributes;
mod contents;
mod identities;
mod listings;
mod random;
mod rig;
