//! Each request to the function that does its work.

use std::os::fd::AsFd;
use std::time::Duration;

use virtiofs_protocol::{
    Attr, Context, DirEntries, Entry, Errno, ExtendedAttr, Filesystem, GuestPages, HangUp,
    InitFlags, Negotiated, NodeId, Opened, Outcome, PageWriter, Readable, Statistics, Writable, op,
};

use crate::PassthroughFs;
use crate::cache::Targets;
use crate::labels::Labels;
use crate::options::{
    IdmappedMounts, KillPrivilegesV2, PosixAcl, ReaddirPlus, RemoteLocks, SecurityLabels,
    SharedMappings, Submounts, Writeback,
};

/// What ACLs take: the umask, which a default ACL replaces, is then applied here.
const POSIX_ACLS: InitFlags = InitFlags::POSIX_ACL
    .union(InitFlags::DONT_MASK)
    .union(InitFlags::SETXATTR_EXT);

impl Filesystem for PassthroughFs {
    fn wanted(&self) -> InitFlags {
        let mut wanted = InitFlags::ASYNC_READ
            | InitFlags::ATOMIC_O_TRUNC
            | InitFlags::AUTO_INVAL_DATA
            | InitFlags::ASYNC_DIO
            | InitFlags::PARALLEL_DIROPS
            | InitFlags::EXPORT_SUPPORT
            | InitFlags::CREATE_SUPP_GROUP;
        let options = &self.options;
        if self.can_do_without_opens() {
            wanted -= InitFlags::ATOMIC_O_TRUNC;
            wanted |= InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT;
        }
        if options.readdirplus == ReaddirPlus::ByPolicy && options.cache.readdirplus() {
            wanted |= InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO;
        }
        if options.writeback == Writeback::On {
            wanted |= InitFlags::WRITEBACK_CACHE;
        }
        if options.submounts == Submounts::Announced {
            wanted |= InitFlags::SUBMOUNTS;
        }
        if options.kill_privileges == KillPrivilegesV2::On {
            wanted |= InitFlags::HANDLE_KILLPRIV_V2 | InitFlags::HANDLE_KILLPRIV;
        } else {
            // Linux drops set-id bits with the request that cuts the file, and sends none for a
            // file that OPEN has cut.
            wanted -= InitFlags::ATOMIC_O_TRUNC;
        }
        if options.cache.targets() == Targets::Kept && !self.is_slow() {
            wanted |= InitFlags::CACHE_SYMLINKS;
        }
        if options.shared_mappings == SharedMappings::Always {
            wanted |= InitFlags::DIRECT_IO_ALLOW_MMAP;
        }
        if options.posix_locks == RemoteLocks::On {
            wanted |= InitFlags::POSIX_LOCKS;
        }
        if options.flocks == RemoteLocks::On {
            wanted |= InitFlags::FLOCK_LOCKS;
        }
        if options.posix_acl != PosixAcl::Off {
            wanted |= POSIX_ACLS;
        }
        if options.idmapped_mounts == IdmappedMounts::Allowed {
            wanted |= InitFlags::ALLOW_IDMAP;
        }
        if self.labels == Labels::Offered {
            wanted |= InitFlags::SECURITY_CTX;
        }
        wanted
    }

    fn begin(&self, negotiated: Negotiated) -> Result<(), Errno> {
        let options = &self.options;
        let acls = negotiated.flags.contains(POSIX_ACLS);
        if options.posix_acl == PosixAcl::Required && !acls {
            tracing::error!(
                "the guest's kernel has no POSIX ACLs on virtio-fs, and --posix-acl=always asks for them: \
                 use --posix-acl=auto or a newer kernel"
            );
            return Err(Errno::PROTO);
        }
        let labels = negotiated.flags.contains(InitFlags::SECURITY_CTX);
        if options.security_labels == SecurityLabels::Required && !labels {
            tracing::error!(
                "the guest's kernel sends no labels with what it makes, and --security-label=always asks for them: \
                 use --security-label=auto or Linux 5.17 or newer"
            );
            return Err(Errno::PROTO);
        }
        Ok(())
    }

