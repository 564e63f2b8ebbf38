//! One request of every kind, byte for byte as the client in Linux (`fs/fuse`) fills it in.
//!
//! Field widths and order are written down here a second time, from `uapi/linux/fuse.h`, so that
//! a slip in `abi` does not go unnoticed because both sides share it.

mod files;
mod names;
mod rest;

use crate::abi::InHeader;
use crate::flags::InitFlags;
use crate::malformed::Malformed;
use crate::op::Op;
use crate::opcode::Opcode;

/// A request and what it means.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) opcode: Opcode,
    /// What stands behind the header, without a WRITE's data.
    pub(crate) arguments: Bytes,
    /// Bytes of data behind the arguments.
    pub(crate) payload_bytes: usize,
    pub(crate) op: Op<'static>,
}

/// Every kind of request at least once.
pub(crate) fn all() -> Vec<Golden> {
    let mut all = names::requests();
    all.extend(files::requests());
    all.extend(rest::requests());
    all
}

/// The first golden request of a kind.
pub(crate) fn of(opcode: Opcode) -> Golden {
    let mut all = all().into_iter();
    all.find(|golden| golden.opcode == opcode)
        .expect("every kind has a golden request")
}

/// Reads arguments that carry `extension_units` times eight bytes of extensions.
pub(crate) fn parse(
    opcode: Opcode,
    arguments: &[u8],
    extension_units: u16,
) -> Result<Op<'_>, Malformed> {
    parse_as_agreed(InitFlags::empty(), opcode, arguments, extension_units)
}

/// As [`parse`], in a session that has agreed on these.
pub(crate) fn parse_as_agreed(
    agreed: InitFlags,
    opcode: Opcode,
    arguments: &[u8],
    extension_units: u16,
) -> Result<Op<'_>, Malformed> {
    let header = InHeader {
        total_extlen: extension_units.into(),
        ..InHeader::default()
    };
    Op::parse(opcode, &header, arguments, agreed)
}

fn golden(opcode: Opcode, arguments: Bytes, op: Op<'static>) -> Golden {
    Golden {
        opcode,
        arguments,
        payload_bytes: 0,
        op,
    }
}

/// Bytes of a request, field by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Bytes as they are; a name brings its NUL.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}
