//! Descriptors kept free for inodes that lose their name while the guest still knows them.
//!
//! Everything else can be found again, or asked for again when there is room. These cannot: a
//! removal that finds no descriptor for what it removes is refused, and nothing is lost.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many.
const SIZE: usize = 32;

/// Placeholders, each of which can be closed to make room for one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    places: Mutex<Vec<OwnedFd>>,
    short: AtomicBool,
}

impl Reserve {
    /// Fills up, as far as there is room.
    pub(crate) fn fill(&self, from: BorrowedFd<'_>) {
        let mut places = self.places();
        while places.len() < SIZE {
            let Ok(place) = from.try_clone_to_owned() else {
                break;
            };
            places.push(place);
        }
        self.short.store(places.len() < SIZE, Ordering::Relaxed);
    }

    /// Whether filling up is worth a try.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Makes room for one descriptor; false when the reserve is used up.
    pub(crate) fn give(&self) -> bool {
        self.short.store(true, Ordering::Relaxed);
        self.places().pop().is_some()
    }

    fn places(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
