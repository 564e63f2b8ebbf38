//! Inodes that the guest has forgotten, until there is time to close their descriptors.
//!
//! Closing costs a system call, which no request should wait for.

use std::sync::{Mutex, PoisonError};

use crate::inode::Node;

/// Most that are put off; beyond it the request that adds one pays for all.
const MOST: usize = 1024;

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Retired(Mutex<Vec<Node>>);

impl Retired {
    pub(crate) fn add(&self, node: Node) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(node);
        let full = list.len() >= MOST;
        drop(list);
        if full {
            self.close_all();
        }
    }

    /// Lets go of all; a descriptor that a request still uses closes with that request.
    pub(crate) fn close_all(&self) {
        let list = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(list);
    }
}