    fn end(&self, _why: HangUp) {
        self.locks.clear();
        self.handles.clear();
        self.resting.clear();
        if let Some(lent) = &self.by_handle {
            lent.clear();
        }
        self.hot.clear();
        self.spellings.clear();
        self.inodes.clear();
        self.retired.close_all();
    }

    fn lookup(&self, cx: &Context<'_>, parent: NodeId, op: op::Lookup<'_>) -> Outcome<Entry> {
        self.noting_loss(parent, self.op_lookup(cx, parent, op))
    }

    fn forget(&self, node: NodeId, count: u64) {
        if let Some(gone) = self.inodes.forget(node, count) {
            self.resting.forget(node);
            if let Some(lent) = &self.by_handle {
                lent.forget(node);
            }
            self.retired.add(gone);
        }
    }

    fn rest(&self) -> Option<Duration> {
        self.retired.close_all();
        if self.reserve.is_short() {
            self.reserve.fill(self.root.directory.as_fd());
        }
        let (sweeps, idles) = (self.resting.sweep(), self.close_idle());
        sweeps.into_iter().chain(idles).min()
    }

    fn getattr(&self, cx: &Context<'_>, node: NodeId, op: op::Getattr) -> Outcome<Attr> {
        self.noting_loss(node, self.op_getattr(cx, node, op))
    }

    fn statx(&self, cx: &Context<'_>, node: NodeId, op: op::Statx) -> Outcome<ExtendedAttr> {
        self.noting_loss(node, self.op_statx(cx, node, op))
    }

    fn ioctl(&self, cx: &Context<'_>, node: NodeId, op: op::Ioctl<'_>) -> Outcome<Vec<u8>> {
        self.noting_loss(node, self.op_ioctl(cx, node, op))
    }

    fn setattr(&self, cx: &Context<'_>, node: NodeId, op: op::Setattr) -> Outcome<Attr> {
        self.noting_loss(node, self.op_setattr(cx, node, op))
    }

    fn readlink(&self, cx: &Context<'_>, node: NodeId, into: &mut PageWriter<'_>) -> Outcome<()> {
        self.noting_loss(node, self.op_readlink(cx, node, into))
    }

    fn symlink(&self, cx: &Context<'_>, parent: NodeId, op: op::Symlink<'_>) -> Outcome<Entry> {
        self.noting_loss(parent, self.op_symlink(cx, parent, op))
    }

    fn mknod(&self, cx: &Context<'_>, parent: NodeId, op: op::Mknod<'_>) -> Outcome<Entry> {
        self.noting_loss(parent, self.op_mknod(cx, parent, op))
    }

    fn mkdir(&self, cx: &Context<'_>, parent: NodeId, op: op::Mkdir<'_>) -> Outcome<Entry> {
        self.noting_loss(parent, self.op_mkdir(cx, parent, op))
    }

    fn create(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: op::Create<'_>,
    ) -> Outcome<(Entry, Opened)> {
        self.noting_loss(parent, self.op_create(cx, parent, op))
    }

    fn tmpfile(
        &self,
        cx: &Context<'_>,
        parent: NodeId,
        op: op::Tmpfile<'_>,
    ) -> Outcome<(Entry, Opened)> {
        self.noting_loss(parent, self.op_tmpfile(cx, parent, op))
    }

    fn link(&self, cx: &Context<'_>, parent: NodeId, op: op::Link<'_>) -> Outcome<Entry> {
        self.noting_loss(parent, self.op_link(cx, parent, op))
    }

    fn unlink(&self, cx: &Context<'_>, parent: NodeId, op: op::Unlink<'_>) -> Outcome<()> {
        self.noting_loss(parent, self.op_unlink(cx, parent, op))
    }

    fn rmdir(&self, cx: &Context<'_>, parent: NodeId, op: op::Rmdir<'_>) -> Outcome<()> {
        self.noting_loss(parent, self.op_rmdir(cx, parent, op))
    }

    fn rename(&self, cx: &Context<'_>, parent: NodeId, op: op::Rename<'_>) -> Outcome<()> {
        self.noting_loss(parent, self.op_rename(cx, parent, op))
    }

