//! An in-memory guest for this crate's tests.
#![expect(
    unsafe_code,
    reason = "tests make guest pages out of a vector of their own"
)]

pub(crate) mod golden;

use crate::pages::{GuestPages, IoVec, Readable};
use crate::reply::ReplySpace;

/// Guest memory cut into pieces of the given lengths.
pub(crate) struct Memory {
    bytes: Vec<u8>,
    header: Vec<IoVec>,
    body: Vec<IoVec>,
}

impl Memory {
    pub(crate) fn new(cuts: &[usize]) -> Self {
        Self::filled(cuts, 0)
    }

    pub(crate) fn filled(cuts: &[usize], byte: u8) -> Self {
        let mut bytes = vec![byte; cuts.iter().sum()];
        let base = bytes.as_mut_ptr();
        let (mut header, mut body) = (Vec::new(), Vec::new());
        let mut at = 0;
        for &len in cuts {
            let end = at + len;
            let split = end.min(ReplySpace::HEADER_BYTES).max(at);
            if split > at {
                header.push(IoVec::new(base.wrapping_add(at), split - at));
            }
            if end > split {
                body.push(IoVec::new(base.wrapping_add(split), end - split));
            }
            at = end;
        }
        Self {
            bytes,
            header,
            body,
        }
    }

    pub(crate) fn reply(&mut self) -> ReplySpace<'_> {
        // SAFETY: the pieces lie in `bytes`, which lives as long as the borrow and is not
        // referenced meanwhile.
        let header = unsafe { GuestPages::from_iovecs(&mut self.header) };
        // SAFETY: as above.
        let body = unsafe { GuestPages::from_iovecs(&mut self.body) };
        ReplySpace::new(header, body)
    }

    pub(crate) fn payload(&mut self) -> GuestPages<'_, Readable> {
        // SAFETY: as above.
        unsafe { GuestPages::from_iovecs(&mut self.body) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }
}
