//! Guest memory as lists of pages, never as Rust references.
//!
//! The guest may write to its memory at any moment, so no `&[u8]` to it may exist: what is needed
//! for decisions is copied out once, and file contents go straight between the kernel and the
//! pages named here. This is one of the four modules that may use `unsafe`.
#![expect(
    unsafe_code,
    reason = "guest memory is reached through raw pointers, here and in device::memory only"
)]

use std::marker::PhantomData;
use std::ptr;

/// A contiguous piece of guest memory, laid out as `struct iovec` (man 3type iovec).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct IoVec {
    base: *mut u8,
    len: usize,
}

impl Default for IoVec {
    fn default() -> Self {
        Self::new(std::ptr::null_mut(), 0)
    }
}

impl IoVec {
    /// Names `len` bytes at `base`. Safe, because only [`GuestPages::from_iovecs`] gives it a meaning.
    pub const fn new(base: *mut u8, len: usize) -> Self {
        Self { base, len }
    }

    /// First byte.
    pub const fn base(self) -> *mut u8 {
        self.base
    }

    /// Length in bytes.
    pub const fn len_bytes(self) -> usize {
        self.len
    }
}

// SAFETY: an `IoVec` is a pair of numbers; whoever makes pages of it vouches for the memory,
// which is shared with another machine anyway and belongs to no thread.
unsafe impl Send for IoVec {}
// SAFETY: as above; a shared `IoVec` gives no access by itself.
unsafe impl Sync for IoVec {}

/// Pages that the guest made readable for the device: the data of a WRITE.
#[derive(Debug)]
pub enum Readable {}

/// Pages that the guest made writable for the device: room for a reply.
#[derive(Debug)]
pub enum Writable {}

/// A list of pieces of guest memory that stay mapped for `'a`.
#[derive(Debug)]
pub struct GuestPages<'a, Access> {
    iovecs: &'a mut [IoVec],
    _access: PhantomData<Access>,
}

impl<'a, Access> GuestPages<'a, Access> {
    /// Takes pieces of guest memory. The list is scratch: it may be cut in place.
    ///
    /// # Safety
    ///
    /// Each piece is mapped, readable (and writable, for [`Writable`]) for `'a`, and no Rust
    /// reference to any byte of it exists during `'a`.
    pub unsafe fn from_iovecs(iovecs: &'a mut [IoVec]) -> Self {
        Self {
            iovecs,
            _access: PhantomData,
        }
    }

    /// Takes a buffer of our own as if it were guest memory; `piece` is scratch.
    pub fn from_bytes(bytes: &'a mut [u8], piece: &'a mut IoVec) -> Self {
        *piece = IoVec::new(bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the buffer is borrowed for writing and alone for `'a`, so it is mapped, and no
        // other reference to it exists.
        unsafe { Self::from_iovecs(std::slice::from_mut(piece)) }
    }

    /// No pages at all.
    pub fn none() -> Self {
        Self {
            iovecs: &mut [],
            _access: PhantomData,
        }
    }

    /// Sum of the pieces' lengths, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.iovecs
            .iter()
            .fold(0, |sum, piece| sum.saturating_add(piece.len))
    }

    /// The pieces, for a vectored system call. Its length may exceed `IOV_MAX`.
    pub fn iovecs(&self) -> &[IoVec] {
        self.iovecs
    }

    /// Cuts the list to its first `len_bytes` bytes.
    pub fn truncate(&mut self, len_bytes: usize) {
        let mut left = len_bytes;
        let mut keep = 0;
        for piece in self.iovecs.iter_mut() {
            if left == 0 {
                break;
            }
            piece.len = piece.len.min(left);
            left -= piece.len;
            keep += 1;
        }
        let iovecs = std::mem::take(&mut self.iovecs);
        self.iovecs = &mut iovecs[..keep];
    }

    /// The same pages for a shorter time; cutting the copy cuts this list, too.
    pub fn reborrow(&mut self) -> GuestPages<'_, Access> {
        GuestPages {
            iovecs: self.iovecs,
            _access: PhantomData,
        }
    }
}

