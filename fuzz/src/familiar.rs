//! What a guest of one request knows already: a few files, one of them open.
//!
//! A fuzzer cannot guess the numbers that a daemon gives. So small numbers in its request stand for what was looked up
//! and opened before, which is done when the request names it.

use virtiofs_hostfs::PassthroughFs;
use virtiofs_protocol::{HEADER_BYTES, Opcode, Session, fuzzing};

use crate::serving::{Layout, serve};
use crate::wire::{longs, words};

/// Nodes by number, from 2 on: a name in the root. 1 is the root itself.
const NODES: [&str; 5] = ["file", "dir", "link", "pipe", "abs"];
const ROOT: u64 = 1;

/// Most bytes of a request's wishes that are granted: what allocates is done for real.
const MOST_ALLOCATED: u64 = 1 << 20;

/// A guest's knowledge.
#[derive(Debug)]
pub struct Familiar<'a> {
    session: &'a Session<PassthroughFs>,
}

impl<'a> Familiar<'a> {
    /// A guest that has begun its session.
    pub fn new(session: &'a Session<PassthroughFs>) -> Self {
        Self { session }
    }

    /// Puts true numbers into a message for the small ones that stand for them.
    pub fn name_in(&self, message: &mut [u8]) {
        let Some((header, arguments)) = message.split_first_chunk_mut::<HEADER_BYTES>() else {
            return;
        };
        let opcode = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        replace(header, 16, |node| self.node(node));
        match Opcode::from_wire(opcode) {
            Some(Opcode::Opendir | Opcode::Statfs | Opcode::Forget | Opcode::Lookup) | None => {}
            Some(Opcode::Readdir | Opcode::Readdirplus | Opcode::Releasedir | Opcode::Fsyncdir) => {
                replace(arguments, 0, |_| self.opened(Opcode::Opendir, ROOT));
            }
            Some(Opcode::Link | Opcode::Rename | Opcode::Rename2) => {
                replace(arguments, 0, |node| self.node(node));
            }
            Some(Opcode::Getattr | Opcode::Setattr | Opcode::Statx) => {
                replace(arguments, 8, |handle| self.handle(handle));
            }
            Some(Opcode::CopyFileRange | Opcode::CopyFileRange64) => {
                replace(arguments, 0, |handle| self.handle(handle));
                replace(arguments, 16, |node| self.node(node));
                replace(arguments, 24, |handle| self.handle(handle));
            }
            Some(Opcode::Fallocate) => {
                replace(arguments, 0, |handle| self.handle(handle));
                replace(arguments, 16, |len| len.min(MOST_ALLOCATED));
            }
            Some(
                Opcode::Read
                | Opcode::Write
                | Opcode::Release
                | Opcode::Flush
                | Opcode::Fsync
                | Opcode::Lseek
                | Opcode::Ioctl
                | Opcode::Getlk
                | Opcode::Setlk
                | Opcode::Setlkw,
            ) => replace(arguments, 0, |handle| self.handle(handle)),
            Some(_) => {}
        }
    }

    fn node(&self, number: u64) -> u64 {
        let place = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(2));
        match place.and_then(|place| NODES.get(place)) {
            Some(name) => self.looked_up(name),
            None => number,
        }
    }

    fn looked_up(&self, name: &str) -> u64 {
        let name = [name.as_bytes(), &[0]].concat();
        self.ask(Opcode::Lookup, ROOT, &name)
    }

    /// Every number but zero and the largest is the open file's.
    fn handle(&self, number: u64) -> u64 {
        match number {
            0 | u64::MAX => number,
            _ => self.opened(Opcode::Open, self.looked_up("file")),
        }
    }

    fn opened(&self, opcode: Opcode, node: u64) -> u64 {
        const READ_WRITE: u32 = 2;
        self.ask(opcode, node, &words(&[READ_WRITE, 0]))
    }

    /// The first number of a reply, zero where there is none.
    fn ask(&self, opcode: Opcode, node: u64, arguments: &[u8]) -> u64 {
        let message = fuzzing::message(opcode, node, arguments);
        let reply = serve(self.session, Layout::WHOLE, &message).reply();
        let number = reply.and_then(|reply| Some(*reply.body.first_chunk()?));
        number.map_or(0, u64::from_ne_bytes)
    }
}

/// Puts another number in the place of one, where there is one.
fn replace(bytes: &mut [u8], at: usize, other: impl FnOnce(u64) -> u64) {
    if let Some(number) = bytes.get_mut(at..at + 8) {
        let read = u64::from_ne_bytes(number.try_into().expect("eight bytes"));
        number.copy_from_slice(&longs(&[other(read)]));
    }
}
