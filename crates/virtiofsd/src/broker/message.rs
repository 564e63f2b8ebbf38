//! What server and broker say to one another: one packet of fixed size each way, read once and copied out of nothing.
//!
//! The server may have been taken over, so a request is taken apart as bytes from a stranger are. The numbers are in
//! the machine's order: both ends are one program.

use rustix::io::Errno;

/// Every request's size.
pub(super) const REQUEST_BYTES: usize = 4096;
/// Every reply's size.
pub(super) const REPLY_BYTES: usize = 160;
/// What stands before the body: two words and the body's length.
const HEADER_BYTES: usize = 12;
/// Longest body of a request.
#[cfg(test)]
pub(super) const MOST_BODY_BYTES: usize = REQUEST_BYTES - HEADER_BYTES;
/// Longest body of a reply: a signed handle.
#[cfg(test)]
pub(super) const MOST_ANSWER_BYTES: usize = REPLY_BYTES - 8;

const MAKE: u32 = 1;
const OPEN: u32 = 2;

/// What the server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// A handle of what stands at the end of a path below the share.
    Make { path: &'a [u8] },
    /// What a signed handle finds, opened with these flags.
    Open { flags: u32, handle: &'a [u8] },
}

impl<'a> Request<'a> {
    /// Takes a packet apart. `None` for anything that is no request.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        if packet.len() != REQUEST_BYTES {
            return None;
        }
        let (what, rest) = word(packet)?;
        let (flags, rest) = word(rest)?;
        let (len_bytes, rest) = word(rest)?;
        let body = rest.get(..usize::try_from(len_bytes).ok()?)?;
        match what {
            MAKE if flags == 0 => Some(Self::Make { path: body }),
            OPEN => Some(Self::Open {
                flags,
                handle: body,
            }),
            _ => None,
        }
    }

    /// Puts it into a packet. `None` when it does not fit.
    pub(super) fn packet(self) -> Option<[u8; REQUEST_BYTES]> {
        let (what, flags, body) = match self {
            Self::Make { path } => (MAKE, 0, path),
            Self::Open { flags, handle } => (OPEN, flags, handle),
        };
        let mut packet = [0; REQUEST_BYTES];
        let len_bytes = u32::try_from(body.len()).ok()?;
        for (at, number) in [what, flags, len_bytes].into_iter().enumerate() {
            packet[at * 4..at * 4 + 4].copy_from_slice(&number.to_ne_bytes());
        }
        packet[HEADER_BYTES..]
            .get_mut(..body.len())?
            .copy_from_slice(body);
        Some(packet)
    }
}

/// What the broker answers; a descriptor may come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// It was done. With a handle, where one was asked for.
    Done(&'a [u8]),
    /// It was not.
    Refused(Errno),
}

impl<'a> Reply<'a> {
    /// Takes a packet apart. `None` for anything that is no reply.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        if packet.len() != REPLY_BYTES {
            return None;
        }
        let (errno, rest) = word(packet)?;
        let (len_bytes, rest) = word(rest)?;
        if errno != 0 {
            return Some(Self::Refused(Errno::from_raw_os_error(
                i32::try_from(errno).ok()?,
            )));
        }
        rest.get(..usize::try_from(len_bytes).ok()?).map(Self::Done)
    }

    /// Puts it into a packet. `None` when it does not fit.
    pub(super) fn packet(self) -> Option<[u8; REPLY_BYTES]> {
        let mut packet = [0; REPLY_BYTES];
        let (errno, body): (i32, &[u8]) = match self {
            Self::Done(body) => (0, body),
            Self::Refused(errno) => (errno.raw_os_error(), &[]),
        };
        packet[..4].copy_from_slice(&errno.to_ne_bytes());
        packet[4..8].copy_from_slice(&u32::try_from(body.len()).ok()?.to_ne_bytes());
        packet[8..].get_mut(..body.len())?.copy_from_slice(body);
        Some(packet)
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let long = [b'a'; MOST_BODY_BYTES];
        for request in [
            Request::Make { path: b"" },
            Request::Make { path: b"d/file" },
            Request::Make { path: &long },
            Request::Open {
                flags: u32::MAX,
                handle: &[0xff; 200],
            },
        ] {
            let packet = request.packet().unwrap();
            assert_eq!(Request::parse(&packet), Some(request));
        }
        let too_long = [b'a'; MOST_BODY_BYTES + 1];
        assert!(Request::Make { path: &too_long }.packet().is_none());
        let handle = [7; MOST_ANSWER_BYTES];
        for reply in [
            Reply::Done(b""),
            Reply::Done(&handle),
            Reply::Refused(Errno::STALE),
        ] {
            assert_eq!(Reply::parse(&reply.packet().unwrap()), Some(reply));
        }
        assert!(Reply::Done(&[7; MOST_ANSWER_BYTES + 1]).packet().is_none());
    }

    #[test]
    fn what_is_no_request_is_none() {
        let with = |words: [u32; 3]| {
            let mut packet = vec![0; REQUEST_BYTES];
            for (at, word) in words.iter().enumerate() {
                packet[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            packet
        };
        let most = u32::try_from(MOST_BODY_BYTES).unwrap();
        for words in [
            [0, 0, 0],
            [3, 0, 0],
            [u32::MAX, 0, 0],
            [MAKE, 1, 0],
            [MAKE, 0, most + 1],
            [OPEN, 0, most + 1],
            [OPEN, 0, u32::MAX],
        ] {
            assert_eq!(Request::parse(&with(words)), None, "{words:?}");
        }
        let good = with([MAKE, 0, most]);
        assert!(Request::parse(&good).is_some());
        for len in [0, 1, 11, 12, REQUEST_BYTES - 1] {
            assert_eq!(Request::parse(&good[..len]), None, "{len} bytes");
        }
        let one_more = [&good[..], &[0]].concat();
        assert_eq!(Request::parse(&one_more), None);
    }
}
