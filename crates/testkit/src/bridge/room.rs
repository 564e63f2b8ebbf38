//! How much room the reply to a request needs, as the virtio-fs driver of
//! Linux gives it: exactly what the operation can return.

use crate::frontend::GuestMemory;
use crate::fuse::abi::{self, opcode};

/// Room behind the reply's header; `None` where there is no reply.
///
/// `arguments` is where the bytes behind the request's header lie.
pub(super) fn reply_room(
    memory: &GuestMemory,
    header: &abi::InHeader,
    arguments: u64,
) -> Option<u32> {
    let room = match header.opcode {
        opcode::FORGET | opcode::BATCH_FORGET | opcode::NOTIFY_REPLY => return None,
        opcode::LOOKUP | opcode::SYMLINK | opcode::MKNOD | opcode::MKDIR | opcode::LINK => {
            of::<abi::EntryOut>()
        }
        opcode::CREATE | opcode::TMPFILE => of::<abi::CreateOut>(),
        opcode::GETATTR | opcode::SETATTR => of::<abi::AttrOut>(),
        opcode::STATX => abi::STATX_OUT_LEN,
        opcode::OPEN | opcode::OPENDIR => of::<abi::OpenOut>(),
        opcode::READ | opcode::READDIR | opcode::READDIRPLUS => {
            memory.load::<abi::ReadIn>(arguments).size
        }
        opcode::GETXATTR | opcode::LISTXATTR => {
            match memory.load::<abi::GetxattrIn>(arguments).size {
                0 => of::<abi::XattrSizeOut>(),
                size => size,
            }
        }
        // One less than a page: the kernel adds a NUL.
        opcode::READLINK => 4095,
        opcode::WRITE | opcode::COPY_FILE_RANGE => of::<abi::WriteOut>(),
        opcode::STATFS => of::<abi::StatfsOut>(),
        opcode::GETLK => of::<abi::FileLock>(),
        opcode::BMAP | opcode::POLL | opcode::LSEEK | opcode::COPY_FILE_RANGE_64 => of::<u64>(),
        opcode::IOCTL => {
            let ioctl: abi::IoctlIn = memory.load(arguments);
            of::<[u32; 4]>().saturating_add(ioctl.out_size)
        }
        opcode::INIT => of::<abi::InitOut>(),
        _ => 0,
    };
    Some(room)
}

/// Whether a request belongs on the high-priority queue (virtio 1.3, 5.11.6.2).
pub(super) fn is_urgent(code: u32) -> bool {
    matches!(
        code,
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT
    )
}

fn of<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}
