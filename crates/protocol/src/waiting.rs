//! Parked requests: the rows that INTERRUPT, the closing of a file and a hang-up find.
//!
//! A row exists before `serve` returns, so an INTERRUPT that follows cannot miss it. INTERRUPT comes
//! on a queue of its own and may be served before what it interrupts: for waits, which may never
//! end by themselves, one that found nothing is remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::filesystem::Lane;
use crate::ids::{Fh, LockOwner, NodeId, Unique};
use crate::op::LockKind;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, is_planted};

/// Most requests that wait for a lock at once; ENOLCK beyond. The device lowers it where a ring is small.
pub const MOST_LOCK_WAITS: usize = 64;

/// INTERRUPTs that are remembered.
const MOST_EARLY: usize = 64;

/// Which lock a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) node: NodeId,
    pub(crate) file: Fh,
    pub(crate) owner: LockOwner,
    pub(crate) kind: LockKind,
}

/// The right to serve a parked request once more.
#[derive(Debug)]
pub struct Ticket {
    row: u64,
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

    /// The answer when it is given up before it begins.
    pub(crate) fn refusal(&self) -> Option<Errno> {
        match (self.lane, self.cancel.lock_refusal()) {
            (Lane::Store, Some(Errno::NOLCK)) => Some(Errno::IO),
            (Lane::Store | Lane::Lock, refusal) => refusal,
        }
    }

    /// The answer when nobody is there to serve it.
    pub(crate) fn abandoned(&self) -> Errno {
        match self.lane {
            Lane::Store => Errno::IO,
            Lane::Lock => self.cancel.lock_refusal().unwrap_or(Errno::NOLCK),
        }
    }
}

#[derive(Debug)]
struct Row {
    unique: Unique,
    claim: Option<Claim>,
    cancel: Arc<Cancel>,
}

#[derive(Debug, Default)]
struct Rows {
    rows: HashMap<u64, Row>,
    next: u64,
    early: VecDeque<Unique>,
}

/// All parked requests.
#[derive(Debug)]
pub(crate) struct Waiting {
    rows: Mutex<Rows>,
    /// Rows with a claim: read without the lock by requests that close files.
    claims: AtomicUsize,
    most_claims: AtomicUsize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            claims: AtomicUsize::new(0),
            most_claims: AtomicUsize::new(MOST_LOCK_WAITS),
        }
    }
}

impl Waiting {
    /// Enters a request; `None` when too many wait for locks.
    pub(crate) fn park(&self, unique: Unique, lane: Lane, claim: Option<Claim>) -> Option<Ticket> {
        let mut rows = self.rows();
        let cancel = Arc::new(Cancel::default());
        if claim.is_some() {
            if self.claims.load(Ordering::Relaxed) >= self.most_claims.load(Ordering::Relaxed) {
                return None;
            }
            self.claims.fetch_add(1, Ordering::Release);
            if let Some(index) = rows.early.iter().position(|early| *early == unique) {
                rows.early.remove(index);
                cancel.interrupt();
            }
        }
        if is_planted("parks what was not looked for any more") {
            drop(rows);
            rows = self.rows();
        }
        let row = rows.next;
        rows.next += 1;
        rows.rows.insert(
            row,
            Row {
                unique,
                claim,
                cancel: Arc::clone(&cancel),
            },
        );
        Some(Ticket { row, lane, cancel })
    }

    pub(crate) fn leave(&self, ticket: &Ticket) {
        let row = self.rows().rows.remove(&ticket.row);
        let keeps = is_planted("keeps the place of who was hung up") && ticket.is_hung_up();
        if row.is_some_and(|row| row.claim.is_some()) && !keeps {
            self.claims.fetch_sub(1, Ordering::Release);
        }
    }

    /// Gives up a request; returns whether it waits for a lock.
    pub(crate) fn interrupt(&self, target: Unique) -> bool {
        let mut rows = self.rows();
        let (mut found, mut waits) = (false, false);
        // A guest that uses a number twice interrupts both.
        for row in rows.rows.values().filter(|row| row.unique == target) {
            row.cancel.interrupt();
            found = true;
            waits |= row.claim.is_some();
        }
        if !found {
            if rows.early.len() >= MOST_EARLY {
                rows.early.pop_front();
            }
            rows.early.push_back(target);
        }
        waits
    }

    /// Gives up the waits for these locks, because a file was closed; returns whether there were any.
    pub(crate) fn close(&self, mine: impl Fn(&Claim) -> bool) -> bool {
        if self.claims.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.each_claim(mine, Cancel::close)
    }

    /// Gives up everything; returns whether anything waited for a lock.
    pub(crate) fn hang_up(&self) -> bool {
        let mut rows = self.rows();
        rows.early.clear();
        rows.rows.values().for_each(|row| row.cancel.hang_up());
        rows.rows.values().any(|row| row.claim.is_some())
    }

    /// Gives up all waits for locks; returns whether there were any.
    pub(crate) fn hang_up_locks(&self) -> bool {
        self.each_claim(|_| true, Cancel::hang_up)
    }

