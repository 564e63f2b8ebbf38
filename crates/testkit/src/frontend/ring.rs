//! The driver's side of a split virtqueue (virtio 1.3, section 2.7).
//!
//! One thread drives a queue; nothing here allocates after `new`. The driver
//! keeps its own copy of what it put into the descriptor table, so that a
//! test may scribble over the shared one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::memory::GuestMemory;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Bytes of one descriptor (`struct virtq_desc`).
const DESCRIPTOR: u64 = 16;
/// Available ring flag: do not call (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
const NO_CALL: u16 = 1;
/// Used ring flag: do not kick (`VIRTQ_USED_F_NO_NOTIFY`).
const NO_KICK: u16 = 1;

/// `struct virtq_desc`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// `struct virtq_used_elem`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct UsedElement {
    id: u32,
    len: u32,
}

/// A piece of guest memory in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
}

/// How a chain stands in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// One descriptor of the ring per buffer.
    Direct,
    /// One descriptor of the ring, which names a table of the buffers.
    Indirect,
}

/// How to wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Asks for a call and sleeps on the call eventfd.
    Sleep,
    /// Looks at the used ring until something is there; asks for no calls.
    Spin,
}

/// A chain that the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Head of the chain, as returned by [`Queue::add`].
    pub head: u16,
    /// Bytes the device says it wrote.
    pub written_bytes: u32,
}

/// What was negotiated and matters to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// EVENT_IDX.
    pub event_idx: bool,
    /// INDIRECT_DESC.
    pub indirect: bool,
}

/// Where the parts of a ring lie, as guest addresses.
#[derive(Clone, Copy, Debug)]
pub struct RingAddresses {
    /// Number of entries.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring: flags, index, entries, used_event.
    pub available: u64,
    /// Used ring: flags, index, entries, avail_event.
    pub used: u64,
}

impl RingAddresses {
    /// Takes memory for a ring of `size` entries.
    pub fn allocate(memory: &GuestMemory, size: u16) -> Result<Self> {
        let entries = u64::from(size);
        Ok(Self {
            size,
            descriptors: memory.allocate(DESCRIPTOR * entries, 4096)?,
            available: memory.allocate(6 + 2 * entries, 4096)?,
            used: memory.allocate(6 + 8 * entries, 4096)?,
        })
    }

    fn available_index(&self) -> u64 {
        self.available + 2
    }

    fn available_entry(&self, position: u16) -> u64 {
        self.available + 4 + 2 * u64::from(position % self.size)
    }

    fn used_event(&self) -> u64 {
        self.available + 4 + 2 * u64::from(self.size)
    }

    fn used_index(&self) -> u64 {
        self.used + 2
    }

    fn used_entry(&self, position: u16) -> u64 {
        self.used + 4 + 8 * u64::from(position % self.size)
    }

    fn available_event(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size)
    }
}

/// One virtqueue as its driver sees it.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<GuestMemory>,
    addresses: RingAddresses,
    features: RingFeatures,
    kick: OwnedFd,
    call: OwnedFd,
    error: OwnedFd,
    /// Descriptors that no chain uses.
    free: Vec<u16>,
    /// Successor of each descriptor in its chain; `None` ends it.
    successor: Box<[Option<u16>]>,
    /// Heads that the device has not given back.
    in_flight: Box<[bool]>,
    /// Guest address of the indirect tables, `indirect_entries` for each descriptor.
    indirect_tables: u64,
    next_available: u16,
    published: u16,
    last_used: u16,
    kicks: u64,
    calls: u64,
}

impl Queue {
    /// Buffers that one chain may have when it is indirect.
    pub const INDIRECT_ENTRIES: u16 = 64;

    /// Makes an empty queue in guest memory.
    pub fn new(memory: Arc<GuestMemory>, size: u16, features: RingFeatures) -> Result<Self> {
        let addresses = RingAddresses::allocate(&memory, size)?;
        let tables = DESCRIPTOR * u64::from(Self::INDIRECT_ENTRIES) * u64::from(size);
        let indirect_tables = memory.allocate(tables, 4096)?;
        let fd = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let entries = usize::from(size);
        let queue = Self {
            memory,
            addresses,
            features,
            kick: fd()?,
            call: fd()?,
            error: fd()?,
            free: (0..size).rev().collect(),
            successor: vec![None; entries].into_boxed_slice(),
            in_flight: vec![false; entries].into_boxed_slice(),
            indirect_tables,
            next_available: 0,
            published: 0,
            last_used: 0,
            kicks: 0,
            calls: 0,
        };
        queue.want_call(false);
        Ok(queue)
    }

