//! What threads share, and whose types those are.
//!
//! The product's are the standard library's. With `--cfg model` the unit tests
//! get others, which run a model in every order of its threads' steps; `cargo xtask test model::` does it.

#[cfg(all(test, model))]
pub(crate) use virtiofs_testkit::orders::{Mutex, MutexGuard, atomic, is_planted};

#[cfg(not(all(test, model)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

/// Whether a model is to find a defect here; never in the product.
#[cfg(not(all(test, model)))]
#[inline]
pub(crate) const fn is_planted(_: &str) -> bool {
    false
}

/// Whether this thread has to do what others are started for; never in the product.
#[cfg(not(fuzzing))]
#[inline]
pub(crate) const fn is_alone() -> bool {
    false
}

#[cfg(fuzzing)]
pub(crate) use crate::fuzzing::is_alone;
