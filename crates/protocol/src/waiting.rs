//! Parked requests: the rows that INTERRUPT and a hang-up find.
//!
//! A row exists before `serve` returns, so an INTERRUPT that follows cannot miss it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::Cancel;
use crate::filesystem::Lane;
use crate::ids::Unique;

/// The right to serve a parked request once more.
#[derive(Debug)]
pub struct Ticket {
    unique: Unique,
    lane: Lane,
    cancel: Arc<Cancel>,
}

impl Ticket {
    /// Which threads it waits on.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether nobody waits for its answer any more.
    pub fn is_hung_up(&self) -> bool {
        self.cancel.is_hung_up()
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

/// All parked requests.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    rows: Mutex<HashMap<Unique, Arc<Cancel>>>,
}

impl Waiting {
    pub(crate) fn park(&self, unique: Unique, lane: Lane) -> Ticket {
        let cancel = Arc::new(Cancel::default());
        // A guest that uses a number twice confuses its own INTERRUPTs, nothing else.
        self.rows().insert(unique, Arc::clone(&cancel));
        Ticket {
            unique,
            lane,
            cancel,
        }
    }

    pub(crate) fn leave(&self, ticket: &Ticket) {
        let mut rows = self.rows();
        if rows
            .get(&ticket.unique)
            .is_some_and(|row| Arc::ptr_eq(row, &ticket.cancel))
        {
            rows.remove(&ticket.unique);
        }
    }

    pub(crate) fn interrupt(&self, target: Unique) {
        if let Some(row) = self.rows().get(&target) {
            row.interrupt();
        }
    }

    pub(crate) fn hang_up(&self) {
        for row in self.rows().values() {
            row.hang_up();
        }
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, HashMap<Unique, Arc<Cancel>>> {
        // The map is never left half changed, so a panic elsewhere does not spoil it.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_find_the_row_they_name() {
        let waiting = Waiting::default();
        let first = waiting.park(Unique::from_raw(1), Lane::Store);
        let second = waiting.park(Unique::from_raw(2), Lane::Lock);
        waiting.interrupt(Unique::from_raw(2));
        waiting.interrupt(Unique::from_raw(3));
        assert!(!first.cancel().is_interrupted() && second.cancel().is_interrupted());
        waiting.leave(&second);
        waiting.hang_up();
        assert!(first.is_hung_up() && !second.is_hung_up());
    }

    #[test]
    fn a_number_used_twice_leaves_the_later_row() {
        let waiting = Waiting::default();
        let early = waiting.park(Unique::from_raw(1), Lane::Store);
        let late = waiting.park(Unique::from_raw(1), Lane::Store);
        waiting.leave(&early);
        waiting.interrupt(Unique::from_raw(1));
        assert!(late.cancel().is_interrupted());
    }
}
