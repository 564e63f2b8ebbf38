//! A guest's memory: each piece an allocation of its own, so that one byte too many is seen.

use virtiofs_protocol::{GuestPages, IoVec, Readable, ReplySpace, Writable};

/// Pieces of memory and the lists that name them.
#[derive(Debug)]
pub struct Memory {
    pieces: Vec<Vec<u8>>,
    front: Vec<IoVec>,
    behind: Vec<IoVec>,
}

impl Memory {
    /// Bytes that the guest made readable, cut every `cuts` bytes in turn.
    pub fn readable(bytes: &[u8], cuts: &[usize]) -> Self {
        let mut left = bytes;
        let pieces = lengths(bytes.len(), cuts).map(|len| {
            let (piece, behind) = left.split_at(len);
            left = behind;
            piece.to_vec()
        });
        Self::of(pieces.collect(), 0)
    }

    /// Room for a reply, filled with a byte that no reply consists of.
    pub fn room(len_bytes: usize, cuts: &[usize]) -> Self {
        let pieces = lengths(len_bytes, cuts).map(|len| vec![Self::UNTOUCHED; len]);
        Self::of(pieces.collect(), ReplySpace::HEADER_BYTES)
    }

    /// What room holds until something is written there.
    pub const UNTOUCHED: u8 = 0xa5;

    /// Names the pieces; those in front of `split` bytes apart from those behind.
    fn of(mut pieces: Vec<Vec<u8>>, split: usize) -> Self {
        let (mut front, mut behind, mut left) = (Vec::new(), Vec::new(), split);
        for piece in &mut pieces {
            let (base, len) = (piece.as_mut_ptr(), piece.len());
            let head = len.min(left);
            left -= head;
            if head > 0 {
                front.push(IoVec::new(base, head));
            }
            if head < len {
                behind.push(IoVec::new(base.wrapping_add(head), len - head));
            }
        }
        Self {
            pieces,
            front,
            behind,
        }
    }

    /// The readable pieces.
    pub fn payload(&mut self) -> GuestPages<'_, Readable> {
        // SAFETY: the pieces are allocations of `self`, which is borrowed for as long as the pages
        // live; nothing refers to their bytes meanwhile.
        unsafe { GuestPages::from_iovecs(&mut self.behind) }
    }

    /// The room.
    pub fn reply(&mut self) -> ReplySpace<'_> {
        // SAFETY: as in `payload`.
        let header = unsafe { GuestPages::<Writable>::from_iovecs(&mut self.front) };
        // SAFETY: as in `payload`.
        let body = unsafe { GuestPages::<Writable>::from_iovecs(&mut self.behind) };
        ReplySpace::new(header, body)
    }

    /// What the guest finds there.
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// Lengths of pieces that add up to `total`, taken from `cuts` over and over.
fn lengths(total: usize, cuts: &[usize]) -> impl Iterator<Item = usize> {
    let mut left = total;
    let mut cuts = cuts.iter().copied().chain(std::iter::once(total)).cycle();
    std::iter::from_fn(move || {
        let len = cuts.next().unwrap_or(total).min(left);
        left -= len;
        (len > 0 || left > 0).then_some(len)
    })
}
