//! FALLOCATE, LSEEK and COPY_FILE_RANGE.

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use virtiofs_protocol::op::{CopyFileRange, Fallocate, Lseek, Whence};
use virtiofs_protocol::{Context, Errno, InitFlags, NodeId, Outcome, Refusal};

use crate::PassthroughFs;
use crate::ops::{may_take_long, privileges, sleeps};

impl PassthroughFs {
    pub(crate) fn op_fallocate(&self, cx: &Context<'_>, op: Fallocate) -> Outcome<()> {
        let file = self.handles.file(op.file)?;
        let file = file.file()?;
        may_take_long(cx, &file.mount)?;
        self.drop_renamed_capability(cx, file)?;
        let _without_privileges = privileges::dropped_for_caller(self.service, cx)?;
        let mode = FallocateFlags::from_bits_retain(op.mode.bits());
        Ok(fallocate(
            file,
            mode,
            op.offset.get_u64(),
            op.length.get_u64(),
        )?)
    }

    /// Moves the open file's own position, which nothing else here uses.
    ///
    /// ENOSYS with a write-back cache, for good: the guest asks without writing back first, and what is not here yet
    /// would be a hole to who copies the file. The guest then takes all of it for data.
    pub(crate) fn op_lseek(&self, cx: &Context<'_>, node: NodeId, op: Lseek) -> Outcome<u64> {
        if cx.negotiated.flags.contains(InitFlags::WRITEBACK_CACHE) {
            return Err(Refusal::Errno(Errno::NOSYS));
        }
        let file = self.file_of(cx, node, op.file)?;
        let file = file.file()?;
        may_take_long(cx, &file.mount)?;
        let target = match op.whence {
            Whence::Start => SeekFrom::Start(op.offset.get_u64()),
            Whence::End => SeekFrom::End(op.offset.get()),
            Whence::Data => SeekFrom::Data(op.offset.get_u64()),
            Whence::Hole => SeekFrom::Hole(op.offset.get_u64()),
        };
        Ok(seek(file, target)?)
    }

    pub(crate) fn op_copy_file_range(&self, cx: &Context<'_>, op: CopyFileRange) -> Outcome<u64> {
        let (from, to) = (self.handles.file(op.from)?, self.handles.file(op.to)?);
        let (from, to) = (from.file()?, to.file()?);
        // Gigabytes may have to be copied, unless the store shares blocks.
        sleeps(cx)?;
        self.drop_renamed_capability(cx, to)?;
        let _without_privileges = privileges::dropped_for_caller(self.service, cx)?;
        let (mut from_offset, mut to_offset) = (op.from_offset.get_u64(), op.to_offset.get_u64());
        let len = usize::try_from(op.len_bytes).unwrap_or(usize::MAX);
        let copied = copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), len)?;
        Ok(u64::try_from(copied).unwrap_or(u64::MAX))
    }
}
