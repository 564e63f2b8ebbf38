//! Counts what threads of one name allocate.
//!
//! A test makes a [`Counting`] its global allocator and asks it how often memory was asked for while
//! something happened. This is one of the few modules that may use `unsafe`.
#![expect(
    unsafe_code,
    reason = "an allocator's trait is unsafe, and a thread asks for its name without allocating"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Longest name of a thread with its NUL (man 2 prctl, `PR_GET_NAME`).
const NAME_BYTES: usize = 16;

/// The system's allocator, and an account.
#[derive(Debug)]
pub struct Counting {
    prefix: &'static [u8],
    is_counting: AtomicBool,
    count: AtomicU64,
}

impl Counting {
    /// Counts for threads whose name begins with `prefix`.
    #[must_use]
    pub const fn of_threads(prefix: &'static str) -> Self {
        Self {
            prefix: prefix.as_bytes(),
            is_counting: AtomicBool::new(false),
            count: AtomicU64::new(0),
        }
    }

    /// How often these threads ask for memory, or for more of it, meanwhile.
    pub fn during(&self, happens: impl FnOnce()) -> u64 {
        self.count.store(0, Ordering::SeqCst);
        self.is_counting.store(true, Ordering::SeqCst);
        happens();
        self.is_counting.store(false, Ordering::SeqCst);
        self.count.load(Ordering::SeqCst)
    }

    fn note(&self) {
        if self.is_counting.load(Ordering::Relaxed)
            && name_of_this_thread().starts_with(self.prefix)
        {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn name_of_this_thread() -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    // SAFETY: the kernel writes at most 16 bytes to the buffer, which has as many.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

// SAFETY: everything is the system allocator's; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
