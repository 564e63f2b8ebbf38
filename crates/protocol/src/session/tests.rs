//! A guest in memory asks, a session over a stub answers.

mod gates;
mod init;
mod parking;
mod replies;

use zerocopy::{FromBytes, IntoBytes};

use super::stub::Stub;
use super::*;
use crate::abi::{InHeader, OutHeader};
use crate::flags::InitFlags;
use crate::request::arguments_len;
use crate::testing::Memory;
use crate::testing::golden::{self, Bytes};

const UNIQUE: u64 = 0x1234_5678_9abc;
const NODE: u64 = 3;
/// Room enough for every reply of these tests, in bytes.
const ROOM: usize = 16 + 8192;

/// A request as a guest puts it into memory.
#[derive(Clone, Debug)]
struct Message {
    opcode: u32,
    arguments: Vec<u8>,
    payload_bytes: usize,
    /// `len` of the header; `None` is the truth.
    stated_len: Option<u32>,
    unique: u64,
    room_bytes: usize,
}

impl Message {
    fn new(opcode: Opcode, arguments: Bytes) -> Self {
        Self {
            opcode: opcode as u32,
            arguments: arguments.0,
            payload_bytes: 0,
            stated_len: None,
            unique: UNIQUE,
            room_bytes: ROOM,
        }
    }

    /// The golden request of a kind.
    fn golden(opcode: Opcode) -> Self {
        let golden = golden::of(opcode);
        Self {
            payload_bytes: golden.payload_bytes,
            ..Self::new(opcode, golden.arguments)
        }
    }

    fn room(self, room_bytes: usize) -> Self {
        Self { room_bytes, ..self }
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        let truth = HEADER_BYTES + self.arguments.len() + self.payload_bytes;
        let header = InHeader {
            len: self
                .stated_len
                .unwrap_or(u32::try_from(truth).unwrap())
                .into(),
            opcode: self.opcode.into(),
            unique: self.unique.into(),
            nodeid: NODE.into(),
            ..InHeader::default()
        };
        header.as_bytes().try_into().unwrap()
    }

    /// Lays the request out as the device does, hands it to `serve`, and looks at the reply's room.
    fn with<T>(&self, serve: impl FnOnce(Request<'_>) -> T) -> (T, Vec<u8>) {
        let header = self.header();
        let readable = HEADER_BYTES + self.arguments.len() + self.payload_bytes;
        let copied = arguments_len(&header, readable).min(self.arguments.len());
        let behind = self.arguments.len() - copied + self.payload_bytes;
        let mut payload = Memory::filled(&[16, behind], b'W');
        let mut room = Memory::filled(&[self.room_bytes], 0xAA);
        let served = serve(Request {
            head: Head::new(&header, &self.arguments[..copied]),
            payload: payload.payload(),
            reply: room.reply(),
        });
        (served, room.bytes())
    }

    fn serve(&self, session: &Session<Stub>) -> Answered {
        let (served, room) = self.with(|request| session.serve(request));
        match served {
            Served::Replied { written_bytes } => Answered::read(written_bytes, &room),
            Served::NoReply => {
                assert!(
                    room.iter().all(|byte| *byte == 0xAA),
                    "written without a reply"
                );
                Answered::NoReply
            }
            Served::Parked(ticket) => panic!("parked: {ticket:?}"),
        }
    }
}

/// What the guest finds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answered {
    /// Success, and the body.
    Body(Vec<u8>),
    Error(Errno),
    /// A completion of length zero that touched nothing.
    Empty,
    NoReply,
}

impl Answered {
    /// Checks what holds for every reply: exact length, the request's number, nothing behind it.
    fn read(written_bytes: u32, room: &[u8]) -> Self {
        let written = usize::try_from(written_bytes).unwrap();
        if written == 0 {
            assert!(
                room.iter().all(|byte| *byte == 0xAA),
                "an empty completion wrote"
            );
            return Self::Empty;
        }
        let (header, body) = OutHeader::read_from_prefix(&room[..written]).unwrap();
        assert_eq!(header.len.get(), written_bytes);
        assert_eq!(header.unique.get(), UNIQUE);
        match header.error.get() {
            0 => Self::Body(body.to_vec()),
            error => {
                assert_eq!(written, 16, "an error has no body");
                Self::Error(Errno::from_raw_os_error(-error))
            }
        }
    }

    fn body_bytes(&self) -> Option<usize> {
        match self {
            Self::Body(body) => Some(body.len()),
            Self::Error(_) | Self::Empty | Self::NoReply => None,
        }
    }
}

/// A session before INIT.
fn fresh(access: Access) -> Session<Stub> {
    let options = SessionOptions {
        access,
        ..SessionOptions::default()
    };
    Session::new(Stub::default(), options)
}

/// A session after INIT, in which locks were agreed on as well.
fn active(access: Access) -> Session<Stub> {
    let session = after_init(access);
    let agreed = session.agreed().unwrap();
    let with_locks = Negotiated {
        flags: agreed.flags | InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS,
        ..agreed
    };
    let bits = with_locks.to_bits();
    session.negotiated.store(bits, Ordering::Relaxed);
    session
}

/// A session after INIT.
fn after_init(access: Access) -> Session<Stub> {
    let session = fresh(access);
    let answered = Message::golden(Opcode::Init).serve(&session);
    assert_eq!(answered.body_bytes(), Some(64));
    session.filesystem().calls();
    session
}

fn has_no_reply(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt
    )
}
