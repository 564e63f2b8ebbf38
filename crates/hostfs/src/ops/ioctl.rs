//! IOCTL: flags and projects of files, and what a guest may ask about verity and encryption.

use std::os::fd::BorrowedFd;

use virtiofs_protocol::op::{Ioctl, IoctlCommand};
use virtiofs_protocol::{Context, Errno, NodeId, Outcome, Refusal};

use crate::PassthroughFs;
use crate::ops::sleeps;
use crate::sys::ioctl::{Command, ioctl, measure_verity};

impl PassthroughFs {
    pub(crate) fn op_ioctl(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Ioctl<'_>,
    ) -> Outcome<Vec<u8>> {
        let Some(command) = op.command else {
            return Err(Refusal::Errno(Errno::NOTTY));
        };
        let handle = self.handle_of(cx, node, op.file)?;
        // None has a form that does not sleep, and none is asked often.
        sleeps(cx)?;
        let mut output = carried_out(handle.descriptor(), command, op.input)?;
        output.truncate(op.output_bytes);
        Ok(output)
    }
}

fn carried_out(
    file: BorrowedFd<'_>,
    command: IoctlCommand,
    input: &[u8],
) -> Result<Vec<u8>, Errno> {
    let nothing = Vec::new();
    Ok(match command {
        // The kernel takes and gives an `int`, whatever size the command's number states.
        IoctlCommand::GetFlags => ioctl(file, Command::GET_FLAGS, [0; 4])?.to_vec(),
        IoctlCommand::GetVersion => ioctl(file, Command::GET_VERSION, [0; 4])?.to_vec(),
        IoctlCommand::GetExtendedFlags => {
            ioctl(file, Command::GET_EXTENDED_FLAGS, [0; 28])?.to_vec()
        }
        IoctlCommand::GetEncryptionNonce => {
            ioctl(file, Command::GET_ENCRYPTION_NONCE, [0; 16])?.to_vec()
        }
        IoctlCommand::GetEncryptionKeyStatus => {
            ioctl(file, Command::GET_ENCRYPTION_KEY_STATUS, exactly(input)?)?.to_vec()
        }
        IoctlCommand::MeasureVerity => {
            let [_, _, low, high] = exactly(input.get(..4).unwrap_or_default())?;
            let room = u16::from_ne_bytes([low, high]);
            measure_verity(file, u8::try_from(room).unwrap_or(u8::MAX))?
        }
        IoctlCommand::SetFlags => {
            let flags = exactly(input.get(..4).unwrap_or_default())?;
            ioctl(file, Command::SET_FLAGS, flags).map(|_| nothing)?
        }
        IoctlCommand::SetExtendedFlags => {
            ioctl(file, Command::SET_EXTENDED_FLAGS, exactly(input)?).map(|_| nothing)?
        }
    })
}

/// EINVAL where the guest sends more or less than the command takes.
fn exactly<const BYTES: usize>(input: &[u8]) -> Result<[u8; BYTES], Errno> {
    input.try_into().map_err(|_| Errno::INVAL)
}
