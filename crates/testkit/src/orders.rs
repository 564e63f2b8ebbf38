//! Models: a test of what threads share, run once for every order of their steps.
//!
//! Built with `--cfg model` only, by `cargo xtask test`. A crate's module `sync` then gives its
//! code the types from here instead of the standard library's, and each of their operations is a
//! place where another thread may go on, or see an older value if the memory model allows it.

use std::cell::Cell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

pub use loom::sync::{Mutex, MutexGuard, atomic};
pub use loom::thread;

/// How often threads may lose the processor where they need not.
const SHORT: usize = 3;
/// The same in a long run: most models have no order left that needs more.
const LONG: usize = 5;

thread_local! {
    /// All threads of a model are one thread of the machine.
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether the code under test is to do something wrong here.
#[must_use]
pub fn is_planted(defect: &str) -> bool {
    PLANTED.get() == Some(defect)
}

/// Runs a model in every order within the bound; panics at the first in which an assertion fails.
pub fn holds(model: impl Fn() + Sync + Send + 'static) {
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(if long { LONG } else { SHORT });
    let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "RESULT: {orders} orders, at most {} preemptions",
        builder.preemption_bound.unwrap_or(0)
    );
}

/// Runs a model with a defect in the code under test, which it must find.
///
/// # Panics
///
/// When it does not.
pub fn finds(defect: &'static str, model: impl Fn() + Sync + Send + 'static) {
    PLANTED.set(Some(defect));
    let outcome = catch_unwind(AssertUnwindSafe(|| holds(model)));
    PLANTED.set(None);
    assert!(outcome.is_err(), "a defect that was not found: {defect}");
}

/// In place of arc-swap's, which no checker can look into: each operation is one step.
#[derive(Debug)]
pub struct ArcSwapOption<T>(Mutex<Option<Arc<T>>>);

/// What was loaded: it lives for as long.
#[derive(Debug)]
pub struct Guard<T>(T);

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> ArcSwapOption<T> {
    /// Holds a value, or none.
    pub fn new(value: Option<Arc<T>>) -> Self {
        Self(Mutex::new(value))
    }

    /// Holds none.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(None)
    }

    /// Replaces the value.
    pub fn store(&self, value: Option<Arc<T>>) {
        drop(self.swap(value));
    }

    /// Replaces the value, and takes the old one.
    pub fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, value)
    }

    /// Replaces the value if it is this one; returns what was there.
    pub fn compare_and_swap(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Guard<Option<Arc<T>>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = match (&*held, current) {
            (Some(held), Some(current)) => Arc::ptr_eq(held, current),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        Guard(if is_it {
            std::mem::replace(&mut *held, new)
        } else {
            held.clone()
        })
    }

    /// Takes a reference to the value.
    pub fn load_full(&self) -> Option<Arc<T>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// As [`ArcSwapOption::load_full`], for a while.
    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        Guard(self.load_full())
    }
}
