//! A request laid out in a guest's memory as the device does it, served, and its reply read back.

use virtiofs_protocol::{
    Filesystem, HEADER_BYTES, HangUp, Head, Request, Served, Session, arguments_len,
};

use crate::guest::Memory;
use crate::oracle::{self, Reply};

/// How a guest cuts its memory into pieces, and what it does while it waits.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Room for the reply, in bytes.
    pub room_bytes: usize,
    /// Where readable memory is cut.
    pub cuts: &'static [usize],
    /// Where the room is cut.
    pub reply_cuts: &'static [usize],
    /// What becomes of a request that is parked.
    pub parked: Parked,
}

/// What becomes of a request that is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// It is served again.
    Resumes,
    /// The connection comes down, and then it is.
    HangsUp,
    /// The connection comes down, and nobody is left to serve it.
    IsAbandoned,
}

impl Layout {
    /// Memory in one piece, and room for what is asked for mostly.
    pub const WHOLE: Self = Self {
        room_bytes: 16 + 8192,
        cuts: &[],
        reply_cuts: &[],
        parked: Parked::Resumes,
    };
}

/// What the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A reply of proper form; `None` where there was no room for its header.
    Reply(Option<Reply>),
    /// Nothing, as nobody waits.
    Nothing,
    /// The device has refused the chain: less than a header.
    Short,
}

impl Answered {
    /// The reply, where there is one.
    pub fn reply(self) -> Option<Reply> {
        match self {
            Self::Reply(reply) => reply,
            Self::Nothing | Self::Short => None,
        }
    }
}

/// Has a message served, and served again where it was parked.
///
/// # Panics
///
/// When the reply has no proper form, or room was written to without a reply.
pub fn serve<F: Filesystem>(session: &Session<F>, layout: Layout, message: &[u8]) -> Answered {
    let Some((header, behind)) = message.split_first_chunk::<HEADER_BYTES>() else {
        return Answered::Short;
    };
    let len = arguments_len(header, message.len());
    assert!(len <= behind.len(), "more arguments than there are bytes");
    let (arguments, data) = behind.split_at(len);
    let head = Head::new(header, arguments);
    let unique = head.unique().raw();
    let mut payload = Memory::readable(data, layout.cuts);
    let mut room = Memory::room(layout.room_bytes, layout.reply_cuts);
    let served = session.serve(Request {
        head,
        payload: payload.payload(),
        reply: room.reply(),
    });
    let ticket = match served {
        Served::Replied { written_bytes } => {
            return Answered::Reply(oracle::reply(written_bytes, unique, &room));
        }
        Served::NoReply => {
            assert!(room.bytes().iter().all(|byte| *byte == Memory::UNTOUCHED));
            return Answered::Nothing;
        }
        Served::Parked(ticket) => ticket,
    };
    if layout.parked != Parked::Resumes {
        session.cancel_lock_waits();
        session.cancel_all(HangUp::Disconnected);
    }
    // A parked chain is served from the same bytes, with the same room.
    let mut payload = Memory::readable(data, layout.cuts);
    let mut room = Memory::room(layout.room_bytes, layout.reply_cuts);
    let request = Request {
        head,
        payload: payload.payload(),
        reply: room.reply(),
    };
    let completed = match layout.parked {
        Parked::Resumes | Parked::HangsUp => session.resume(request, ticket),
        Parked::IsAbandoned => session.abandon(request, ticket),
    };
    let reply = oracle::reply(completed.written_bytes, unique, &room);
    // EIO, or ENOLCK for a wait for a lock.
    let is_given_up = reply
        .as_ref()
        .is_none_or(|reply| matches!(reply.errno, 5 | 37));
    assert!(
        layout.parked == Parked::Resumes || is_given_up,
        "served for nobody: {:?}",
        reply.map(|reply| reply.errno)
    );
    Answered::Reply(reply)
}