impl GuestPages<'_, Readable> {
    /// Copies from the front into `to`, as many bytes as both have; returns the count.
    pub fn copy_out(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.iovecs.iter() {
            let count = piece.len.min(to.len() - done);
            let to = &mut to[done..done + count];
            // SAFETY: by the contract of `from_iovecs` the piece is mapped and readable, and it
            // cannot overlap `to`, which is a Rust reference. A guest that writes meanwhile only
            // changes which of its bytes arrive.
            unsafe { ptr::copy_nonoverlapping(piece.base.cast_const(), to.as_mut_ptr(), count) };
            done += count;
        }
        done
    }
}

/// Writes bytes one after the other into the guest's pages.
#[derive(Debug)]
pub struct PageWriter<'a> {
    pages: GuestPages<'a, Writable>,
    piece: usize,
    offset: usize,
    written: usize,
    room: usize,
}

impl<'a> PageWriter<'a> {
    /// Starts at the first byte.
    pub fn new(pages: GuestPages<'a, Writable>) -> Self {
        let room = pages.len_bytes();
        Self {
            pages,
            piece: 0,
            offset: 0,
            written: 0,
            room,
        }
    }

    /// Bytes that still fit.
    pub fn room_bytes(&self) -> usize {
        self.room - self.written
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> usize {
        self.written
    }

    /// Writes `bytes`, or nothing and returns false when they do not fit.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room_bytes() {
            return false;
        }
        let mut left = bytes;
        while !left.is_empty() {
            let target = self.pages.iovecs[self.piece];
            let count = (target.len - self.offset).min(left.len());
            // SAFETY: `offset` is at most the piece's length, so the address lies in the piece or
            // just behind it.
            let to = unsafe { target.base.add(self.offset) };
            // SAFETY: by the contract of `from_iovecs` the piece is mapped and writable, `count`
            // ends inside it, and no Rust reference overlaps it.
            unsafe { ptr::copy_nonoverlapping(left.as_ptr(), to, count) };
            left = &left[count..];
            self.offset += count;
            self.written += count;
            if self.offset == target.len {
                self.piece += 1;
                self.offset = 0;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(memory: &mut [u8], lengths: &[usize]) -> Vec<IoVec> {
        let mut at = 0;
        let base = memory.as_mut_ptr();
        lengths
            .iter()
            .map(|&len| {
                let piece = IoVec::new(base.wrapping_add(at), len);
                at += len;
                piece
            })
            .collect()
    }

    #[test]
    fn bytes_arrive_in_order_however_the_guest_cut_its_memory() {
        for lengths in [&[16][..], &[1, 15], &[0, 3, 0, 13], &[4, 4, 4, 4]] {
            let mut memory = [0_u8; 16];
            let mut iovecs = pieces(&mut memory, lengths);
            // SAFETY: the pieces lie in `memory`, which is only looked at after the last use.
            let mut writer = PageWriter::new(unsafe { GuestPages::from_iovecs(&mut iovecs) });
            assert!(writer.push(b"0123456"));
            assert!(
                !writer.push(b"789abcdefg"),
                "ten bytes do not fit into nine"
            );
            assert!(writer.push(b"789abcdef"));
            assert_eq!(writer.room_bytes(), 0);
            assert_eq!(&memory, b"0123456789abcdef", "{lengths:?}");
        }
    }

    #[test]
    fn truncating_keeps_the_front() {
        let mut memory = *b"0123456789abcdef";
        for len in 0..=20 {
            let mut iovecs = pieces(&mut memory, &[4, 0, 8, 4]);
            // SAFETY: the pieces lie in `memory`, to which no reference is used meanwhile.
            let mut pages = unsafe { GuestPages::<Readable>::from_iovecs(&mut iovecs) };
            pages.truncate(len);
            assert_eq!(pages.len_bytes(), len.min(16));
            let mut copy = [0; 16];
            let count = pages.copy_out(&mut copy);
            assert_eq!(&copy[..count], &b"0123456789abcdef"[..len.min(16)]);
        }
    }
}
