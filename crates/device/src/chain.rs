//! One request in a queue: its descriptors, checked once.
//!
//! A chain owns what its request needs: the copied header and arguments, the pieces of its payload
//! and of the room for its reply, and the memory generation they lie in. So it outlives its queue's
//! turn, and a new memory table.

use std::sync::Arc;

use virtiofs_protocol::{HEADER_BYTES, Head, IoVec, ReplySpace, Request, arguments_len};

use crate::memory::{
    Descriptor, IndirectTable, Memory, RingMemory, copy_array, copy_piece, pages, reply_space,
};

/// Descriptor flags (virtio 1.3, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Most pieces of guest memory that a chain consists of. Linux cuts a request of 1 MiB into fewer
/// than 300; without a limit, one chain could name 65535 and make us keep as many numbers.
const MOST_PIECES: usize = 4096;

/// What a chain takes beyond its numbers; kept by the worker for the next one.
#[derive(Debug)]
pub(crate) struct Buffers {
    header: [u8; HEADER_BYTES],
    arguments: Vec<u8>,
    payload: Vec<IoVec>,
    reply_header: Vec<IoVec>,
    reply_body: Vec<IoVec>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            header: [0; HEADER_BYTES],
            arguments: Vec::new(),
            payload: Vec::new(),
            reply_header: Vec::new(),
            reply_body: Vec::new(),
        }
    }
}

/// A request that was taken out of a queue.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    memory: Arc<Memory>,
    buffers: Box<Buffers>,
}

/// Why a chain holds no request. It is completed with length 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadChain {
    /// A descriptor that is not there, loops, or nests tables.
    Descriptors,
    /// A buffer outside guest memory.
    Memory,
    /// Readable bytes behind writable ones (virtio 1.3, 2.7.4.2).
    Order,
    /// Fewer readable bytes than a header has.
    Short,
    /// More pieces than a request is worth.
    Pieces,
}

impl Chain {
    /// Reads the chain that starts at `head`.
    ///
    /// # Errors
    ///
    /// [`BadChain`], with the buffers for the next one.
    pub(crate) fn new(
        ring: &RingMemory,
        head: u16,
        mut buffers: Box<Buffers>,
    ) -> Result<Self, (BadChain, Box<Buffers>)> {
        match buffers.fill(ring, head) {
            Ok(()) => Ok(Self {
                head,
                memory: Arc::clone(ring.memory()),
                buffers,
            }),
            Err(bad) => Err((bad, buffers)),
        }
    }

    /// The request, to be served from the same bytes as often as need be.
    pub(crate) fn request(&mut self) -> Request<'_> {
        let Buffers {
            header,
            arguments,
            payload,
            reply_header,
            reply_body,
        } = &mut *self.buffers;
        Request {
            head: Head::new(header, arguments),
            payload: pages(&self.memory, payload),
            reply: reply_space(&self.memory, reply_header, reply_body),
        }
    }

    /// Gives the buffers back.
    pub(crate) fn into_buffers(self) -> Box<Buffers> {
        self.buffers
    }
}

impl Buffers {
    fn fill(&mut self, ring: &RingMemory, head: u16) -> Result<(), BadChain> {
        self.arguments.clear();
        self.payload.clear();
        self.reply_header.clear();
        self.reply_body.clear();
        let memory = ring.memory();
        let first = ring.descriptor(head).ok_or(BadChain::Descriptors)?;
        if first.flags & INDIRECT == 0 {
            self.walk(memory, first, ring.size(), |index| ring.descriptor(index))?;
        } else {
            // Only a table, nothing behind it (virtio 1.3, 2.7.5.3.1), and as long as 16 bits count.
            let count = u16::try_from(first.len / 16).map_err(|_| BadChain::Descriptors)?;
            if first.flags & NEXT != 0 || count == 0 || first.len % 16 != 0 {
                return Err(BadChain::Descriptors);
            }
            let table = IndirectTable::new(memory, first.address, count);
            let head = table.descriptor(0).ok_or(BadChain::Descriptors)?;
            self.walk(memory, head, count, |index| table.descriptor(index))?;
        }
        self.split_readable()
    }

    /// Follows a chain of at most `most` descriptors.
    fn walk(
        &mut self,
        memory: &Memory,
        first: Descriptor,
        most: u16,
        next: impl Fn(u16) -> Option<Descriptor>,
    ) -> Result<(), BadChain> {
        let mut descriptor = first;
        let mut writable = false;
        for _ in 0..most {
            if descriptor.flags & INDIRECT != 0 {
                return Err(BadChain::Descriptors);
            }
            let is_write = descriptor.flags & WRITE != 0;
            if writable && !is_write {
                return Err(BadChain::Order);
            }
            writable = is_write;
            self.buffer(memory, descriptor, is_write)
                .ok_or(BadChain::Memory)?;
            if self.payload.len() + self.reply_body.len() > MOST_PIECES {
                return Err(BadChain::Pieces);
            }
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            descriptor = next(descriptor.next).ok_or(BadChain::Descriptors)?;
        }
        // Longer than its table: it loops.
        Err(BadChain::Descriptors)
    }

    /// Notes a buffer's pieces; those for the reply are cut where its header ends.
    fn buffer(&mut self, memory: &Memory, descriptor: Descriptor, is_write: bool) -> Option<()> {
        let len = usize::try_from(descriptor.len).ok()?;
        if !is_write {
            return memory.pieces(descriptor.address, len, |piece| self.payload.push(piece));
        }
        let in_header: usize = self
            .reply_header
            .iter()
            .map(|piece| piece.len_bytes())
            .sum();
        let mut room = ReplySpace::HEADER_BYTES - in_header;
        memory.pieces(descriptor.address, len, |piece| {
            let front = piece.len_bytes().min(room);
            room -= front;
            if front > 0 {
                self.reply_header.push(IoVec::new(piece.base(), front));
            }
            if front < piece.len_bytes() {
                self.reply_body.push(behind(piece, front));
            }
        })
    }

    /// Copies header and arguments off the front of what is readable; the rest is payload.
    fn split_readable(&mut self) -> Result<(), BadChain> {
        let readable = self
            .payload
            .iter()
            .fold(0_usize, |sum, piece| sum.saturating_add(piece.len_bytes()));
        if readable < HEADER_BYTES {
            return Err(BadChain::Short);
        }
        match self.payload.first_mut() {
            Some(piece) if copy_array(*piece, &mut self.header) => {
                *piece = behind(*piece, HEADER_BYTES);
            }
            _ => take_front(&mut self.payload, &mut self.header),
        }
        let len = arguments_len(&self.header, readable);
        self.arguments.resize(len, 0);
        take_front(&mut self.payload, &mut self.arguments);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;

/// Copies the first bytes of the pieces and cuts them off.
fn take_front(pieces: &mut Vec<IoVec>, to: &mut [u8]) {
    let (mut done, mut whole) = (0, 0);
    for piece in pieces.iter_mut() {
        let count = copy_piece(*piece, &mut to[done..]);
        done += count;
        if count < piece.len_bytes() {
            *piece = behind(*piece, count);
            break;
        }
        whole += 1;
    }
    pieces.drain(..whole);
}

fn behind(piece: IoVec, count: usize) -> IoVec {
    IoVec::new(piece.base().wrapping_add(count), piece.len_bytes() - count)
}
