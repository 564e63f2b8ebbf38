//! Sends requests through one queue and finds their replies.
//!
//! A client has a fixed number of slots in guest memory, one per request in
//! flight; starting and finishing a request neither allocates nor locks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::io::Errno;
use zerocopy::FromBytes;

use super::abi;
use super::reply::Failure;
use super::request::{Caller, Request};
use crate::frontend::{Buffer, Descriptors, Frontend, GuestMemory, Queue, Waiting};

/// Room for header, arguments and two names of the greatest length.
const ARGUMENTS: u32 = 12 << 10;
/// Room for a reply's header and fixed part.
const REPLY: u32 = 4 << 10;
const OUT_HEADER: u32 = 16;
const IN_HEADER: u32 = 40;
/// The most buffers that a chain is cut into.
const MOST_BUFFERS: usize = Queue::INDIRECT_ENTRIES as usize;

/// How the buffers of a chain are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As Linux does: header, arguments, payload; header, fixed part, data.
    Linux,
    /// All that is readable in one buffer, all that is writable in one where
    /// it lies together.
    Whole,
    /// Each of Linux's buffers in pieces of that many bytes, as long as there
    /// are descriptors.
    Pieces(u32),
}

/// How a client works.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Requests in flight at most.
    pub depth: u16,
    /// Longest payload or reply data.
    pub data_bytes: u32,
    /// How to wait for completions.
    pub waiting: Waiting,
    /// How long to wait for one.
    pub limit: Duration,
    /// How chains stand in the ring; indirect where negotiated by default.
    pub descriptors: Option<Descriptors>,
    /// How chains are cut.
    pub shape: Shape,
    /// The data buffers lie across the border of the first two regions
    /// (depth 1 only).
    pub data_across_border: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            depth: 1,
            data_bytes: 1 << 20,
            waiting: Waiting::Sleep,
            limit: Duration::from_secs(10),
            descriptors: None,
            shape: Shape::Linux,
            data_across_border: false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    arguments: u64,
    reply: u64,
    data: u64,
    /// Where in the data area the reply's data goes: behind the payload.
    reply_data: u64,
    fixed_len: u32,
    unique: u64,
}

/// A reply in guest memory, valid until its slot is used again, which is not
/// before the client starts another request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    slot: u16,
    /// The request that was answered.
    pub unique: u64,
    /// What the used ring says.
    pub written_bytes: u32,
    /// The reply's header; all zero where none was written.
    pub header: abi::OutHeader,
}

/// A FUSE client on one queue.
#[derive(Debug)]
pub struct FuseClient {
    memory: Arc<GuestMemory>,
    queue: Queue,
    slots: Box<[Slot]>,
    free: Vec<u16>,
    by_head: Box<[u16]>,
    next_unique: u64,
    /// Where arguments are put together.
    scratch: Box<[u8]>,
    options: ClientOptions,
    descriptors: Descriptors,
    data_bytes: u32,
    /// Who the requests come from.
    pub caller: Caller,
}

impl FuseClient {
    /// Takes queue `index` of a front-end: 0 is the high-priority queue.
    pub fn on(frontend: &mut Frontend, index: u16, options: &ClientOptions) -> Result<Self> {
        let indirect = frontend.features().1 & crate::frontend::message::feature::INDIRECT_DESC;
        let descriptors = options.descriptors.unwrap_or(if indirect == 0 {
            Descriptors::Direct
        } else {
            Descriptors::Indirect
        });
        let queue = frontend.take_queue(index)?;
        Self::new(queue, descriptors, options)
    }

    fn new(queue: Queue, descriptors: Descriptors, options: &ClientOptions) -> Result<Self> {
        ensure!(
            options.depth == 1 || !options.data_across_border,
            "one slot only can lie across the border"
        );
        let memory = Arc::clone(queue.memory());
        let slots = (0..options.depth)
            .map(|_| {
                let data = if options.data_across_border {
                    memory.allocate_across_border(u64::from(options.data_bytes))?
                } else {
                    memory.allocate(u64::from(options.data_bytes), 4096)?
                };
                Ok(Slot {
                    arguments: memory.allocate(u64::from(ARGUMENTS), 4096)?,
                    reply: memory.allocate(u64::from(REPLY), 4096)?,
                    data,
                    reply_data: data,
                    fixed_len: 0,
                    unique: 0,
                })
            })
            .collect::<Result<Box<[Slot]>>>()?;
        Ok(Self {
            free: (0..options.depth).rev().collect(),
            by_head: vec![0; usize::from(queue.addresses().size)].into_boxed_slice(),
            memory,
            queue,
            slots,
            next_unique: 2,
            scratch: vec![0; ARGUMENTS as usize].into_boxed_slice(),
            options: *options,
            descriptors,
            data_bytes: options.data_bytes,
            caller: Caller::default(),
        })
    }

