//! GETATTR, SETATTR and READLINK.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, chmodat, chownat,
    ftruncate, readlinkat_raw, utimensat,
};
use rustix::path::DecInt;
use virtiofs_protocol::op::{
    Getattr, Permissions, Setattr, Statx as AskedStatx, Symlink, TimeChange,
};
use virtiofs_protocol::{
    Attr, AttrFlags, Attributes, Context, Errno, ExtendedAttr, FileOffset, NodeId, Outcome,
    PageWriter, Refusal,
};

use crate::PassthroughFs;
use crate::acting_as::{owner_gid, owner_uid};
use crate::attributes::{attributes, attributes_of_fstat};
use crate::inode::Node;
use crate::ops::{done_already, privileges};
use crate::root::WorkingDirectory;
use crate::sys;

/// `UTIME_NOW` and `UTIME_OMIT` (man 2 utimensat), as nanoseconds.
const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

impl PassthroughFs {
    pub(crate) fn op_getattr(&self, cx: &Context<'_>, node: NodeId, _op: Getattr) -> Outcome<Attr> {
        let node = self.node(cx, node)?;
        let Some(stat) = self.attributes_held(&node) else {
            return Ok(self.attr(&self.stat(&node)?));
        };
        let stat = stat?;
        self.note_directory(&node, stat.st_mode);
        let ids = &self.options.identities;
        Ok(self.lasting(attributes_of_fstat(&stat, ids, AttrFlags::empty())))
    }

    pub(crate) fn op_statx(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        _op: AskedStatx,
    ) -> Outcome<ExtendedAttr> {
        let node = self.node(cx, node)?;
        let stat = self.stat(&node)?;
        let knows_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Ok(ExtendedAttr {
            attr: self.attr(&stat),
            birth: knows_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
            device: (stat.stx_dev_major, stat.stx_dev_minor),
        })
    }

    fn attr(&self, stat: &Statx) -> Attr {
        let ids = &self.options.identities;
        self.lasting(attributes(stat, ids, AttrFlags::empty()))
    }

    /// With how long the guest may believe them.
    fn lasting(&self, attributes: Attributes) -> Attr {
        Attr {
            validity: self.validity(&attributes),
            attributes,
        }
    }

    pub(crate) fn op_setattr(&self, cx: &Context<'_>, node: NodeId, op: Setattr) -> Outcome<Attr> {
        let node = self.node(cx, node)?;
        let held = self.descriptor(&node)?;
        let held = held.as_fd();
        if op.size.is_some() || op.guest_uid.is_some() || op.guest_gid.is_some() {
            self.drop_renamed_capability(cx, held)?;
        }
        // The owner first: chown(2) takes set-id bits away that a mode in the same request states.
        if op.guest_uid.is_some() || op.guest_gid.is_some() {
            let ids = &self.options.identities;
            let uid = op.guest_uid.map(|user| ids.host_user(user)).transpose()?;
            let gid = op
                .guest_gid
                .map(|group| ids.host_group(group))
                .transpose()?;
            chownat(
                held,
                c"",
                uid.map(owner_uid),
                gid.map(owner_gid),
                AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if let Some(mode) = op.mode {
            self.change_mode(held, mode)?;
        }
        if let Some(size) = op.size {
            self.change_size(cx, &node, size, &op)?;
        }
        if op.atime.is_some() || op.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(op.atime),
                last_modification: timespec(op.mtime),
            };
            utimensat(held, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(self.attr(&done_already(|| self.stat(&node))?))
    }

    /// By way of `/proc/self/fd`: a symlink's mode cannot be changed there either (EOPNOTSUPP).
    fn change_mode(&self, held: BorrowedFd<'_>, mode: Permissions) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode.bits());
        chmodat(
            &self.root.proc_self_fd,
            DecInt::from_fd(held),
            mode,
            AtFlags::empty(),
        )
    }

    fn change_size(
        &self,
        cx: &Context<'_>,
        node: &Node,
        size: FileOffset,
        op: &Setattr,
    ) -> Result<(), Errno> {
        match node.value.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            // truncate(2) answers EINVAL to what has no size.
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(Errno::INVAL),
        }
        let _without_privileges =
            privileges::dropped_as_asked(self.service, cx, op.kill_privileges)?;
        if let Some(file) = op.file {
            let file = self.handles.file(file)?;
            match ftruncate(file.file()?, size.get_u64()) {
                // Opened for reading only: the guest's kernel has checked the caller's rights itself.
                Err(Errno::INVAL | Errno::BADF) => {}
                done => return done,
            }
        }
        let held = self.descriptor(node)?;
        let held = held.as_fd();
        if self.working_directory == WorkingDirectory::Descriptors {
            match sys::raw::truncate(held, size) {
                // Not known to be below the share, perhaps: opening it finds out.
                Err(Errno::ACCESS) if self.is_found_by_handle(node) => {}
                done => return done,
            }
        }
        let file = self.open_again(node, held, OFlags::WRONLY | OFlags::NONBLOCK)?;
        ftruncate(file, size.get_u64())
    }

    pub(crate) fn op_readlink(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        into: &mut PageWriter<'_>,
    ) -> Outcome<()> {
        let node = self.node(cx, node)?;
        if node.value.kind != FileType::Symlink {
            return Err(Refusal::Errno(Errno::INVAL));
        }
        let held = self.descriptor(&node)?;
        let mut buffer = [0; Symlink::TARGET_MAX + 1];
        let len = readlinkat_raw(held, c"", &mut buffer)?;
        // readlink(2) cuts what does not fit; a guest always leaves a page.
        let fits = len.min(into.room_bytes());
        if into.push(&buffer[..fits]) {
            Ok(())
        } else {
            Err(Refusal::Errno(Errno::INVAL))
        }
    }
}

fn timespec(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeChange::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(TimeChange::To(time)) => Timespec {
            tv_sec: time.secs,
            tv_nsec: time.nanos().into(),
        },
    }
}