    /// Where the ring lies, for its set-up and for tests that scribble on it.
    #[must_use]
    pub fn addresses(&self) -> RingAddresses {
        self.addresses
    }

    /// The memory that the ring lies in.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Eventfd that wakes the device.
    #[must_use]
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// Eventfd that the device wakes us with.
    #[must_use]
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Eventfd by which the device says that it gave this ring up.
    #[must_use]
    pub fn error_fd(&self) -> BorrowedFd<'_> {
        self.error.as_fd()
    }

    /// How often the device was kicked, and how often it called.
    #[must_use]
    pub fn kicks_and_calls(&self) -> (u64, u64) {
        (self.kicks, self.calls)
    }

    /// Chains that were published and not given back yet.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.published.wrapping_sub(self.last_used)
    }

    /// Where the available index stands: what SET_VRING_BASE continues from.
    #[must_use]
    pub fn base(&self) -> u16 {
        self.last_used
    }

    /// Puts a chain into the ring, to be seen at the next [`Queue::publish`].
    ///
    /// `None` when there are too few free descriptors.
    pub fn add(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        how: Descriptors,
    ) -> Option<u16> {
        let head = match how {
            Descriptors::Direct => self.add_direct(readable, writable)?,
            Descriptors::Indirect => self.add_indirect(readable, writable)?,
        };
        self.add_head(head);
        Some(head)
    }

    /// Puts any head into the available ring, whatever stands at it.
    pub fn add_head(&mut self, head: u16) {
        if let Some(flag) = self.in_flight.get_mut(usize::from(head)) {
            *flag = true;
        }
        let entry = self.addresses.available_entry(self.next_available);
        self.memory.store(entry, &head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Moves the available index by itself, to where no entry may stand.
    pub fn jump_to(&mut self, available_index: u16) {
        let index = self.addresses.available_index();
        let field = self.memory.atomic_u16(index);
        field.store(available_index, Ordering::Release);
        fence(Ordering::SeqCst);
        self.kick();
    }

    fn add_direct(&mut self, readable: &[Buffer], writable: &[Buffer]) -> Option<u16> {
        let count = readable.len() + writable.len();
        if count == 0 || count > self.free.len() {
            return None;
        }
        let mut successor = None;
        let reversed = writable.iter().map(|b| (b, WRITE)).rev();
        for (buffer, flags) in reversed.chain(readable.iter().map(|b| (b, 0)).rev()) {
            let index = self.free.pop()?;
            self.store_descriptor(index, buffer, flags, successor);
            successor = Some(index);
        }
        successor
    }

    fn add_indirect(&mut self, readable: &[Buffer], writable: &[Buffer]) -> Option<u16> {
        let count = u16::try_from(readable.len() + writable.len()).ok()?;
        assert!(
            count <= Self::INDIRECT_ENTRIES,
            "{count} buffers in a chain"
        );
        let head = self.free.pop()?;
        let table =
            self.indirect_tables + DESCRIPTOR * u64::from(Self::INDIRECT_ENTRIES) * u64::from(head);
        let tagged = readable.iter().map(|b| (b, 0));
        for ((buffer, flags), index) in tagged.chain(writable.iter().map(|b| (b, WRITE))).zip(0..) {
            let more = index + 1 < count;
            let descriptor = Descriptor {
                address: buffer.address,
                len: buffer.len,
                flags: if more { flags | NEXT } else { flags },
                next: if more { index + 1 } else { 0 },
            };
            self.memory
                .store(table + DESCRIPTOR * u64::from(index), &descriptor);
        }
        let whole = Buffer {
            address: table,
            len: 16 * u32::from(count),
        };
        self.store_descriptor(head, &whole, INDIRECT, None);
        Some(head)
    }

    fn store_descriptor(&mut self, index: u16, buffer: &Buffer, flags: u16, next: Option<u16>) {
        self.successor[usize::from(index)] = next;
        let descriptor = Descriptor {
            address: buffer.address,
            len: buffer.len,
            flags: if next.is_some() { flags | NEXT } else { flags },
            next: next.unwrap_or(0),
        };
        let at = self.addresses.descriptors + DESCRIPTOR * u64::from(index);
        self.memory.store(at, &descriptor);
    }

    /// Shows the device all chains added so far; kicks once if it wants that.
    pub fn publish(&mut self) {
        let old = self.published;
        let new = self.next_available;
        let index = self.addresses.available_index();
        self.memory.atomic_u16(index).store(new, Ordering::Release);
        self.published = new;
        // The device looks at the index after it asked for kicks (2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.kick_is_wanted(old, new) {
            self.kick();
        }
    }

    fn kick_is_wanted(&self, old: u16, new: u16) -> bool {
        if self.features.event_idx {
            let event = self.addresses.available_event();
            let event = self.memory.atomic_u16(event).load(Ordering::Acquire);
            crosses(event, old, new)
        } else {
            let flags = self.memory.atomic_u16(self.addresses.used);
            flags.load(Ordering::Acquire) & NO_KICK == 0
        }
    }

    /// Kicks, wanted or not.
    pub fn kick(&mut self) {
        self.kicks += 1;
        // EAGAIN: the counter is full of kicks that the device ignores.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Takes the next completion if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<Completion> {
        let index = self.addresses.used_index();
        let device = self.memory.atomic_u16(index).load(Ordering::Acquire);
        if device == self.last_used {
            return None;
        }
        let element: UsedElement = self.memory.load(self.addresses.used_entry(self.last_used));
        self.last_used = self.last_used.wrapping_add(1);
        let head = u16::try_from(element.id).expect("the device completed a head over 65535");
        let flag = self
            .in_flight
            .get_mut(usize::from(head))
            .expect("the device completed a head beyond the ring");
        assert!(
            *flag,
            "the device completed head {head}, which is not in flight"
        );
        *flag = false;
        self.free_chain(head);
        Some(Completion {
            head,
            written_bytes: element.len,
        })
    }

    fn free_chain(&mut self, head: u16) {
        let mut next = Some(head);
        while let Some(index) = next {
            next = self.successor[usize::from(index)].take();
            self.free.push(index);
        }
    }

    /// Waits for a completion; `None` when `limit` passed without one.
    pub fn wait(&mut self, how: Waiting, limit: Duration) -> Option<Completion> {
        if let Some(completion) = self.pop() {
            return Some(completion);
        }
        match how {
            Waiting::Spin => self.spin(limit),
            Waiting::Sleep => self.sleep(limit),
        }
    }

    fn spin(&mut self, limit: Duration) -> Option<Completion> {
        // The clock is read every so many rounds: a reading costs more than
        // a look at the ring.
        let started = Instant::now();
        loop {
            for _ in 0..4096 {
                if let Some(completion) = self.pop() {
                    return Some(completion);
                }
                std::hint::spin_loop();
            }
            if started.elapsed() > limit {
                return None;
            }
        }
    }

    fn sleep(&mut self, limit: Duration) -> Option<Completion> {
        let deadline = Instant::now() + limit;
        self.want_call(true);
        let completion = loop {
            if let Some(completion) = self.pop() {
                break Some(completion);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !sleep_on(self.call.as_fd(), left) {
                break self.pop();
            }
            self.calls += 1;
            self.want_call(true);
        };
        self.want_call(false);
        completion
    }

    /// Asks the device to call at its next completion, or to stay quiet.
    ///
    /// After asking, look with [`Queue::pop`] once more before sleeping.
    pub fn want_call(&self, wanted: bool) {
        if self.features.event_idx {
            // One behind is as far ahead as an index can be.
            let at = if wanted {
                self.last_used
            } else {
                self.last_used.wrapping_sub(1)
            };
            let field = self.addresses.used_event();
            self.memory.atomic_u16(field).store(at, Ordering::Release);
        } else {
            let flags = if wanted { 0 } else { NO_CALL };
            let field = self.memory.atomic_u16(self.addresses.available);
            field.store(flags, Ordering::Release);
        }
        fence(Ordering::SeqCst);
    }
}

/// Waits until an eventfd is signalled and resets it; false when `limit` passed.
pub(crate) fn sleep_on(event: BorrowedFd<'_>, limit: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(limit) else {
        return false;
    };
    let mut entry = [PollFd::new(&event, PollFlags::IN)];
    if !matches!(poll(&mut entry, Some(&timeout)), Ok(1)) {
        return false;
    }
    let mut count = [0; 8];
    rustix::io::read(event, &mut count).is_ok()
}

