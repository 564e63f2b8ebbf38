//! INIT: what guest and file system agree on.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::{Session, SessionOptions};
use crate::abi::InitOut;
use crate::cancel::HangUp;
use crate::filesystem::{Filesystem, Outcome, Refusal};
use crate::flags::InitFlags;
use crate::negotiated::Negotiated;
use crate::op::Init;
use crate::reply::ReplySpace;

/// The protocol's major version; there was never another one on virtio-fs.
const MAJOR: u32 = 7;

/// Pages of a request are counted in these units, in bytes.
const PAGE_BYTES: u32 = 4096;

impl<F: Filesystem> Session<F> {
    /// Begins a session; one that was there ends first, because its guest has rebooted.
    pub(super) fn init(&self, op: Init, reply: &mut ReplySpace<'_>) -> Outcome<usize> {
        if op.major > MAJOR {
            // The guest repeats INIT with our major version (fuse.h, "Protocol changelog").
            let answer = InitOut {
                major: MAJOR.into(),
                minor: u32::from(Negotiated::NEWEST_MINOR).into(),
                ..InitOut::default()
            };
            return put(reply, &answer);
        }
        if op.major < MAJOR || op.minor < Negotiated::LEAST_MINOR.into() {
            return Err(Refusal::Errno(Errno::PROTO));
        }
        if self.agreed().is_some() {
            self.end(HangUp::SessionEnded);
        }
        let minor = u8::try_from(op.minor)
            .unwrap_or(u8::MAX)
            .min(Negotiated::NEWEST_MINOR);
        let mut flags = op.offered & self.wanted();
        if flags.contains(InitFlags::HANDLE_KILLPRIV_V2) {
            // The first form asks for more than the second: agreed on together they contradict each other.
            flags.remove(InitFlags::HANDLE_KILLPRIV);
        }
        let negotiated = Negotiated { minor, flags };
        self.fs.begin(negotiated)?;
        self.negotiated
            .store(negotiated.to_bits(), Ordering::Release);
        put(reply, &answer(op, negotiated, self.options))
    }

    fn wanted(&self) -> InitFlags {
        // MAX_PAGES and INIT_EXT are about the form of messages, which is this crate's.
        self.fs.wanted() | InitFlags::MAX_PAGES | InitFlags::INIT_EXT | InitFlags::BIG_WRITES
    }
}

fn answer(op: Init, negotiated: Negotiated, options: SessionOptions) -> InitOut {
    let bits = negotiated.flags.bits();
    let low = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    let high = u32::try_from(bits >> 32).unwrap_or(0);
    let pages = u16::try_from(options.max_write_bytes / PAGE_BYTES).unwrap_or(u16::MAX);
    let readahead = options
        .max_readahead_bytes
        .unwrap_or(u32::MAX)
        .min(op.max_readahead);
    let congestion = options.max_background - options.max_background / 4;
    InitOut {
        major: MAJOR.into(),
        minor: u32::from(negotiated.minor).into(),
        max_readahead: readahead.into(),
        flags: low.into(),
        max_background: options.max_background.into(),
        congestion_threshold: congestion.into(),
        max_write: options.max_write_bytes.into(),
        time_gran: 1.into(),
        max_pages: pages.into(),
        flags2: high.into(),
        ..InitOut::default()
    }
}

fn put(reply: &mut ReplySpace<'_>, answer: &InitOut) -> Outcome<usize> {
    reply.put(answer).ok_or(Refusal::Errno(Errno::INVAL))
}