    pub(crate) fn set_most_claims(&self, most: usize) {
        self.most_claims
            .store(most.min(MOST_LOCK_WAITS), Ordering::Relaxed);
    }

    fn each_claim(&self, of: impl Fn(&Claim) -> bool, act: impl Fn(&Cancel)) -> bool {
        let rows = self.rows();
        let rows = rows.rows.values();
        rows.filter(|row| row.claim.as_ref().is_some_and(&of))
            .map(|row| act(&row.cancel))
            .count()
            > 0
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // The map is never left half changed, so a panic elsewhere does not spoil it.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(model)]
    mod model;

    fn number(raw: u64) -> Unique {
        Unique::from_raw(raw)
    }

    fn claim(file: u64) -> Option<Claim> {
        Some(Claim {
            node: NodeId::from_raw(1),
            file: Fh::from_raw(file),
            owner: LockOwner(3),
            kind: LockKind::Posix,
        })
    }

    #[test]
    fn interrupts_find_the_row_they_name() {
        let waiting = Waiting::default();
        let first = waiting.park(number(1), Lane::Store, None).unwrap();
        let second = waiting.park(number(2), Lane::Lock, claim(1)).unwrap();
        assert!(waiting.interrupt(number(2)));
        assert!(!waiting.interrupt(number(3)));
        assert!(!first.cancel().is_interrupted() && second.cancel().is_interrupted());
        waiting.leave(&second);
        waiting.hang_up();
        assert!(first.is_hung_up() && !second.is_hung_up());
    }

    #[test]
    fn a_number_used_twice_leaves_the_later_row() {
        let waiting = Waiting::default();
        let early = waiting.park(number(1), Lane::Store, None).unwrap();
        let late = waiting.park(number(1), Lane::Store, None).unwrap();
        waiting.leave(&early);
        waiting.interrupt(number(1));
        assert!(late.cancel().is_interrupted() && !early.cancel().is_interrupted());
    }

    #[test]
    fn no_row_is_lost_to_a_number_used_twice() {
        let waiting = Waiting::default();
        let both = [
            waiting.park(number(1), Lane::Lock, claim(1)).unwrap(),
            waiting.park(number(1), Lane::Lock, claim(2)).unwrap(),
        ];
        assert!(waiting.hang_up());
        assert!(both.iter().all(Ticket::is_hung_up));
    }

    #[test]
    fn an_interrupt_that_overtakes_a_wait_ends_it_and_no_other() {
        let waiting = Waiting::default();
        waiting.interrupt(number(5));
        let other = waiting.park(number(4), Lane::Lock, claim(1)).unwrap();
        let wait = waiting.park(number(5), Lane::Lock, claim(1)).unwrap();
        let again = waiting.park(number(5), Lane::Lock, claim(1)).unwrap();
        let interrupted = |ticket: &Ticket| ticket.cancel().is_interrupted();
        assert!(!interrupted(&other) && interrupted(&wait) && !interrupted(&again));
        waiting.interrupt(number(6));
        for noise in (100_u64..).take(MOST_EARLY) {
            assert!(!waiting.interrupt(number(noise)));
        }
        let forgotten = waiting.park(number(6), Lane::Lock, claim(1)).unwrap();
        assert!(!interrupted(&forgotten), "the list grows without bound");
    }

    #[test]
    fn waits_for_locks_are_counted_and_other_requests_are_not() {
        let waiting = Waiting::default();
        waiting.set_most_claims(2);
        let park = |claim| waiting.park(number(1), Lane::Lock, claim);
        let (first, _second) = (park(claim(1)).unwrap(), park(claim(1)).unwrap());
        assert!(park(claim(1)).is_none());
        assert!(waiting.park(number(1), Lane::Store, None).is_some());
        waiting.leave(&first);
        assert!(park(claim(1)).is_some());
        waiting.set_most_claims(usize::MAX);
        let more = std::iter::from_fn(|| park(claim(1))).take(1000).count();
        assert_eq!(more, MOST_LOCK_WAITS - 2);
    }

    #[test]
    fn closing_a_file_gives_up_the_waits_that_it_ends() {
        let waiting = Waiting::default();
        let mine = |claim: &Claim| claim.file == Fh::from_raw(1);
        assert!(!waiting.close(mine));
        let ends = waiting.park(number(1), Lane::Lock, claim(1)).unwrap();
        let stays = waiting.park(number(2), Lane::Lock, claim(2)).unwrap();
        assert!(waiting.close(mine));
        assert_eq!(ends.refusal(), Some(Errno::BADF));
        assert_eq!(stays.refusal(), None);
        let store = waiting.park(number(3), Lane::Store, None).unwrap();
        assert!(waiting.hang_up_locks());
        assert_eq!(
            (stays.refusal(), store.refusal()),
            (Some(Errno::NOLCK), None)
        );
        waiting.hang_up();
        assert_eq!(store.refusal(), Some(Errno::IO));
    }
}
