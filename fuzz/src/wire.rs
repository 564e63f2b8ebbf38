//! A front-end that says everything at once and then listens.
//!
//! All messages are in the socket before the connection is served, so one thread is enough: the device
//! is told to start none, a run follows from its input alone, and nobody waits for anybody. With
//! threads, as the product has them, a run takes fifty times as long; so few inputs ask for it.

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use virtiofs_device::fuzzing::serve_connection_alone;
use virtiofs_device::{ConnectionError, DeviceOptions, Ended, serve_connection};
use virtiofs_protocol::Session;

use crate::strict::Strict;

/// Protocol version 1 in a message's flags.
pub const VERSION: u32 = 1;
/// The sender wants to be told how it went.
pub const NEED_REPLY: u32 = 1 << 3;
const REPLY: u32 = 1 << 2;
/// Descriptors that fit into one message.
const MOST_DESCRIPTORS: usize = 64;

/// How long something may take to come true, also on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether an input is one of the few that the device's own threads serve.
///
/// By a sum of all bytes: threads reach other lines each time, and a fuzzer that could choose them would breed inputs
/// that do.
pub fn has_threads(input: &[u8]) -> bool {
    let sum = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    (sum >> 32) % 256 == 0
}

/// Both ends of a connection that has not been served yet.
#[derive(Debug)]
pub struct Wire {
    front_end: UnixStream,
    device: UnixStream,
}

/// What became of a connection.
#[derive(Debug)]
pub struct Outcome {
    /// What the device says.
    pub ended: Result<Ended, ConnectionError>,
    /// Its replies: number of the request, and payload.
    pub replies: Vec<(u32, Vec<u8>)>,
}

impl Wire {
    /// A new connection.
    pub fn new() -> Self {
        let (front_end, device) = UnixStream::pair().expect("a socket pair");
        front_end
            .set_nonblocking(true)
            .expect("a socket takes flags");
        Self { front_end, device }
    }

    /// Sends bytes as they are, with descriptors; false when the socket is full.
    pub fn send_raw(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = &descriptors[..descriptors.len().min(MOST_DESCRIPTORS)];
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.front_end, &[IoSlice::new(bytes)], &mut control, flags)
            .is_ok_and(|sent| sent == bytes.len())
    }

    /// Sends a message of true length.
    pub fn send(&self, request: u32, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let bytes = message(request, VERSION, payload.len() as u32, payload);
        assert!(self.send_raw(&bytes, descriptors), "the socket is full");
    }

    /// Hangs up on our side and has everything served on this thread.
    ///
    /// # Panics
    ///
    /// When a reply has no proper form.
    pub fn serve(self, session: &Arc<Session<Strict>>, tag: Option<&str>) -> Outcome {
        self.hang_up();
        let ended = serve_connection_alone(&self.device, session, &options(tag), event().as_fd());
        self.listen(ended)
    }

    /// Has everything served by the device's own threads, and sends a last message when something has come
    /// true, or never will.
    ///
    /// # Panics
    ///
    /// As [`Self::serve`].
    pub fn serve_with_threads(
        self,
        session: &Arc<Session<Strict>>,
        tag: Option<&str>,
        is_true: impl Fn() -> bool + Send,
        last: &[u8],
    ) -> Outcome {
        let (wire, device) = (&self, &self.device);
        let ended = std::thread::scope(|scope| {
            scope.spawn(move || {
                let deadline = Instant::now() + PATIENCE;
                while !is_true() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_micros(20));
                }
                assert!(last.is_empty() || wire.send_raw(last, &[]));
                wire.hang_up();
            });
            serve_connection(device, session, &options(tag), event().as_fd())
        });
        self.listen(ended)
    }

    fn hang_up(&self) {
        // The device may have hung up already.
        let _ = self.front_end.shutdown(Shutdown::Write);
    }

    fn listen(self, ended: Result<Ended, ConnectionError>) -> Outcome {
        drop(self.device);
        let mut bytes = Vec::new();
        let mut front_end = self.front_end;
        while let Err(error) = front_end.read_to_end(&mut bytes) {
            match error.kind() {
                // What the device left unread resets the connection, once.
                ErrorKind::ConnectionReset => {}
                // Whoever looks at this process's descriptors keeps the device's end open meanwhile.
                ErrorKind::WouldBlock => wait_for_more(&front_end),
                _ => panic!("{error}"),
            }
        }
        Outcome {
            ended,
            replies: replies(&bytes),
        }
    }
}

fn wait_for_more(front_end: &UnixStream) {
    let mut ready = [PollFd::new(front_end, PollFlags::IN)];
    let limit = Timespec::try_from(PATIENCE).expect("a few seconds");
    let count = poll(&mut ready, Some(&limit)).expect("a socket can be waited for");
    assert_eq!(count, 1, "the device keeps its end of the connection");
}

fn options(tag: Option<&str>) -> DeviceOptions {
    DeviceOptions {
        tag: tag.map(str::to_owned),
        store_threads: 2,
        ..DeviceOptions::default()
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

/// Header and payload; `stated` is the length that the header states.
pub fn message(request: u32, flags: u32, stated: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + payload.len());
    for word in [request, flags, stated] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Numbers of 64 bits, as most payloads have them.
pub fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// Numbers of 32 bits.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn replies(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (header, behind) = bytes.split_at_checked(12).expect("a whole header");
        let word =
            |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(word(4), VERSION | REPLY, "flags of a reply");
        let size = usize::try_from(word(8)).expect("a length fits a usize");
        let (payload, next) = behind.split_at_checked(size).expect("a whole reply");
        replies.push((word(0), payload.to_vec()));
        bytes = next;
    }
    replies
}

/// An eventfd that may be given away.
pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}
