//! A request as the device hands it over.

use zerocopy::FromBytes;

use crate::abi::InHeader;
use crate::ids::{Caller, NodeId, Unique};
use crate::opcode::Opcode;
use crate::pages::{GuestPages, Readable};
use crate::reply::ReplySpace;

/// Length of `struct fuse_in_header`, in bytes: what the device copies first.
pub const HEADER_BYTES: usize = size_of::<InHeader>();

/// How many bytes behind the header are arguments, of `readable_bytes` that the guest made readable
/// with the header.
///
/// The device copies exactly these, once; what follows is payload and stays in guest memory. Never
/// more than a request's arguments may be: [`Session::serve`](crate::Session::serve) refuses a
/// request of which something is left out.
pub fn arguments_len(header: &[u8; HEADER_BYTES], readable_bytes: usize) -> usize {
    let Ok(header) = InHeader::read_from_bytes(header) else {
        return 0;
    };
    let stated = usize::try_from(header.len.get()).unwrap_or(usize::MAX);
    let behind = stated.min(readable_bytes).saturating_sub(HEADER_BYTES);
    Opcode::from_wire(header.opcode.get())
        .map_or(0, |opcode| behind.min(opcode.most_argument_bytes()))
}

/// Header and arguments, copied out of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub(crate) header: InHeader,
    pub(crate) arguments: &'a [u8],
}

impl<'a> Head<'a> {
    /// Takes the copied bytes; `arguments` is as long as [`arguments_len`] says.
    pub fn new(header: &[u8; HEADER_BYTES], arguments: &'a [u8]) -> Self {
        Self {
            header: InHeader::read_from_bytes(header).unwrap_or_default(),
            arguments,
        }
    }

    /// The request's number.
    pub fn unique(&self) -> Unique {
        Unique::from_raw(self.header.unique.get())
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId::from_raw(self.header.nodeid.get())
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::new(
            self.header.uid.get(),
            self.header.gid.get(),
            self.header.pid.get(),
        )
    }
}

/// One request: what was copied, what stays in guest memory, and where the answer goes.
#[derive(Debug)]
pub struct Request<'a> {
    /// Header and arguments.
    pub head: Head<'a>,
    /// Readable bytes behind the arguments: a WRITE's data.
    pub payload: GuestPages<'a, Readable>,
    /// Room for the answer.
    pub reply: ReplySpace<'a>,
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn header(opcode: u32, len: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let header = InHeader {
            len: len.into(),
            opcode: opcode.into(),
            ..InHeader::default()
        };
        bytes.copy_from_slice(header.as_bytes());
        bytes
    }

    #[test]
    fn only_what_can_be_arguments_is_copied() {
        let write = Opcode::Write as u32;
        let cases = [
            ("a name", header(Opcode::Lookup as u32, 44), 44, 4),
            (
                "bytes beyond the stated length",
                header(Opcode::Lookup as u32, 44),
                100,
                4,
            ),
            (
                "a length beyond the bytes",
                header(Opcode::Lookup as u32, 4096),
                44,
                4,
            ),
            (
                "a length below the header",
                header(Opcode::Lookup as u32, 39),
                44,
                0,
            ),
            ("length zero", header(Opcode::Lookup as u32, 0), 44, 0),
            ("a write's data", header(write, 80 + 4096), 80 + 4096, 40),
            ("an unknown request", header(4096, 1 << 20), 1 << 20, 0),
            (
                "a flood",
                header(Opcode::Lookup as u32, u32::MAX),
                usize::MAX,
                72 << 10,
            ),
        ];
        for (what, header, readable, want) in cases {
            assert_eq!(arguments_len(&header, readable), want, "{what}");
        }
    }
}