    fn open(&self, cx: &Context<'_>, node: NodeId, op: op::Open) -> Outcome<Opened> {
        self.noting_loss(node, self.op_open(cx, node, op))
    }

    fn read(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Read,
        into: GuestPages<'_, Writable>,
    ) -> Outcome<usize> {
        self.noting_loss(node, self.op_read(cx, node, op, into))
    }

    fn write(
        &self,
        cx: &Context<'_>,
        _node: NodeId,
        op: op::Write,
        from: GuestPages<'_, Readable>,
    ) -> Outcome<usize> {
        self.op_write(cx, op, from)
    }

    fn flush(&self, cx: &Context<'_>, _node: NodeId, op: op::Flush) -> Outcome<()> {
        self.op_flush(cx, op)
    }

    fn fsync(&self, cx: &Context<'_>, node: NodeId, op: op::Fsync) -> Outcome<()> {
        self.noting_loss(node, self.op_fsync(cx, node, op))
    }

    fn release(&self, _cx: &Context<'_>, _node: NodeId, op: op::Release) -> Outcome<()> {
        self.op_release(op)
    }

    fn opendir(&self, cx: &Context<'_>, node: NodeId, op: op::Opendir) -> Outcome<Opened> {
        self.noting_loss(node, self.op_opendir(cx, node, op))
    }

    fn readdir(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        self.noting_loss(node, self.op_readdir(cx, node, op, into))
    }

    fn readdirplus(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        self.noting_loss(node, self.op_readdirplus(cx, node, op, into))
    }

    fn fsyncdir(&self, cx: &Context<'_>, node: NodeId, op: op::Fsync) -> Outcome<()> {
        self.noting_loss(node, self.op_fsyncdir(cx, node, op))
    }

    fn releasedir(&self, _cx: &Context<'_>, _node: NodeId, op: op::Releasedir) -> Outcome<()> {
        self.op_releasedir(op)
    }

    fn statfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<Statistics> {
        self.noting_loss(node, self.op_statfs(cx, node))
    }

    fn syncfs(&self, cx: &Context<'_>, node: NodeId) -> Outcome<()> {
        self.noting_loss(node, self.op_syncfs(cx, node))
    }

    fn fallocate(&self, cx: &Context<'_>, _node: NodeId, op: op::Fallocate) -> Outcome<()> {
        self.op_fallocate(cx, op)
    }

    fn lseek(&self, cx: &Context<'_>, node: NodeId, op: op::Lseek) -> Outcome<u64> {
        self.noting_loss(node, self.op_lseek(cx, node, op))
    }

    fn copy_file_range(
        &self,
        cx: &Context<'_>,
        _node: NodeId,
        op: op::CopyFileRange,
    ) -> Outcome<u64> {
        self.op_copy_file_range(cx, op)
    }

    fn getlk(
        &self,
        cx: &Context<'_>,
        _node: NodeId,
        op: op::Lock,
    ) -> Outcome<Option<op::HeldLock>> {
        self.op_getlk(cx, op)
    }

    fn setlk(&self, cx: &Context<'_>, _node: NodeId, op: op::Lock) -> Outcome<()> {
        self.op_setlk(cx, op)
    }

    fn setlkw(&self, cx: &Context<'_>, _node: NodeId, op: op::Lock) -> Outcome<()> {
        self.op_setlkw(cx, op)
    }

    fn look_again(&self) {
        self.locks.waits.look_again();
    }

    fn setxattr(&self, cx: &Context<'_>, node: NodeId, op: op::Setxattr<'_>) -> Outcome<()> {
        self.noting_loss(node, self.op_setxattr(cx, node, op))
    }

    fn getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Getxattr<'_>,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        self.noting_loss(node, self.op_getxattr(cx, node, op, into))
    }

    fn listxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: op::Listxattr,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        self.noting_loss(node, self.op_listxattr(cx, node, op, into))
    }

    fn removexattr(&self, cx: &Context<'_>, node: NodeId, op: op::Removexattr<'_>) -> Outcome<()> {
        self.noting_loss(node, self.op_removexattr(cx, node, op))
    }
}
