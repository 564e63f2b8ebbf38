//! Messages as a hostile front-end sends them.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Result, anyhow, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zerocopy::{FromBytes, IntoBytes};

use super::Target;
use crate::frontend::message::{Code, Header, MemoryRegion, NEED_REPLY, REPLY, VERSION};
use crate::frontend::{Connection, Frontend, MemoryMessages, Options};

/// The bytes of a header.
#[must_use]
pub fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    let header = Header {
        request,
        flags,
        size,
    };
    header.as_bytes().to_vec()
}

/// An eventfd.
pub fn event() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Sends a message that wants to be told; true when it was carried out.
pub fn is_accepted(
    connection: &Connection,
    code: u32,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<bool> {
    let size = u32::try_from(payload.len())?;
    let bytes = [&header(code, VERSION | NEED_REPLY, size)[..], payload].concat();
    connection.send_raw(&bytes, descriptors)?;
    let reply = connection.receive()?;
    ensure!(
        reply.header.request == code && reply.header.flags & REPLY != 0,
        "{:?}",
        reply.header
    );
    let status = u64::read_from_bytes(&reply.payload);
    status
        .map(|status| status == 0)
        .map_err(|_| anyhow!("{reply:?}"))
}

/// A front-end that has agreed on everything and shared its memory.
pub fn prepared(target: &Target) -> Result<Frontend> {
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    frontend.share_memory(MemoryMessages::Table)?;
    Ok(frontend)
}

/// A memory table of these regions; true when it was accepted.
pub fn shares(
    frontend: &Frontend,
    regions: &[MemoryRegion],
    files: &[BorrowedFd<'_>],
) -> Result<bool> {
    let count = u32::try_from(regions.len())?;
    let payload = [[count, 0].as_bytes(), regions.as_bytes()].concat();
    is_accepted(
        frontend.connection(),
        Code::SetMemTable.number(),
        &payload,
        files,
    )
}

/// A region of guest memory at the start of its file.
#[must_use]
pub fn region(guest_address: u64, size: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address,
        size,
        user_address: guest_address.wrapping_add(1 << 40),
        mmap_offset: 0,
    }
}

/// A file of guest memory.
pub fn memfd(len: u64) -> Result<OwnedFd> {
    let file = memfd_create(c"guest", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, len)?;
    Ok(file)
}
