//! Descriptors kept free for those that messages bring.
//!
//! A guest may have as many files open as the daemon may have descriptors. Linux drops what then comes
//! with a message, and a front-end passes descriptors at any time: another call eventfd whenever the
//! guest's kernel masks an interrupt.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those of the usual message, and their copies; a table of many regions needs more.
const SIZE: usize = 8;
/// Whoever has fewer beside these when a front-end comes needs all: a connection takes some, and each open file one.
const OTHERS: usize = 32;

/// Placeholders, which are closed when a message is there and taken again when it was served.
#[derive(Debug)]
pub(crate) struct Spare {
    size: usize,
    places: Mutex<Vec<OwnedFd>>,
}

impl Spare {
    /// Keeps some, where there are plenty.
    pub(crate) fn where_there_are_plenty(from: BorrowedFd<'_>) -> Self {
        let mut places = Vec::new();
        let all = SIZE + OTHERS;
        places.extend(std::iter::from_fn(|| from.try_clone_to_owned().ok()).take(all));
        let size = if places.len() == all { SIZE } else { 0 };
        places.truncate(size);
        Self {
            size,
            places: Mutex::new(places),
        }
    }

    /// Fills up, as far as there is room.
    pub(crate) fn fill(&self, from: BorrowedFd<'_>) {
        let mut places = self.places();
        let missing = self.size.saturating_sub(places.len());
        places.extend(std::iter::from_fn(|| from.try_clone_to_owned().ok()).take(missing));
    }

    /// Makes room.
    pub(crate) fn give(&self) {
        self.places().clear();
    }

    fn places(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
