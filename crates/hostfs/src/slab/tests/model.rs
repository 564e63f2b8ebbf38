//! Rows that come and go in every order.

use virtiofs_testkit::orders::{finds, holds, thread};

use super::*;

/// A slot is given back and used again while its old number is looked up.
fn reused_while_looked_up() {
    let slab = Arc::new(Slab::new());
    let old = slab.insert("old").unwrap().number;
    let other = thread::spawn({
        let slab = Arc::clone(&slab);
        move || {
            assert_eq!(slab.remove(old).map(|row| row.value), Some("old"));
            slab.insert("new").unwrap().number
        }
    });
    if let Some(row) = slab.using(old) {
        assert_eq!(row.value, "old");
    }
    let new = other.join().unwrap();
    assert!(slab.get(old).is_none() && slab.remove(old).is_none());
    assert_eq!(slab.get(new).map(|row| row.value), Some("new"));
}

/// Two threads take the same row out, and two put one in.
fn removed_by_two() {
    let slab = Arc::new(Slab::new());
    let number = slab.insert(0).unwrap().number;
    let replace = move |slab: &Slab<i32>, value| {
        let removed = slab.remove(number).is_some();
        (removed, slab.insert(value).unwrap().number)
    };
    let other = thread::spawn({
        let slab = Arc::clone(&slab);
        move || replace(&slab, 1)
    });
    let (removed, mine) = replace(&slab, 2);
    let (removed_too, others) = other.join().unwrap();
    assert!(removed != removed_too, "once");
    assert_ne!(mine, others);
    assert_eq!(slab.get(mine).map(|row| row.value), Some(2));
    assert_eq!(slab.get(others).map(|row| row.value), Some(1));
}

#[test]
fn a_number_never_finds_the_row_that_came_after_its_own() {
    holds(reused_while_looked_up);
    finds("takes any row of the slot", reused_while_looked_up);
}

#[test]
fn a_row_is_taken_out_once_and_a_slot_given_once() {
    holds(removed_by_two);
    finds("looks and takes in two steps", removed_by_two);
}
