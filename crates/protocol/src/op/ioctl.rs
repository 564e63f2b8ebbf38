//! IOCTL: the few commands that are about a file's own attributes.

use crate::abi::IoctlIn;
use crate::fields::Fields;
use crate::ids::Fh;
use crate::malformed::Malformed;

/// A command that is served (man 2 `ioctl_iflags`; linux/fs.h, linux/fsverity.h, linux/fscrypt.h).
///
/// An allow-list: a command that is not here never reaches the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoctlCommand {
    /// `FS_IOC_GETFLAGS`: flags as `lsattr` shows them, 4 bytes.
    GetFlags,
    /// `FS_IOC_SETFLAGS`.
    SetFlags,
    /// `FS_IOC_GETVERSION`: the inode's generation, 4 bytes.
    GetVersion,
    /// `FS_IOC_FSGETXATTR`: `struct fsxattr`, 28 bytes; flags and project of a file.
    GetExtendedFlags,
    /// `FS_IOC_FSSETXATTR`.
    SetExtendedFlags,
    /// `FS_IOC_MEASURE_VERITY`: `struct fsverity_digest`, 4 bytes and a digest.
    MeasureVerity,
    /// `FS_IOC_GET_ENCRYPTION_KEY_STATUS`: `struct fscrypt_get_key_status_arg`, 128 bytes.
    GetEncryptionKeyStatus,
    /// `FS_IOC_GET_ENCRYPTION_NONCE`: 16 bytes.
    GetEncryptionNonce,
}

impl IoctlCommand {
    /// Recognises a command by its number. The forms of 32-bit programs mean the same.
    pub fn from_wire(number: u32) -> Option<Self> {
        match number {
            0x8008_6601 | 0x8004_6601 => Some(Self::GetFlags),
            0x4008_6602 | 0x4004_6602 => Some(Self::SetFlags),
            0x8008_7601 | 0x8004_7601 => Some(Self::GetVersion),
            0x801c_581f => Some(Self::GetExtendedFlags),
            0x401c_5820 => Some(Self::SetExtendedFlags),
            0xc004_6686 => Some(Self::MeasureVerity),
            0xc080_661a => Some(Self::GetEncryptionKeyStatus),
            0x8010_661b => Some(Self::GetEncryptionNonce),
            _ => None,
        }
    }

    /// Whether it changes the file.
    pub fn changes_something(self) -> bool {
        match self {
            Self::SetFlags | Self::SetExtendedFlags => true,
            Self::GetFlags | Self::GetVersion | Self::GetExtendedFlags => false,
            Self::MeasureVerity | Self::GetEncryptionKeyStatus | Self::GetEncryptionNonce => false,
        }
    }
}

/// IOCTL (man 2 ioctl).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ioctl<'a> {
    /// The open file or directory.
    pub file: Fh,
    /// What is asked for; `None` for a command that is not served.
    pub command: Option<IoctlCommand>,
    /// Bytes the guest sends.
    pub input: &'a [u8],
    /// Room for the answer, in bytes.
    pub output_bytes: usize,
}

impl<'a> Ioctl<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let raw: &IoctlIn = fields.take()?;
        Ok(Self {
            file: Fh::from_raw(raw.fh.get()),
            command: IoctlCommand::from_wire(raw.cmd.get()),
            input: fields.bytes(raw.in_size.get().try_into().unwrap_or(usize::MAX))?,
            output_bytes: raw.out_size.get().try_into().unwrap_or(usize::MAX),
        })
    }
}