    /// The queue underneath.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Changes how the client waits.
    pub fn set_waiting(&mut self, waiting: Waiting, limit: Duration) {
        self.options.waiting = waiting;
        self.options.limit = limit;
    }

    /// Changes how chains are cut and put into the ring.
    pub fn set_shape(&mut self, shape: Shape, descriptors: Descriptors) {
        self.options.shape = shape;
        self.descriptors = descriptors;
    }

    /// Puts a request into the ring, to be seen at [`FuseClient::publish`];
    /// returns its unique.
    pub fn start(&mut self, request: &Request<'_>) -> Result<u64, Failure> {
        let number = *self.free.last().ok_or(Failure::Full)?;
        let unique = self.next_unique;
        if request.arguments_len() > self.scratch.len() || !self.fits(request) {
            return Err(Failure::Full);
        }
        let len = request.write_arguments(&mut self.scratch, unique, self.caller);
        let slot = &mut self.slots[usize::from(number)];
        slot.unique = unique;
        slot.fixed_len = request.reply_len.unwrap_or(0);
        let payload_len = u64::try_from(request.payload.len()).unwrap_or(u64::MAX);
        slot.reply_data = if payload_len == 0 {
            slot.data
        } else {
            (slot.data + payload_len).next_multiple_of(8)
        };
        let slot = *slot;
        self.memory.write(slot.arguments, &self.scratch[..len]);
        if !request.payload.is_empty() {
            self.memory.write(slot.data, request.payload);
        }
        // A daemon that completes without writing must not find an old reply.
        self.memory.store(slot.reply, &abi::OutHeader::default());
        let chain = Chain::cut(&slot, request, len, self.options.shape);
        let (readable, writable) = chain.parts();
        let head = self
            .queue
            .add(readable, writable, self.descriptors)
            .ok_or(Failure::Full)?;
        self.free.pop();
        self.by_head[usize::from(head)] = number;
        self.next_unique += 2;
        Ok(unique)
    }

    fn fits(&self, request: &Request<'_>) -> bool {
        let reply = request.reply_len.unwrap_or(0) + OUT_HEADER;
        let payload = request.payload.len().next_multiple_of(8);
        let data = u64::from(request.data_len) + u64::try_from(payload).unwrap_or(u64::MAX);
        reply <= REPLY && data <= u64::from(self.data_bytes)
    }

    /// Shows the daemon what was started.
    pub fn publish(&mut self) {
        self.queue.publish();
    }

    /// Waits for any request to be completed, whatever the reply says.
    pub fn finish(&mut self) -> Result<Answer, Failure> {
        let completion = self
            .queue
            .wait(self.options.waiting, self.options.limit)
            .ok_or(Failure::NoAnswer)?;
        let number = self.by_head[usize::from(completion.head)];
        let slot = &self.slots[usize::from(number)];
        self.free.push(number);
        Ok(Answer {
            slot: number,
            unique: slot.unique,
            written_bytes: completion.written_bytes,
            header: self.memory.load(slot.reply),
        })
    }

    /// Checks a reply against the protocol's rules.
    pub fn check(&self, answer: &Answer) -> Result<(), Failure> {
        let malformed = |why| Failure::Malformed {
            why,
            header: answer.header,
            written_bytes: answer.written_bytes,
        };
        let header = answer.header;
        if answer.written_bytes < OUT_HEADER {
            return Err(malformed("no header was written"));
        }
        if header.len != answer.written_bytes {
            return Err(malformed("its length is not what was written"));
        }
        if header.unique != answer.unique {
            return Err(malformed("it answers another request"));
        }
        match header.error {
            0 => Ok(()),
            // fuse_dev_do_write() refuses other values.
            -511..=-1 if header.len == OUT_HEADER => {
                Err(Failure::Errno(Errno::from_raw_os_error(-header.error)))
            }
            -511..=-1 => Err(malformed("an error carries a body")),
            _ => Err(malformed("the error is out of range")),
        }
    }

