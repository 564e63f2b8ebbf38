//! What threads share, and whose types those are.
//!
//! The product's are the standard library's and arc-swap's. With `--cfg model` the unit tests
//! get others, which run a model in every order of its threads' steps; `cargo xtask test model::` does it.

#[cfg(all(test, model))]
pub(crate) use virtiofs_testkit::orders::{
    ArcSwapOption, Guard, Mutex, MutexGuard, atomic, is_planted,
};

#[cfg(not(all(test, model)))]
pub(crate) use {
    arc_swap::{ArcSwapOption, Guard},
    std::sync::{Mutex, MutexGuard, atomic},
};

/// As many as the product has, or few enough for every order to be tried.
pub(crate) const fn in_a_model(few: usize, many: usize) -> usize {
    if cfg!(all(test, model)) { few } else { many }
}

/// Whether a model is to find a defect here; never in the product.
#[cfg(not(all(test, model)))]
#[inline]
pub(crate) const fn is_planted(_: &str) -> bool {
    false
}
