//! One guest's session: INIT, the gates, and the one dispatch.
//!
//! Holds no lock while a request is served: what was negotiated is one word, and the table of
//! parked requests is touched only by requests that park.

mod dispatch;
mod init;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::cancel::HangUp;
use crate::filesystem::{Context, Filesystem, Patience, Refusal};
use crate::ids::NodeId;
use crate::malformed::Malformed;
use crate::negotiated::Negotiated;
use crate::op::{LockKind, Op};
use crate::opcode::Opcode;
use crate::request::{HEADER_BYTES, Head, Request};
use crate::waiting::{Claim, Ticket, Waiting};

/// Whether the guest may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// Every request that changes something is answered EROFS.
    ReadOnly,
}

/// Limits and gates of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Whether the guest may change anything.
    pub access: Access,
    /// Largest WRITE and READ, in bytes; a multiple of 4096, at most 1 MiB.
    pub max_write_bytes: u32,
    /// Most bytes read ahead by the guest; `None` leaves it to the guest.
    pub max_readahead_bytes: Option<u32>,
    /// Requests that the guest keeps in flight in the background; 0 leaves it to the guest.
    pub max_background: u16,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            max_write_bytes: 1 << 20,
            max_readahead_bytes: None,
            max_background: 0,
        }
    }
}

/// What became of a request.
#[derive(Debug)]
pub enum Served {
    /// It is answered: so many bytes were written for the guest.
    Replied {
        /// Header and body, in bytes; 0 when the guest left no room for a header.
        written_bytes: u32,
    },
    /// It has no answer.
    NoReply,
    /// It would sleep: nothing has happened yet, and [`Session::resume`] serves it.
    Parked(Ticket),
}

/// What became of a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Header and body, in bytes.
    pub written_bytes: u32,
}

/// A guest's session with a file system.
#[derive(Debug)]
pub struct Session<F> {
    fs: F,
    options: SessionOptions,
    /// [`Negotiated::to_bits`], zero before INIT.
    negotiated: AtomicU64,
    waiting: Waiting,
    malformed: AtomicU64,
}

/// How a request was answered inside this module.
enum Answer {
    Reply(Result<usize, Errno>),
    None,
    WouldSleep(crate::filesystem::Lane, Option<Claim>),
}

impl<F: Filesystem> Session<F> {
    /// Waits for a guest's INIT.
    pub fn new(fs: F, options: SessionOptions) -> Self {
        Self {
            fs,
            options,
            negotiated: AtomicU64::new(0),
            waiting: Waiting::default(),
            malformed: AtomicU64::new(0),
        }
    }

    /// Serves a request on a thread that must not sleep. Cannot fail: whatever is wrong is the answer.
    pub fn serve(&self, mut request: Request<'_>) -> Served {
        let unique = request.head.unique();
        match self.answer(&mut request, Patience::Never) {
            Answer::Reply(result) => Served::Replied {
                written_bytes: request.reply.finish(unique, result),
            },
            Answer::None => Served::NoReply,
            Answer::WouldSleep(lane, claim) => match self.waiting.park(unique, lane, claim) {
                Some(ticket) => Served::Parked(ticket),
                None => Served::Replied {
                    written_bytes: request.reply.finish(unique, Err(Errno::NOLCK)),
                },
            },
        }
    }

    /// Serves a parked request on a thread that may sleep; EINTR when it was interrupted before it began.
    ///
    /// A wait for a lock that is given up is answered EINTR, EBADF or ENOLCK: interrupted, its file
    /// closed, the connection gone.
    pub fn resume(&self, mut request: Request<'_>, ticket: Ticket) -> Completed {
        let unique = request.head.unique();
        let result = match ticket.refusal() {
            Some(errno) => Err(errno),
            None => match self.answer(&mut request, Patience::Until(ticket.cancel())) {
                Answer::Reply(result) => result,
                // Requests without a reply never park, and a patient thread may sleep.
                Answer::None | Answer::WouldSleep(..) => Err(Errno::IO),
            },
        };
        self.waiting.leave(&ticket);
        Completed {
            written_bytes: request.reply.finish(unique, result),
        }
    }

    /// Answers a parked request without serving it, because the connection is coming down: EIO, and ENOLCK to
    /// a wait for a lock.
    pub fn abandon(&self, request: Request<'_>, ticket: Ticket) -> Completed {
        self.waiting.leave(&ticket);
        Completed {
            written_bytes: request
                .reply
                .finish(request.head.unique(), Err(ticket.abandoned())),
        }
    }

    /// Gives up all waits; their requests complete soon after.
    pub fn cancel_all(&self, _why: HangUp) {
        if self.waiting.hang_up() {
            self.fs.look_again();
        }
    }

    /// Gives up the waits for locks, because a queue stops: they may never end by themselves.
    pub fn cancel_lock_waits(&self) {
        if self.waiting.hang_up_locks() {
            self.fs.look_again();
        }
    }

    /// Lets so many requests wait for locks at once, at most [`MOST_LOCK_WAITS`](crate::MOST_LOCK_WAITS); ENOLCK
    /// beyond. Those who wait keep their place.
    pub fn set_most_lock_waits(&self, most: usize) {
        self.waiting.set_most_claims(most);
    }

    /// Ends the session: nodes, files and locks go, and the next INIT begins another one.
    pub fn end(&self, why: HangUp) {
        self.cancel_all(why);
        self.negotiated.store(0, Ordering::Release);
        self.fs.end(why);
    }