    /// One request from start to checked reply.
    pub fn call(&mut self, request: &Request<'_>) -> Result<Answer, Failure> {
        let unique = self.start(request)?;
        self.publish();
        let answer = self.finish()?;
        assert_eq!(answer.unique, unique, "another request was in flight");
        self.check(&answer)?;
        Ok(answer)
    }

    /// One request that has no reply; done when its chain comes back.
    pub fn send(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        self.start(request)?;
        self.publish();
        let answer = self.finish()?;
        if answer.written_bytes == 0 {
            return Ok(());
        }
        Err(Failure::Malformed {
            why: "there must be no reply",
            header: answer.header,
            written_bytes: answer.written_bytes,
        })
    }

    /// The fixed part of a reply.
    pub fn body<T: FromBytes + zerocopy::IntoBytes>(&self, answer: &Answer) -> Result<T, Failure> {
        let slot = &self.slots[usize::from(answer.slot)];
        let len = usize::try_from(answer.written_bytes - OUT_HEADER).unwrap_or(usize::MAX);
        if len < size_of::<T>() {
            return Err(Failure::Malformed {
                why: "it is too short",
                header: answer.header,
                written_bytes: answer.written_bytes,
            });
        }
        Ok(self.memory.load(slot.reply + u64::from(OUT_HEADER)))
    }

    /// [`FuseClient::call`] where the reply is one struct.
    pub fn call_for<T>(&mut self, request: &Request<'_>) -> Result<T, Failure>
    where
        T: FromBytes + zerocopy::IntoBytes,
    {
        let answer = self.call(request)?;
        self.body(&answer)
    }

    /// How many bytes of data, after the fixed part, a reply has.
    #[must_use]
    pub fn data_len(&self, answer: &Answer) -> usize {
        let fixed = self.slots[usize::from(answer.slot)].fixed_len;
        let len = answer.written_bytes.saturating_sub(OUT_HEADER + fixed);
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// Copies a reply's data out; `into` decides how much of it.
    pub fn copy_data(&self, answer: &Answer, into: &mut [u8]) {
        let slot = &self.slots[usize::from(answer.slot)];
        self.memory.read(slot.reply_data, into);
    }

    /// A reply's data in a new vector.
    #[must_use]
    pub fn data(&self, answer: &Answer) -> Vec<u8> {
        let mut bytes = vec![0; self.data_len(answer)];
        self.copy_data(answer, &mut bytes);
        bytes
    }
}

/// The buffers of one chain.
struct Chain {
    buffers: [Buffer; MOST_BUFFERS],
    readable: usize,
    count: usize,
}

impl Chain {
    fn cut(slot: &Slot, request: &Request<'_>, arguments_len: usize, shape: Shape) -> Self {
        let mut chain = Self {
            buffers: [Buffer { address: 0, len: 0 }; MOST_BUFFERS],
            readable: 0,
            count: 0,
        };
        let (piece, header, out_header) = match shape {
            Shape::Linux => (u32::MAX, IN_HEADER, OUT_HEADER),
            Shape::Whole => (u32::MAX, 0, 0),
            Shape::Pieces(len) => (len.max(1), IN_HEADER, OUT_HEADER),
        };
        let arguments_len = u32::try_from(arguments_len).unwrap_or(u32::MAX);
        let payload_len = u32::try_from(request.payload.len()).unwrap_or(u32::MAX);
        chain.put(slot.arguments, header, piece);
        let rest = slot.arguments + u64::from(header);
        chain.put(rest, arguments_len - header, piece);
        chain.put(slot.data, payload_len, piece);
        chain.readable = chain.count;
        if let Some(fixed_len) = request.reply_len {
            chain.put(slot.reply, out_header, piece);
            let rest = slot.reply + u64::from(out_header);
            chain.put(rest, OUT_HEADER + fixed_len - out_header, piece);
            chain.put(slot.reply_data, request.data_len, piece);
        }
        chain
    }

    /// Appends a range in pieces; its rest whole when descriptors run out.
    fn put(&mut self, mut address: u64, mut len: u32, piece: u32) {
        // Six parts at most: each must still find a descriptor.
        const SPARE: usize = 6;
        while len > 0 {
            let scarce = self.count + SPARE >= MOST_BUFFERS;
            let now = if scarce { len } else { len.min(piece) };
            self.buffers[self.count] = Buffer { address, len: now };
            self.count += 1;
            address += u64::from(now);
            len -= now;
        }
    }

    fn parts(&self) -> (&[Buffer], &[Buffer]) {
        self.buffers[..self.count].split_at(self.readable)
    }
}
