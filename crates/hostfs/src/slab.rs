//! A table whose rows are found by an array load.
//!
//! A row's number is an index and a generation, so a number that was given back never finds the
//! row that came after it. Readers take no lock: a row is an `ArcSwap`, and what was removed lives
//! until the last reader lets go of it. Inserting and removing share one lock.

use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError};

use crate::sync::{ArcSwapOption, Guard, Mutex, MutexGuard, in_a_model, is_planted};

/// Slots of the first chunk; each further chunk doubles the table.
const FIRST_CHUNK: usize = in_a_model(4, 1024);
/// 2^10 times 2^22 slots: more than a 32-bit index counts.
const CHUNKS: usize = 23;

type Chunk<T> = Box<[ArcSwapOption<Row<T>>]>;

/// A value with the number it is found by.
#[derive(Debug)]
pub(crate) struct Row<T> {
    pub(crate) number: u64,
    pub(crate) value: T,
}

/// A row that a request uses: it lives for as long, and its count is not touched for that.
#[derive(Debug)]
pub(crate) struct Used<T>(Guard<Option<Arc<Row<T>>>>);

impl<T> Row<T> {
    /// Where it stands.
    pub(crate) fn slot(&self) -> u32 {
        index_of(self.number)
    }
}

impl<T> Deref for Used<T> {
    type Target = Arc<Row<T>>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("made of rows that are there only")
    }
}

#[derive(Debug, Default)]
struct Free {
    never_used: u32,
    given_back: Vec<u32>,
    generation: u32,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: [OnceLock<Chunk<T>>; CHUNKS],
    free: Mutex<Free>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::default(),
        }
    }

    /// Adds a value; the first one gets number 1, as FUSE's root needs it. `None` when 2^32 are there.
    pub(crate) fn insert(&self, value: T) -> Option<Arc<Row<T>>> {
        let mut free = self.free();
        let index = match free.given_back.pop() {
            Some(index) => index,
            None => {
                free.never_used = free.never_used.checked_add(1)?;
                free.never_used
            }
        };
        let number = u64::from(free.generation) << 32 | u64::from(index);
        // Wraps after 2^32 insertions; a number from before then needs its very slot to be met.
        free.generation = free.generation.wrapping_add(1);
        drop(free);
        let row = Arc::new(Row { number, value });
        self.new_slot(index)?.store(Some(Arc::clone(&row)));
        Some(row)
    }

    /// Finds a row.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Row<T>>> {
        let row = self.slot(index_of(number))?.load_full()?;
        (row.number == number).then_some(row)
    }

    /// As [`Slab::get`], for the time of a request.
    pub(crate) fn using(&self, number: u64) -> Option<Used<T>> {
        let row = self.slot(index_of(number))?.load();
        let any = is_planted("takes any row of the slot");
        let is_it = row.as_ref().is_some_and(|row| row.number == number || any);
        is_it.then_some(Used(row))
    }

    /// The row that stands in a slot now, for the time of a request.
    pub(crate) fn at(&self, slot: u32) -> Option<Used<T>> {
        let row = self.slot(slot)?.load();
        row.is_some().then_some(Used(row))
    }

    /// Takes a row out; it lives on with whoever holds it.
    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Row<T>>> {
        let index = index_of(number);
        let mut free = self.free();
        let slot = self.slot(index)?;
        if slot.load().as_ref().is_none_or(|row| row.number != number) {
            return None;
        }
        if is_planted("looks and takes in two steps") {
            drop(free);
            free = self.free();
        }
        let row = slot.swap(None);
        free.given_back.push(index);
        row
    }

    /// How many rows' values are of a kind.
    pub(crate) fn count(&self, of_it: impl Fn(&T) -> bool) -> usize {
        let last = self.free().never_used;
        (1..=last)
            .filter_map(|index| self.slot(index)?.load_full())
            .filter(|row| of_it(&row.value))
            .count()
    }

    /// Some row whose value is wanted.
    pub(crate) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<Arc<Row<T>>> {
        let last = self.free().never_used;
        (1..=last)
            .filter_map(|index| self.slot(index)?.load_full())
            .find(|row| wanted(&row.value))
    }

    /// Takes out every row but the one of number `keep`.
    pub(crate) fn clear_except(&self, keep: u64) -> Vec<Arc<Row<T>>> {
        let last = self.free().never_used;
        let numbers =
            (1..=last).filter_map(|index| self.slot(index)?.load().as_ref().map(|row| row.number));
        numbers
            .filter(|number| *number != keep)
            .filter_map(|number| self.remove(number))
            .collect()
    }

    /// Finds a slot that was used before. A number nobody was given costs no memory.
    fn slot(&self, index: u32) -> Option<&ArcSwapOption<Row<T>>> {
        let (chunk, offset, _) = place(index)?;
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    /// Makes room for a slot that is going to be used.
    fn new_slot(&self, index: u32) -> Option<&ArcSwapOption<Row<T>>> {
        let (chunk, offset, len) = place(index)?;
        let chunk = self.chunks.get(chunk)?;
        chunk
            .get_or_init(|| (0..len).map(|_| ArcSwapOption::empty()).collect())
            .get(offset)
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        // Left consistent at every step, so a panic elsewhere does not spoil it.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chunk, offset in it, and its length.
fn place(index: u32) -> Option<(usize, usize, usize)> {
    let index = usize::try_from(index).ok()?;
    let Some(log) = (index / FIRST_CHUNK).checked_ilog2() else {
        return Some((0, index, FIRST_CHUNK));
    };
    let len = FIRST_CHUNK << log;
    Some((usize::try_from(log).ok()? + 1, index - len, len))
}

fn index_of(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(model)]
    mod model;

    #[test]
    fn numbers_start_at_one_and_are_never_used_twice() {
        let slab = Slab::new();
        let first = slab.insert("root").unwrap();
        assert_eq!(first.number, 1);
        let old = slab.insert("a").unwrap().number;
        assert_eq!(slab.remove(old).map(|row| row.value), Some("a"));
        assert!(slab.remove(old).is_none());
        let new = slab.insert("b").unwrap().number;
        assert_ne!(old, new);
        assert!(slab.get(old).is_none(), "a number given back finds nothing");
        assert_eq!(slab.get(new).unwrap().value, "b");
        for unknown in [0, 2 << 32, u64::MAX, 1 << 31] {
            assert!(slab.get(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn rows_beyond_the_first_chunks_are_found() {
        let slab = Slab::new();
        let numbers: Vec<u64> = (0..10_000_usize)
            .map(|value| slab.insert(value).unwrap().number)
            .collect();
        for (value, number) in numbers.iter().enumerate() {
            assert_eq!(slab.get(*number).unwrap().value, value);
        }
        assert_eq!(slab.clear_except(1).len(), 9_999);
        assert!(slab.get(1).is_some());
    }
}
