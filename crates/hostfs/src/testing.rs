//! What unit tests share.

use std::cell::Cell;

use rustix::fs::StatxFlags;

use crate::sys::STATX_MNT_ID_UNIQUE;

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Until it is dropped, this thread's kernel is one before Linux 6.8.
pub(crate) struct PlainMountNumbers;

/// Takes the unique numbers of mounts away from this thread.
pub(crate) fn plain_mount_numbers() -> PlainMountNumbers {
    PLAIN.set(true);
    PlainMountNumbers
}

impl Drop for PlainMountNumbers {
    fn drop(&mut self) {
        PLAIN.set(false);
    }
}

/// What this thread's kernel would understand of a mask.
pub(crate) fn as_the_kernel_has_it(mask: StatxFlags) -> StatxFlags {
    if PLAIN.get() {
        mask - StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE)
    } else {
        mask
    }
}
