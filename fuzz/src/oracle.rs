//! What holds for every reply, whatever was asked.

use crate::guest::Memory;

/// A reply as the guest reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Zero, or the error number.
    pub errno: i32,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// Reads a reply out of the guest's room and checks its form.
///
/// `None` is the empty completion of a request without room for a header.
///
/// # Panics
///
/// When the length does not fit the room, the header does not state it, the number is another
/// request's, the error is none of Linux's, or an error has a body.
pub fn reply(written_bytes: u32, unique: u64, room: &Memory) -> Option<Reply> {
    let room = room.bytes();
    let written = usize::try_from(written_bytes).expect("a length fits a usize");
    assert!(written <= room.len(), "{written} bytes in {}", room.len());
    if written == 0 {
        assert!(
            room.len() < 16,
            "an empty completion, but room for a header"
        );
        return None;
    }
    let field = |at: usize| u32::from_ne_bytes(room[at..at + 4].try_into().expect("four bytes"));
    assert!(written >= 16, "{written} bytes hold no header");
    assert_eq!(field(0), written_bytes, "the header states another length");
    let number = u64::from_ne_bytes(room[8..16].try_into().expect("eight bytes"));
    assert_eq!(number, unique, "the reply is another request's");
    let errno = i32::from_ne_bytes(room[4..8].try_into().expect("four bytes"))
        .checked_neg()
        .expect("an error number");
    // Linux refuses replies outside 0..512 (fs/fuse/dev.c), so 512 and more would hang a caller.
    assert!((0..512).contains(&errno), "error {errno}");
    assert!(errno == 0 || written == 16, "error {errno} with a body");
    Some(Reply {
        errno,
        body: room[16..written].to_vec(),
    })
}
