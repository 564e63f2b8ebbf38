//! SIGBUS: a front-end that truncates the memory it shares.
//!
//! A load from a page that its file no longer has is a fault of ours. The handler puts anonymous
//! memory in the region's place, marks the region as poisoned and rings its alarm; the load then
//! goes on and reads zeroes, and the connection ends. System calls need none of this: they answer
//! EFAULT. A fault anywhere else is left to whoever handled SIGBUS before.
//!
//! The handler takes no lock and allocates nothing: it reads a table of atomics, maps, and writes to
//! an eventfd. A row belongs to its region for as long as that is mapped, and whoever faults in a
//! region holds it.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Regions that can be mapped at a time, of all memory tables in use.
const ROWS: usize = 4096;
/// `start` of a row that is being filled in.
const TAKEN: usize = 1;

#[derive(Debug)]
struct Row {
    /// Zero: free. Addresses and lengths in bytes.
    start: AtomicUsize,
    len: AtomicUsize,
    poisoned: AtomicBool,
    alarm: AtomicI32,
}

static TABLE: [Row; ROWS] = [const {
    Row {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
        alarm: AtomicI32::new(-1),
    }
}; ROWS];

/// Who handled SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapped range whose faults are survived. To be dropped before the range is unmapped.
#[derive(Debug)]
pub(super) struct Watch {
    row: &'static Row,
    alarm: Arc<OwnedFd>,
}

impl Watch {
    /// Watches a range from now on; `alarm` is an eventfd.
    ///
    /// # Errors
    ///
    /// ENOMEM when too many ranges are watched; the kernel's.
    pub(super) fn new(start: *mut c_void, len: usize, alarm: &Arc<OwnedFd>) -> Result<Self, Errno> {
        install()?;
        let free = |row: &&Row| {
            let taken = row
                .start
                .compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        };
        let row = TABLE.iter().find(free).ok_or(Errno::NOMEM)?;
        row.len.store(len, Ordering::Relaxed);
        row.poisoned.store(false, Ordering::Relaxed);
        row.alarm.store(alarm.as_raw_fd(), Ordering::Relaxed);
        row.start.store(start.addr(), Ordering::Release);
        Ok(Self {
            row,
            alarm: Arc::clone(alarm),
        })
    }

    pub(super) fn alarm(&self) -> &Arc<OwnedFd> {
        &self.alarm
    }

    /// Whether a load found that the memory is gone.
    pub(super) fn is_poisoned(&self) -> bool {
        self.row.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.row.len.store(0, Ordering::Relaxed);
        self.row.start.store(0, Ordering::Release);
    }
}

/// Puts anonymous memory in the place of what a range is mapped to.
///
/// # Safety
///
/// The range is a mapping of guest memory, which no Rust reference points into.
pub(super) unsafe fn replace(start: *mut c_void, len: usize) -> Result<(), Errno> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: by the contract of this function the range is guest memory: its bytes may change at
    // any time, and now they do.
    unsafe { mmap_anonymous(start, len, protection, flags) }.map(drop)
}

fn install() -> Result<(), Errno> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bytes zero is a `struct sigaction`: default action, no flags, empty mask.
    let action = unsafe { action.assume_init_mut() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both structs live through the call, and the handler does only what signals allow.
    let done = unsafe { libc::sigaction(libc::SIGBUS, action, before.as_mut_ptr()) };
    if done != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: zeroed, and filled in by the call.
    let before = unsafe { before.assume_init() };
    if before.sa_sigaction != handler as usize {
        // The first of two threads that install at once has the true predecessor.
        let _ = BEFORE.set(before);
    }
    Ok(())
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands a valid `siginfo_t` to a handler installed with SA_SIGINFO.
    let info = unsafe { &*info };
    let code = info.si_code;
    // SAFETY: for a fault the field is its address; for another signal it is read and not used.
    let address = unsafe { info.si_addr() }.addr();
    let is_fault = code > 0;
    if is_fault && survive(address) {
        return;
    }
    if let Some(before) = BEFORE.get() {
        // SAFETY: what was installed before may be installed again.
        unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
    }
    if !is_fault {
        // Sent by somebody. A fault needs no repeating: the load is tried again.
        // SAFETY: no memory is involved.
        unsafe { libc::raise(signal) };
    }
}

/// Replaces the region that an address lies in; false when it lies in none.
fn survive(address: usize) -> bool {
    let row = TABLE.iter().find(|row| {
        let start = row.start.load(Ordering::Acquire);
        address
            .checked_sub(start)
            .is_some_and(|offset| start > TAKEN && offset < row.len.load(Ordering::Relaxed))
    });
    let Some(row) = row else { return false };
    let start = ptr::with_exposed_provenance_mut(row.start.load(Ordering::Relaxed));
    // SAFETY: rows name mappings of guest memory only, and whoever faulted keeps this one mapped.
    if unsafe { replace(start, row.len.load(Ordering::Relaxed)) }.is_err() {
        return false;
    }
    row.poisoned.store(true, Ordering::Release);
    let alarm = row.alarm.load(Ordering::Relaxed);
    // SAFETY: the row's `Watch` keeps the descriptor open, and the row is in use.
    let alarm = unsafe { BorrowedFd::borrow_raw(alarm) };
    let _ = rustix::io::write(alarm, &1_u64.to_ne_bytes());
    true
}
