//! vhost-user messages on the wire (vhost-user specification, "Message Specification").
//!
//! The receive loop is ours, because front-ends in the field send what stricter end points refuse:
//! user-mode Linux 6.1 pads SET_MEM_TABLE.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};

use crate::error::ConnectionError;
use crate::spare::Spare;

/// Most descriptors with one message: the regions of a memory table.
const MOST_DESCRIPTORS: usize = 32;
/// Most bytes of payload that any message has.
const MOST_PAYLOAD: usize = 4096;
const HEADER_BYTES: usize = 12;
/// How long a front-end may leave replies unread.
const DEAF: Duration = Duration::from_secs(10);

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Request numbers (`VHOST_USER_*`).
pub(crate) mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const RESET_OWNER: u32 = 4;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const SET_VRING_ERR: u32 = 14;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const RESET_DEVICE: u32 = 34;
    pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const REM_MEM_REG: u32 = 38;
}

/// A message from the front-end.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: u32,
    flags: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Whether it wants to be told how it went, if it has no reply of its own.
    pub(crate) fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// The payload as numbers of 32 bits; `None` when it is shorter.
    pub(crate) fn words<const N: usize>(&self) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            let at = 4 * index;
            *word = u32::from_ne_bytes(self.payload.get(at..at + 4)?.try_into().ok()?);
        }
        Some(words)
    }

    /// `N` numbers of 64 bits from byte `start` on; `None` when the payload is shorter.
    pub(crate) fn longs<const N: usize>(&self, start: usize) -> Option<[u64; N]> {
        let mut longs = [0; N];
        for (index, long) in longs.iter_mut().enumerate() {
            let at = start + 8 * index;
            *long = u64::from_ne_bytes(self.payload.get(at..at + 8)?.try_into().ok()?);
        }
        Some(longs)
    }
}

fn violation(why: impl Into<String>) -> Halt {
    Halt::Failed(ConnectionError::Protocol(why.into()))
}

/// Why no more messages are exchanged.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The front-end has closed the connection between two messages.
    Closed,
    /// It is time to stop.
    Stopped,
    /// The connection cannot go on.
    Failed(ConnectionError),
}

impl From<ConnectionError> for Halt {
    fn from(error: ConnectionError) -> Self {
        Self::Failed(error)
    }
}

/// The socket, and what ends every wait at it: a front-end may fall silent at any byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) socket: &'a UnixStream,
    /// Readable when the daemon shall stop.
    pub(crate) stop: BorrowedFd<'a>,
    /// Readable when guest memory is gone.
    pub(crate) alarm: BorrowedFd<'a>,
    /// Room for what comes with the next message.
    pub(crate) spare: &'a Spare,
}

impl Wire<'_> {
    /// Receives a message.
    pub(crate) fn receive(self) -> Result<Message, Halt> {
        // The message before this one is served, and has what it needed.
        self.spare.fill(self.stop);
        let mut descriptors = Vec::new();
        let mut header = [0; HEADER_BYTES];
        let got = self.fill(&mut header, &mut descriptors)?;
        if got == 0 {
            return Err(Halt::Closed);
        }
        if got < HEADER_BYTES {
            return Err(violation(format!(
                "connection closed after {got} bytes of a header"
            )));
        }
        let [request, flags, size] = words_of(header);
        if flags & VERSION_MASK != VERSION {
            return Err(violation(format!(
                "message {request} has version {}, not 1",
                flags & VERSION_MASK
            )));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > MOST_PAYLOAD {
            return Err(violation(format!(
                "message {request} of {size} bytes, at most {MOST_PAYLOAD} make sense"
            )));
        }
        let mut payload = vec![0; size];
        if self.fill(&mut payload, &mut descriptors)? < size {
            return Err(violation(format!(
                "connection closed inside message {request}"
            )));
        }
        Ok(Message {
            request,
            flags,
            payload,
            descriptors,
        })
    }

    /// Reads until the buffer is full or the peer has closed; collects descriptors on the way.
    fn fill(self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize, Halt> {
        let mut left = buffer;
        let mut done = 0;
        while !left.is_empty() {
            self.wait(PollFlags::IN, None)?;
            self.spare.give();
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let mut into = [IoSliceMut::new(left)];
            let received = match recvmsg(self.socket, &mut into, &mut control, flags) {
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(Errno::CONNRESET) => return Ok(done),
                received => received.map_err(ConnectionError::Socket)?,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    descriptors.extend(rights);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MOST_DESCRIPTORS
            {
                return Err(violation("more descriptors than a message takes"));
            }
            if received.bytes == 0 {
                break;
            }
            done += received.bytes;
            left = left.get_mut(received.bytes..).unwrap_or_default();
        }
        Ok(done)
    }

    /// Sends a reply to `request`.
    pub(crate) fn reply(self, request: u32, payload: &[u8]) -> Result<(), Halt> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        for word in [request, VERSION | REPLY, size] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(payload);
        let deadline = Instant::now() + DEAF;
        let mut left = &bytes[..];
        while !left.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(self.socket, left, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, Some(deadline))?,
                // Gone, and what it sent before is of no use to anybody.
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Halt::Closed),
                sent => {
                    let sent = sent.map_err(ConnectionError::Socket)?;
                    left = left.get(sent..).unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// Waits until the socket is ready for that.
    fn wait(self, ready: PollFlags, deadline: Option<Instant>) -> Result<(), Halt> {
        loop {
            let timeout = match deadline {
                None => None,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(ConnectionError::Deaf.into());
                    }
                    Timespec::try_from(left).ok()
                }
            };
            let mut all = [
                PollFd::new(self.socket, ready),
                PollFd::from_borrowed_fd(self.stop, PollFlags::IN),
                PollFd::from_borrowed_fd(self.alarm, PollFlags::IN),
            ];
            match poll(&mut all, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(ConnectionError::Socket(errno).into()),
            }
            let [socket, stop, alarm] = all.map(|one| !one.revents().is_empty());
            if stop {
                return Err(Halt::Stopped);
            }
            if alarm {
                return Err(ConnectionError::Memory.into());
            }
            if socket {
                return Ok(());
            }
        }
    }
}

fn words_of(header: [u8; HEADER_BYTES]) -> [u32; 3] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = header;
    [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]].map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