/// Whether an index that moved from `old` to `new` passed `event`
/// (`vring_need_event`, virtio 1.3, 2.7.7.1).
fn crosses(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::super::memory::RegionSpec;
    use super::*;

    #[test]
    fn an_event_is_crossed_once_per_round() {
        let cases = [
            (0, 0, 1, true),
            (1, 0, 1, false),
            (5, 3, 6, true),
            (5, 6, 7, false),
            (0xffff, 0xfffe, 2, true),
            (1, 0xfffe, 1, false),
        ];
        for (event, old, new, want) in cases {
            assert_eq!(crosses(event, old, new), want, "{event} {old} {new}");
        }
    }

    fn queue(indirect: bool) -> Queue {
        let memory = GuestMemory::new(&[RegionSpec {
            guest_address: 1 << 20,
            len_bytes: 1 << 20,
        }]);
        let features = RingFeatures {
            event_idx: false,
            indirect,
        };
        Queue::new(Arc::new(memory.unwrap()), 4, features).unwrap()
    }

    /// Gives a chain back as a device would.
    fn complete(queue: &Queue, head: u16, written_bytes: u32) {
        let index = queue
            .memory
            .atomic_u16(queue.addresses.used_index())
            .load(Ordering::Relaxed);
        let element = UsedElement {
            id: u32::from(head),
            len: written_bytes,
        };
        queue
            .memory
            .store(queue.addresses.used_entry(index), &element);
        queue
            .memory
            .atomic_u16(queue.addresses.used_index())
            .store(index.wrapping_add(1), Ordering::Release);
    }

    #[test]
    fn descriptors_come_back_with_their_chain_and_not_before() {
        let buffer = Buffer {
            address: 1 << 20,
            len: 8,
        };
        let mut queue = queue(false);
        let two = |queue: &mut Queue| queue.add(&[buffer], &[buffer], Descriptors::Direct);
        let first = two(&mut queue).unwrap();
        let second = two(&mut queue).unwrap();
        assert_eq!(two(&mut queue), None);
        queue.publish();
        assert_eq!((queue.in_flight(), queue.pop()), (2, None));
        complete(&queue, second, 3);
        let wanted = Completion {
            head: second,
            written_bytes: 3,
        };
        assert_eq!(
            queue.wait(Waiting::Spin, Duration::from_secs(1)),
            Some(wanted)
        );
        assert!(two(&mut queue).is_some());
        assert_eq!(two(&mut queue), None);
        complete(&queue, first, 0);
        assert!(queue.pop().is_some());
    }

    #[test]
    fn an_indirect_chain_takes_one_descriptor() {
        let buffer = Buffer {
            address: 1 << 20,
            len: 8,
        };
        let mut queue = queue(true);
        for _ in 0..4 {
            assert!(
                queue
                    .add(&[buffer; 3], &[buffer; 2], Descriptors::Indirect)
                    .is_some()
            );
        }
        assert!(queue.add(&[buffer], &[], Descriptors::Indirect).is_none());
    }

    #[test]
    fn waiting_ends_when_the_device_stays_silent() {
        let mut queue = queue(false);
        for how in [Waiting::Sleep, Waiting::Spin] {
            assert_eq!(queue.wait(how, Duration::from_millis(20)), None);
        }
    }

    #[test]
    #[should_panic(expected = "not in flight")]
    fn a_chain_that_was_never_given_cannot_be_completed() {
        let mut queue = queue(false);
        complete(&queue, 2, 0);
        queue.pop();
    }
}
