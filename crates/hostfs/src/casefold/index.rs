//! The names of one directory, found by what they are compared as.

use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::CaseFold;

/// What an entry takes beside its name: its place in the table, and what allocations are rounded to.
const ENTRY_BYTES: usize = 48;

#[derive(Debug)]
struct Spelled {
    hash: u64,
    name: Box<CStr>,
}

/// The index. Names that are alike are all in it, each with the hash of the folded form.
#[derive(Debug)]
pub(crate) struct Index {
    rule: CaseFold,
    hasher: RandomState,
    names: HashTable<Spelled>,
    bytes: usize,
    scratch: Vec<u8>,
}

impl Index {
    /// For one directory. Hashes are keyed, so that names cannot be chosen to meet in one place.
    pub(crate) fn new(rule: CaseFold) -> Self {
        Self {
            rule,
            hasher: RandomState::new(),
            names: HashTable::new(),
            bytes: 0,
            scratch: Vec::new(),
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The host's spelling of a name, folded: the first in byte order where there are several.
    pub(crate) fn first_alike(&self, folded: &[u8]) -> Option<&CStr> {
        let mut scratch = Vec::new();
        self.names
            .iter_hash(self.hasher.hash_one(folded))
            .map(|spelled| &*spelled.name)
            .filter(|name| {
                self.rule.fold_into(name.to_bytes(), &mut scratch);
                scratch == folded
            })
            .min()
    }

    pub(crate) fn insert(&mut self, name: &CStr) {
        let hash = self.hash(name);
        let same = |spelled: &Spelled| *spelled.name == *name;
        if self.names.find(hash, same).is_some() {
            return;
        }
        let name: Box<CStr> = name.into();
        self.bytes += entry_bytes(&name);
        let spelled = Spelled { hash, name };
        self.names
            .insert_unique(hash, spelled, |spelled| spelled.hash);
    }

    pub(crate) fn remove(&mut self, name: &CStr) {
        let hash = self.hash(name);
        let same = |spelled: &Spelled| *spelled.name == *name;
        if let Ok(entry) = self.names.find_entry(hash, same) {
            let (spelled, _) = entry.remove();
            self.bytes -= entry_bytes(&spelled.name);
        }
    }

    fn hash(&mut self, name: &CStr) -> u64 {
        self.rule.fold_into(name.to_bytes(), &mut self.scratch);
        self.hasher.hash_one(&self.scratch)
    }
}

fn entry_bytes(name: &CStr) -> usize {
    name.to_bytes().len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(names: &[&CStr]) -> Index {
        let mut index = Index::new(CaseFold::Unicode);
        names.iter().for_each(|name| index.insert(name));
        index
    }

    #[test]
    fn of_names_that_are_alike_the_first_in_byte_order_is_found() {
        for names in [
            [c"readme", c"README", c"ReadMe"],
            [c"README", c"ReadMe", c"readme"],
        ] {
            let mut index = index(&names);
            for want in [c"README", c"ReadMe", c"readme"] {
                assert_eq!(index.first_alike(b"readme"), Some(want));
                index.remove(want);
            }
            assert_eq!(index.first_alike(b"readme"), None);
            assert_eq!(index.bytes(), 0);
        }
    }

    #[test]
    fn a_name_is_in_it_once_and_only_that_name_is_removed() {
        let mut index = index(&[c"a", c"a", c"A"]);
        assert_eq!(index.bytes(), 2 * (1 + ENTRY_BYTES));
        index.remove(c"a");
        index.remove(c"a");
        assert_eq!(index.first_alike(b"a"), Some(c"A"));
        assert_eq!(
            index.first_alike(b"A"),
            None,
            "asked for by its folded form only"
        );
    }
}
