//! Which inodes hold a descriptor, so that the oldest can give theirs up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtiofs_protocol::NodeId;

/// The holders, oldest first. Numbers of inodes that are gone stay until they are met.
#[derive(Debug)]
pub(crate) struct Hot {
    holders: Mutex<VecDeque<NodeId>>,
    held: AtomicUsize,
    budget: usize,
}

impl Hot {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            holders: Mutex::default(),
            held: AtomicUsize::new(0),
            budget: budget.max(16),
        }
    }

    /// Notes a new holder; returns true when there are more than the budget.
    pub(crate) fn add(&self, node: NodeId) -> bool {
        self.holders().push_back(node);
        self.held.fetch_add(1, Ordering::Relaxed) >= self.budget
    }

    /// The oldest holder, no longer on the list.
    pub(crate) fn oldest(&self) -> Option<NodeId> {
        let node = self.holders().pop_front();
        if node.is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        node
    }

    /// Forgets all holders.
    pub(crate) fn clear(&self) {
        self.holders().clear();
        self.held.store(0, Ordering::Relaxed);
    }

    fn holders(&self) -> MutexGuard<'_, VecDeque<NodeId>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
