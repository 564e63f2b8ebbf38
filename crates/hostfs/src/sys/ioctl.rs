//! ioctl, for the commands whose argument has a known size.
#![expect(
    unsafe_code,
    reason = "one of the four islands: rustix has no ioctl without unsafe code"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use virtiofs_protocol::Errno;

use super::raw::last_errno;

/// A command whose argument the kernel reads and writes within `BYTES` bytes. There are no others than these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command<const BYTES: usize>(u32);

impl Command<4> {
    /// `FS_IOC_GETFLAGS` (linux/fs.h).
    pub(crate) const GET_FLAGS: Self = Self(0x8008_6601);
    /// `FS_IOC_SETFLAGS`.
    pub(crate) const SET_FLAGS: Self = Self(0x4008_6602);
    /// `FS_IOC_GETVERSION`.
    pub(crate) const GET_VERSION: Self = Self(0x8008_7601);
}

impl Command<28> {
    /// `FS_IOC_FSGETXATTR` (linux/fs.h, `struct fsxattr`).
    pub(crate) const GET_EXTENDED_FLAGS: Self = Self(0x801c_581f);
    /// `FS_IOC_FSSETXATTR`.
    pub(crate) const SET_EXTENDED_FLAGS: Self = Self(0x401c_5820);
}

impl Command<16> {
    /// `FS_IOC_GET_ENCRYPTION_NONCE` (linux/fscrypt.h).
    pub(crate) const GET_ENCRYPTION_NONCE: Self = Self(0x8010_661b);
}

impl Command<128> {
    /// `FS_IOC_GET_ENCRYPTION_KEY_STATUS` (linux/fscrypt.h, `struct fscrypt_get_key_status_arg`).
    pub(crate) const GET_ENCRYPTION_KEY_STATUS: Self = Self(0xc080_661a);
}

impl Command<68> {
    /// `FS_IOC_MEASURE_VERITY` (linux/fsverity.h, `struct fsverity_digest`): the argument states the room behind
    /// its four bytes, which [`measure_verity`] sees to.
    const MEASURE_VERITY: Self = Self(0xc004_6686);
}

/// Carries a command out; returns the argument as the kernel left it.
pub(crate) fn ioctl<const BYTES: usize>(
    file: BorrowedFd<'_>,
    command: Command<BYTES>,
    mut argument: [u8; BYTES],
) -> Result<[u8; BYTES], Errno> {
    // SAFETY: by the contract of `Command`, whose values are all above, the kernel stays within `BYTES` bytes of
    // the argument, and none of them are taken for an address.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), command.0.into(), argument.as_mut_ptr()) };
    if done < 0 {
        return Err(last_errno());
    }
    Ok(argument)
}

/// The digest of a file with verity: algorithm and size, two bytes each, then the digest of at most 64 bytes.
pub(crate) fn measure_verity(file: BorrowedFd<'_>, room: u8) -> Result<Vec<u8>, Errno> {
    let room = room.min(64);
    let mut argument = [0; 68];
    argument[2..4].copy_from_slice(&u16::from(room).to_ne_bytes());
    let digest = ioctl(file, Command::MEASURE_VERITY, argument)?;
    let used = u16::from_ne_bytes([digest[2], digest[3]]);
    let end = 4 + usize::from(used.min(room.into()));
    Ok(digest.get(..end).unwrap_or_default().to_vec())
}
