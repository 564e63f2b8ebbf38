//! One file's whole life: what shows that a session works.

use anyhow::{Result, ensure};
use rustix::io::Errno;

use super::abi::ROOT;
use super::{Failure, FuseClient};

const O_RDWR: u32 = 2;

/// Bytes that differ from page to page and within one.
#[must_use]
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from((i / 7 + i / 4096) % 253).unwrap_or(0))
        .collect()
}

/// Creates, writes, reads back, closes and removes one file.
pub fn round_trip(client: &mut FuseClient, name: &str, bytes: &[u8]) -> Result<()> {
    let made = client.create(ROOT, name, O_RDWR, 0o640)?;
    let (node, fh) = (made.entry.nodeid, made.open.fh);
    let written = client.write(node, fh, 0, bytes)?;
    ensure!(
        usize::try_from(written)? == bytes.len(),
        "{written} bytes written"
    );
    let size = u32::try_from(bytes.len())?;
    ensure!(
        client.read(node, fh, 0, size)? == bytes,
        "other bytes come back"
    );
    ensure!(client.getattr(node)?.size == u64::from(size));
    client.flush(node, fh, 1)?;
    client.fsync(node, fh)?;
    client.release(node, fh)?;
    client.unlink(ROOT, name)?;
    ensure!(client.lookup(ROOT, name).err().and_then(Failure::errno) == Some(Errno::NOENT));
    Ok(())
}
