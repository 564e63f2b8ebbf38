//! One virtqueue of the bridge: requests go in, replies come out.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::io::Errno;

use super::room::{is_urgent, reply_room};
use super::slots::{DATA, SlotId, Slots, reply_after};
use super::{HEARTBEAT, ORDERLY_END, Shared};
use crate::frontend::{Buffer, Completion, Descriptors, Queue, sleep_on};
use crate::fuse::abi::{self, opcode};

const IN_HEADER: u32 = 40;
const OUT_HEADER: u32 = 16;
const WRITE_HEAD: u32 = 80;

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    slot: SlotId,
    /// Which `/dev/fuse` read it.
    device: usize,
    header: abi::InHeader,
    /// Where its reply is; `None` when it has none.
    reply: Option<u64>,
    since: Instant,
}

#[derive(Debug)]
struct Ring {
    queue: Queue,
    /// By head.
    pending: Box<[Option<Pending>]>,
}

/// One virtqueue, filled by readers and emptied by its completer.
#[derive(Debug)]
pub(super) struct Lane {
    ring: Mutex<Ring>,
    call: OwnedFd,
}

impl Lane {
    pub(super) fn new(queue: Queue) -> Result<Self> {
        let call = queue.call_fd().try_clone_to_owned()?;
        let entries = usize::from(queue.addresses().size);
        let pending = vec![None; entries].into_boxed_slice();
        Ok(Self {
            ring: Mutex::new(Ring { queue, pending }),
            call,
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which device read the request with this unique, if it is in flight here.
    fn device_of(&self, unique: u64) -> Option<usize> {
        let ring = self.ring();
        let mut all = ring.pending.iter().flatten();
        let found = all.find(|pending| pending.header.unique == unique);
        found.map(|pending| pending.device)
    }

    fn submit(&self, pending: Pending, chain: &Chain) -> bool {
        let mut ring = self.ring();
        let readable = &chain.readable[..chain.readable_count];
        let writable = &chain.writable[..chain.writable_count];
        let head = ring
            .queue
            .add(readable, writable, Descriptors::Indirect)
            .or_else(|| ring.queue.add(readable, writable, Descriptors::Direct));
        let Some(head) = head else {
            return false;
        };
        ring.pending[usize::from(head)] = Some(pending);
        ring.queue.publish();
        true
    }

    /// Takes one completion; asks for a call when there is none.
    fn take(&self) -> Option<(Pending, Completion)> {
        let mut ring = self.ring();
        let completion = ring.queue.pop().or_else(|| {
            ring.queue.want_call(true);
            ring.queue.pop()
        })?;
        let pending = ring.pending[usize::from(completion.head)].take()?;
        Some((pending, completion))
    }

    /// A request that has been in flight for longer than `limit`.
    pub(super) fn overdue(&self, limit: Duration) -> Option<abi::InHeader> {
        let ring = self.ring();
        let mut all = ring.pending.iter().flatten();
        let found = all.find(|pending| pending.since.elapsed() > limit);
        found.map(|pending| pending.header)
    }

    fn is_idle(&self) -> bool {
        self.ring().pending.iter().all(Option::is_none)
    }
}

/// The buffers of one request, cut as Linux cuts them.
#[derive(Debug)]
struct Chain {
    readable: [Buffer; 3],
    readable_count: usize,
    writable: [Buffer; 2],
    writable_count: usize,
}

impl Chain {
    fn new(request: u64, header: &abi::InHeader, reply: Option<(u64, u32)>) -> Self {
        let nothing = Buffer { address: 0, len: 0 };
        let mut chain = Self {
            readable: [nothing; 3],
            readable_count: 0,
            writable: [nothing; 2],
            writable_count: 0,
        };
        let head = match header.opcode {
            opcode::WRITE => WRITE_HEAD.min(header.len),
            _ => header.len,
        };
        let cuts = [0, IN_HEADER, head, header.len];
        for (place, cut) in cuts.windows(2).enumerate() {
            let len = cut[1].saturating_sub(cut[0]);
            if len > 0 {
                chain.readable[place] = buffer(request, cut[0], len);
                chain.readable_count = place + 1;
            }
        }
        if let Some((reply, room)) = reply {
            chain.writable[0] = buffer(reply, 0, OUT_HEADER);
            chain.writable[1] = buffer(reply, OUT_HEADER, room);
            chain.writable_count = if room == 0 { 1 } else { 2 };
        }
        chain
    }
}

fn buffer(start: u64, offset: u32, len: u32) -> Buffer {
    Buffer {
        address: start + u64::from(offset),
        len,
    }
}

/// Moves requests from a device to a lane until the mount is gone.
pub(super) fn read_requests(shared: &Shared, lane: usize, device: usize) {
    while !shared.is_stopping() {
        let Some(slot) = shared.slots.take(HEARTBEAT) else {
            continue;
        };
        let start = shared.slots.request(slot);
        let file = shared.devices[device].as_fd();
        let memory = shared.slots.memory();
        match memory.fill_from(file, start, Slots::request_room()) {
            Ok(len) => {
                let header: abi::InHeader = memory.load(start);
                if usize::try_from(header.len) == Ok(len) {
                    forward(shared, lane, device, slot);
                    continue;
                }
                shared.fault(format!("the kernel sent {len} bytes as {header:?}"));
            }
            // The request was aborted before it was read, or a signal came.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::NODEV | Errno::CONNABORTED) => {
                shared.slots.give_back(slot);
                return;
            }
            Err(error) => {
                shared.fault(format!("read /dev/fuse: {error}"));
                shared.tear();
            }
        }
        shared.slots.give_back(slot);
    }
}

fn forward(shared: &Shared, lane: usize, device: usize, slot: SlotId) {
    let memory = shared.slots.memory();
    let start = shared.slots.request(slot);
    let header: abi::InHeader = memory.load(start);
    let room = reply_room(memory, &header, start + u64::from(IN_HEADER));
    let reply = room.map(|room| (reply_after(start + u64::from(header.len)), room));
    if room.is_some_and(|room| room > DATA) {
        shared.fault(format!("a reply longer than a slot: {header:?}"));
        shared.slots.give_back(slot);
        return;
    }
    let mut pending = Pending {
        slot,
        device,
        header,
        reply: reply.map(|(start, _)| start),
        since: Instant::now(),
    };
    let lane = if is_urgent(header.opcode) { 0 } else { lane };
    if header.opcode == opcode::INTERRUPT {
        // Its reply is taken only where the interrupted request was read.
        let interrupted: abi::InterruptIn = memory.load(start + u64::from(IN_HEADER));
        pending.device = reader_of(shared, interrupted.unique).unwrap_or(device);
    }
    if let Some((reply, _)) = reply {
        memory.store(reply, &abi::OutHeader::default());
    }
    let chain = Chain::new(start, &header, reply);
    while !shared.lanes[lane].submit(pending, &chain) {
        // The ring holds more than there are slots, unless FORGETs pile up.
        if shared.is_stopping() {
            shared.slots.give_back(slot);
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Which device read a request that is in flight.
///
/// Another reader may have it in its hands and not in a lane yet, hence some
/// patience; after that it has been answered.
fn reader_of(shared: &Shared, unique: u64) -> Option<usize> {
    (0..5).find_map(|_| {
        let found = shared.lanes.iter().find_map(|lane| lane.device_of(unique));
        if found.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        found
    })
}

/// Moves replies from a lane to the devices until the bridge stops.
pub(super) fn write_replies(shared: &Shared, lane: &Lane) {
    let mut give_up = None;
    loop {
        while let Some((pending, completion)) = lane.take() {
            finish(shared, &pending, completion.written_bytes);
            shared.slots.give_back(pending.slot);
        }
        if shared.is_stopping() {
            let deadline = *give_up.get_or_insert_with(|| Instant::now() + ORDERLY_END);
            if lane.is_idle() {
                return;
            }
            if Instant::now() > deadline {
                shared.fault("requests were never completed".to_owned());
                return;
            }
        }
        sleep_on(lane.call.as_fd(), HEARTBEAT);
    }
}

/// Hands one reply to the kernel.
fn finish(shared: &Shared, pending: &Pending, written_bytes: u32) {
    let memory = shared.slots.memory();
    let Some(reply) = pending.reply else {
        if written_bytes != 0 {
            shared.fault(format!(
                "{written_bytes} bytes of reply to {:?}",
                pending.header
            ));
        }
        return;
    };
    if pending.header.opcode == opcode::INTERRUPT && written_bytes == 0 {
        return;
    }
    let mut header: abi::OutHeader = memory.load(reply);
    if written_bytes < OUT_HEADER || header.len != written_bytes {
        shared.fault(format!(
            "{written_bytes} bytes written, {header:?} as reply to {:?}",
            pending.header
        ));
        header = abi::OutHeader {
            len: OUT_HEADER,
            error: -Errno::IO.raw_os_error(),
            unique: pending.header.unique,
        };
        memory.store(reply, &header);
    }
    if pending.header.opcode == opcode::INIT && header.error == 0 {
        limit_to_slots(shared, reply, header.len);
    }
    let file = shared.devices[pending.device].as_fd();
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    match memory.drain_to(file, reply, len) {
        // ENOENT: the caller is gone; ENODEV: the mount is.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
        Err(error) => shared.fault(format!(
            "the kernel refuses {header:?} to {:?}: {error}",
            pending.header
        )),
    }
}

/// Cuts what INIT agreed on down to what a slot holds.
fn limit_to_slots(shared: &Shared, reply: u64, len: u32) {
    let memory = shared.slots.memory();
    let at = reply + u64::from(OUT_HEADER);
    if usize::try_from(len - OUT_HEADER) != Ok(size_of::<abi::InitOut>()) {
        shared.fault(format!("an INIT reply of {len} bytes"));
        return;
    }
    let mut out: abi::InitOut = memory.load(at);
    out.max_write = out.max_write.min(DATA);
    out.max_pages = out
        .max_pages
        .min(u16::try_from(DATA / 4096).unwrap_or(u16::MAX));
    memory.store(at, &out);
}
