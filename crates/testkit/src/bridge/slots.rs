//! Pieces of guest memory, each for one request and its reply.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::frontend::GuestMemory;

const PAGE: u64 = 4096;
/// Longest data in one request or reply; INIT replies are cut down to it.
pub(super) const DATA: u32 = 1 << 20;
/// Header and arguments of WRITE: they end where a page begins, so that the
/// data behind them starts on a page, as a guest's does.
const WRITE_HEAD: u64 = 80;
/// A page that ends with the head, the data, and up to two pages of distance
/// to the reply's data.
const SLOT: u64 = PAGE + DATA as u64 + 2 * PAGE;

/// Guest memory that this many slots need.
pub(super) fn memory_bytes(count: u16) -> u64 {
    SLOT * u64::from(count)
}

/// Number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId(u16);

/// All slots of a bridge.
#[derive(Debug)]
pub(super) struct Slots {
    memory: Arc<GuestMemory>,
    first: u64,
    free: Mutex<Vec<u16>>,
    freed: Condvar,
}

impl Slots {
    pub(super) fn new(memory: &Arc<GuestMemory>, count: u16) -> Result<Self> {
        Ok(Self {
            first: memory.allocate(memory_bytes(count), PAGE)?,
            memory: Arc::clone(memory),
            free: Mutex::new((0..count).rev().collect()),
            freed: Condvar::new(),
        })
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Takes a slot, waiting up to `limit` for one.
    pub(super) fn take(&self, limit: Duration) -> Option<SlotId> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self
            .freed
            .wait_timeout_while(free, limit, |free| free.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        free.pop().map(SlotId)
    }

    pub(super) fn give_back(&self, slot: SlotId) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(slot.0);
        drop(free);
        self.freed.notify_one();
    }

    /// Where a slot's request begins.
    pub(super) fn request(&self, slot: SlotId) -> u64 {
        self.first + SLOT * u64::from(slot.0) + PAGE - WRITE_HEAD
    }

    /// Longest request that fits.
    pub(super) fn request_room() -> usize {
        usize::try_from(WRITE_HEAD + u64::from(DATA)).expect("a small constant")
    }
}

/// Where the reply to a request that ends at `request_end` begins: its data,
/// behind the header, starts on a page.
pub(super) fn reply_after(request_end: u64) -> u64 {
    const HEADER: u64 = 16;
    (request_end + HEADER).next_multiple_of(PAGE) - HEADER
}
