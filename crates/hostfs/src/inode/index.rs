//! Where in the table a row may stand, by a hash of what it is looked for by.
//!
//! An index copies nothing of the rows: it holds the numbers of their slots, and whoever looks
//! says which row it is. So what it says is never more than where to look, and a row costs it
//! some ten bytes. Its locks come before an inode's state.

use std::hash::{BuildHasher, Hash};
use std::sync::PoisonError;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::sync::{Mutex, MutexGuard, in_a_model};

/// One in a model: into which of several a value falls would be left to chance.
const SHARDS: usize = in_a_model(1, 64);

/// A slot, and by what it is found: kept, so that growing asks no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    hash: u32,
    slot: u32,
}

impl Place {
    /// What the table makes a bucket of (the low bits) and a tag (the high ones).
    fn spread(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    hasher: DefaultHashBuilder,
    shards: [Mutex<HashTable<Place>>; SHARDS],
}

/// The part of an index that one value belongs to, locked.
pub(crate) struct Shard<'a> {
    places: MutexGuard<'a, HashTable<Place>>,
    hash: u32,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Locks the part that holds all rows of this value.
    pub(crate) fn shard(&self, value: impl Hash) -> Shard<'_> {
        let [a, b, c, d, shard, ..] = self.hasher.hash_one(value).to_le_bytes();
        let shard = &self.shards[usize::from(shard) % SHARDS];
        Shard {
            places: shard.lock().unwrap_or_else(PoisonError::into_inner),
            hash: u32::from_le_bytes([a, b, c, d]),
        }
    }
}

impl Shard<'_> {
    /// The first row that `is_it` takes, of those that may be it.
    pub(crate) fn find<T>(&self, mut is_it: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let mut found = None;
        self.places.find(self.place(0).spread(), |place| {
            found = (place.hash == self.hash)
                .then(|| is_it(place.slot))
                .flatten();
            found.is_some()
        });
        found
    }

    pub(crate) fn insert(&mut self, slot: u32) {
        let place = self.place(slot);
        self.places
            .insert_unique(place.spread(), place, Place::spread);
    }

    /// Removes a row, if it is there; once, if it is there twice.
    pub(crate) fn remove(&mut self, slot: u32) {
        let place = self.place(slot);
        if let Ok(entry) = self.places.find_entry(place.spread(), |at| *at == place) {
            entry.remove();
        }
    }

    /// Removes the rows that `is_it` takes, of those that may be it.
    pub(crate) fn remove_all(&mut self, mut is_it: impl FnMut(u32) -> bool) {
        let (hash, spread) = (self.hash, self.place(0).spread());
        let mut is_it = |place: &Place| place.hash == hash && is_it(place.slot);
        while let Ok(entry) = self.places.find_entry(spread, &mut is_it) {
            entry.remove();
        }
    }

    fn place(&self, slot: u32) -> Place {
        Place {
            hash: self.hash,
            slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_is_found_by_its_value_and_no_other() {
        let index = Index::new();
        for slot in 0..10_000_u32 {
            index.shard(slot / 2).insert(slot);
        }
        for value in 0..5_000_u32 {
            let mut seen = Vec::new();
            let found: Option<()> = index.shard(value).find(|slot| {
                seen.push(slot);
                None
            });
            assert_eq!(found, None);
            seen.retain(|slot| slot / 2 == value);
            seen.sort_unstable();
            assert_eq!(seen, [2 * value, 2 * value + 1]);
        }
    }

    #[test]
    fn a_row_that_is_there_twice_is_removed_once_at_a_time() {
        let index = Index::new();
        let count = |slot: u32| {
            let mut count = 0;
            let _: Option<()> = index.shard("name").find(|at| {
                count += u32::from(at == slot);
                None
            });
            count
        };
        for slot in [7, 8, 7] {
            index.shard("name").insert(slot);
        }
        index.shard("name").remove(7);
        assert_eq!((count(7), count(8)), (1, 1));
        index.shard("name").remove(9);
        index.shard("another").remove(8);
        assert_eq!((count(7), count(8)), (1, 1));
        index.shard("name").remove_all(|slot| slot != 8);
        assert_eq!((count(7), count(8)), (0, 1));
    }
}