    /// Does what requests have put off: to be called by a queue's thread before it sleeps.
    ///
    /// Returns how long it may sleep at most before it calls again; `None` is as long as it likes.
    pub fn rest(&self) -> Option<Duration> {
        self.fs.rest()
    }

    /// How many requests made no sense since the start.
    pub fn malformed_count(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// The file system served.
    pub fn filesystem(&self) -> &F {
        &self.fs
    }

    fn agreed(&self) -> Option<Negotiated> {
        Negotiated::from_bits(self.negotiated.load(Ordering::Acquire))
    }

    fn answer(&self, request: &mut Request<'_>, patience: Patience<'_>) -> Answer {
        let Some(opcode) = Opcode::from_wire(request.head.header.opcode.get()) else {
            return Answer::Reply(Err(Errno::NOSYS));
        };
        match self.parsed(opcode, request) {
            Err(malformed) => {
                self.malformed.fetch_add(1, Ordering::Relaxed);
                if matches!(
                    opcode,
                    Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt
                ) {
                    // No reply is expected, so none is written, whatever was wrong.
                    Answer::None
                } else {
                    Answer::Reply(Err(malformed.errno()))
                }
            }
            Ok((op, negotiated)) => self.served(op, negotiated, request, patience),
        }
    }

    /// Reads the request and passes it through the gates that need no file system.
    fn parsed<'a>(
        &self,
        opcode: Opcode,
        request: &mut Request<'a>,
    ) -> Result<(Op<'a>, Negotiated), Malformed> {
        let head = &request.head;
        let payload_bytes = check_length(head, request.payload.len_bytes())?;
        request.payload.truncate(payload_bytes);
        let agreed = match (opcode, self.agreed()) {
            (Opcode::Init, agreed) => agreed.unwrap_or(Negotiated {
                minor: 0,
                flags: Default::default(),
            }),
            (_, Some(agreed)) => agreed,
            (_, None) => return Err(Malformed::OutOfOrder),
        };
        let op = Op::parse(opcode, &head.header, head.arguments, agreed.flags)?;
        let (have, need) = (request.reply.body_bytes(), dispatch::fixed_reply_bytes(&op));
        if have < need {
            // Told before anything happens: an entry that cannot be answered would be counted in vain.
            return Err(Malformed::ReplySpace { have, need });
        }
        Ok((op, agreed))
    }

    fn served(
        &self,
        op: Op<'_>,
        negotiated: Negotiated,
        request: &mut Request<'_>,
        patience: Patience<'_>,
    ) -> Answer {
        let cx = Context {
            unique: request.head.unique(),
            caller: request.head.caller(),
            negotiated,
            patience,
        };
        if let Op::Forget(op) = op {
            self.fs.forget(request.head.node(), op.count);
        } else if let Op::BatchForget(op) = op {
            op.nodes()
                .for_each(|(node, count)| self.fs.forget(node, count));
        } else if let Op::Interrupt(op) = op {
            if self.waiting.interrupt(op.target) {
                self.fs.look_again();
            }
        } else {
            let node = request.head.node();
            self.close_waits(node, &op);
            let claim = claim(node, &op);
            return match self.dispatch(&cx, op, request) {
                Ok(body_bytes) => Answer::Reply(Ok(body_bytes)),
                Err(Refusal::Errno(errno)) => Answer::Reply(Err(errno)),
                Err(Refusal::WouldSleep(lane)) => Answer::WouldSleep(lane, claim),
            };
        }
        Answer::None
    }

    /// Gives up the waits that a FLUSH or a RELEASE ends.
    fn close_waits(&self, node: NodeId, op: &Op<'_>) {
        let any = if let Op::Flush(flush) = op {
            self.waiting.close(|claim| {
                let key = (claim.node, claim.owner, claim.kind);
                key == (node, flush.owner, LockKind::Posix)
            })
        } else if let Op::Release(release) = op {
            self.waiting.close(|claim| claim.file == release.file)
        } else {
            false
        };
        if any {
            self.fs.look_again();
        }
    }
}

/// The lock that a request may wait for.
fn claim(node: NodeId, op: &Op<'_>) -> Option<Claim> {
    let Op::Setlkw(lock) = op else { return None };
    Some(Claim {
        node,
        file: lock.file,
        owner: lock.owner,
        kind: lock.kind,
    })
}

/// The header's length must cover itself and not exceed the message; what lies behind is ignored.
///
/// Returns how many bytes of payload belong to the request.
fn check_length(head: &Head<'_>, payload_bytes: usize) -> Result<usize, Malformed> {
    let stated = head.header.len.get();
    let readable = HEADER_BYTES + head.arguments.len() + payload_bytes;
    match usize::try_from(stated) {
        Ok(len) if len >= HEADER_BYTES && len <= readable => {}
        _ => return Err(Malformed::Length { stated, readable }),
    }
    let limit = Opcode::from_wire(head.header.opcode.get()).map_or(0, Opcode::most_argument_bytes);
    let is_write = head.header.opcode.get() == Opcode::Write as u32;
    let have = usize::try_from(stated).unwrap_or(usize::MAX) - HEADER_BYTES;
    if have > limit && !is_write {
        return Err(Malformed::Oversized { have, limit });
    }
    Ok(have.saturating_sub(head.arguments.len()))
}
