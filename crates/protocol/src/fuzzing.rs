//! What fuzz targets start from: the golden requests of this crate's tests as whole messages.
//!
//! Compiled with `--cfg fuzzing` only, which is how fuzz targets are built.

use zerocopy::IntoBytes;

use crate::abi::InHeader;
use crate::opcode::Opcode;
use crate::request::HEADER_BYTES;
use crate::testing::golden;

/// Every golden request: header, arguments and, for a WRITE, zeroes as data.
pub fn golden_messages() -> Vec<Vec<u8>> {
    let message = |golden: golden::Golden| {
        let mut behind = golden.arguments.0;
        behind.resize(behind.len() + golden.payload_bytes, 0);
        message(golden.opcode, 1, &behind)
    };
    golden::all().into_iter().map(message).collect()
}

/// A message of a true length, from root.
pub fn message(opcode: Opcode, node: u64, behind: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_BYTES + behind.len()).unwrap_or(u32::MAX);
    let header = InHeader {
        len: len.into(),
        opcode: (opcode as u32).into(),
        unique: 2.into(),
        nodeid: node.into(),
        ..InHeader::default()
    };
    [header.as_bytes(), behind].concat()
}
