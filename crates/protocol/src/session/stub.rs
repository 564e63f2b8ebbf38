//! A file system without files: it notes what it is asked and answers something of the right shape.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::attributes::{Attr, Attributes, Entry, ExtendedAttr, Statistics, Validity};
use crate::cancel::HangUp;
use crate::filesystem::{Context, Filesystem, Lane, Opened, Outcome, Patience, Refusal};
use crate::flags::{FopenFlags, InitFlags};
use crate::ids::{Fh, NodeId};
use crate::negotiated::Negotiated;
use crate::offset::DirOffset;
use crate::op;
use crate::pages::{GuestPages, PageWriter, Readable, Writable};
use crate::reply::{DirEntries, DirEntry, Push};

/// Target of the one symlink.
pub(super) const TARGET: &[u8] = b"../target";

/// What [`Stub`] wants from INIT: a flag of each word.
pub(super) const WANTED: InitFlags = InitFlags::DO_READDIRPLUS
    .union(InitFlags::CREATE_SUPP_GROUP)
    .union(InitFlags::HANDLE_KILLPRIV)
    .union(InitFlags::HANDLE_KILLPRIV_V2);

/// Notes every call; answers READ and FSYNC only on threads that may sleep, once told to.
#[derive(Debug, Default)]
pub(super) struct Stub {
    calls: Mutex<Vec<String>>,
    pub(super) sleepy: AtomicBool,
    pub(super) held: Mutex<Option<op::HeldLock>>,
}

impl Stub {
    /// What was called since the last look.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    /// Notes a call; `WouldSleep` when told to and not patient.
    fn note_sleeping(&self, call: &str, cx: &Context<'_>) -> Outcome<()> {
        if self.sleepy.load(Ordering::Relaxed) && matches!(cx.patience, Patience::Never) {
            return Err(Refusal::WouldSleep(Lane::Store));
        }
        self.note(call);
        Ok(())
    }

    fn entry(&self, call: &str) -> Outcome<Entry> {
        self.note(call);
        Ok(Entry {
            node: NodeId::from_raw(7),
            entry_validity: Validity::default(),
            attr_validity: Validity::default(),
            attributes: Attributes::default(),
        })
    }

    fn opened(&self, call: &str) -> Outcome<Opened> {
        self.note(call);
        Ok(Opened {
            handle: Fh::from_raw(5),
            flags: FopenFlags::empty(),
        })
    }

    fn made(&self, call: &str) -> Outcome<(Entry, Opened)> {
        Ok((self.entry(call)?, self.opened("open created")?))
    }

    fn attr(&self, call: &str) -> Outcome<Attr> {
        self.note(call);
        Ok(Attr {
            validity: Validity::default(),
            attributes: Attributes::default(),
        })
    }

    fn done(&self, call: &str) -> Outcome<()> {
        self.note(call);
        Ok(())
    }

    /// Answers with a text, where there is room asked for.
    fn text(&self, call: &str, size_bytes: usize, into: &mut PageWriter<'_>) -> Outcome<usize> {
        self.note(call);
        if size_bytes == 0 || into.push(TARGET) {
            Ok(TARGET.len())
        } else {
            Err(Refusal::Errno(Errno::INVAL))
        }
    }
}

const ENTRY: DirEntry<'static> = DirEntry {
    ino: 7,
    next: DirOffset(1),
    kind: 8,
    name: b"file",
};

impl Filesystem for Stub {
    fn wanted(&self) -> InitFlags {
        WANTED
    }

    fn begin(&self, negotiated: Negotiated) -> Result<(), Errno> {
        self.note(format!("begin 7.{}", negotiated.minor));
        Ok(())
    }

    fn end(&self, why: HangUp) {
        self.note(format!("end {why:?}"));
    }

    fn lookup(&self, _: &Context<'_>, _: NodeId, _: op::Lookup<'_>) -> Outcome<Entry> {
        self.entry("lookup")
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.note(format!("forget {} {count}", node.raw()));
    }

    fn getattr(&self, _: &Context<'_>, _: NodeId, _: op::Getattr) -> Outcome<Attr> {
        self.attr("getattr")
    }

    fn tmpfile(&self, _: &Context<'_>, _: NodeId, _: op::Tmpfile<'_>) -> Outcome<(Entry, Opened)> {
        self.made("tmpfile")
    }

    fn statx(&self, _: &Context<'_>, _: NodeId, _: op::Statx) -> Outcome<ExtendedAttr> {
        Ok(ExtendedAttr {
            attr: self.attr("statx")?,
            birth: None,
            device: (0, 0),
        })
    }

    fn ioctl(&self, _: &Context<'_>, _: NodeId, op: op::Ioctl<'_>) -> Outcome<Vec<u8>> {
        self.note("ioctl");
        Ok(vec![0; op.output_bytes])
    }

    fn setattr(&self, _: &Context<'_>, _: NodeId, _: op::Setattr) -> Outcome<Attr> {
        self.attr("setattr")
    }

    fn readlink(&self, _: &Context<'_>, _: NodeId, into: &mut PageWriter<'_>) -> Outcome<()> {
        self.text("readlink", TARGET.len(), into).map(drop)
    }

    fn setxattr(&self, _: &Context<'_>, _: NodeId, _: op::Setxattr<'_>) -> Outcome<()> {
        self.done("setxattr")
    }

    fn getxattr(
        &self,
        _: &Context<'_>,
        _: NodeId,
        op: op::Getxattr<'_>,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        self.text("getxattr", op.size_bytes, into)
    }

    fn listxattr(
        &self,
        _: &Context<'_>,
        _: NodeId,
        op: op::Listxattr,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        self.text("listxattr", op.size_bytes, into)
    }

    fn removexattr(&self, _: &Context<'_>, _: NodeId, _: op::Removexattr<'_>) -> Outcome<()> {
        self.done("removexattr")
    }

    fn symlink(&self, _: &Context<'_>, _: NodeId, _: op::Symlink<'_>) -> Outcome<Entry> {
        self.entry("symlink")
    }

    fn mknod(&self, _: &Context<'_>, _: NodeId, _: op::Mknod<'_>) -> Outcome<Entry> {
        self.entry("mknod")
    }

    fn mkdir(&self, _: &Context<'_>, _: NodeId, _: op::Mkdir<'_>) -> Outcome<Entry> {
        self.entry("mkdir")
    }

    fn create(&self, _: &Context<'_>, _: NodeId, _: op::Create<'_>) -> Outcome<(Entry, Opened)> {
        self.made("create")
    }

    fn link(&self, _: &Context<'_>, _: NodeId, _: op::Link<'_>) -> Outcome<Entry> {
        self.entry("link")
    }

    fn unlink(&self, _: &Context<'_>, _: NodeId, _: op::Unlink<'_>) -> Outcome<()> {
        self.done("unlink")
    }

    fn rmdir(&self, _: &Context<'_>, _: NodeId, _: op::Rmdir<'_>) -> Outcome<()> {
        self.done("rmdir")
    }

    fn rename(&self, _: &Context<'_>, _: NodeId, _: op::Rename<'_>) -> Outcome<()> {
        self.done("rename")
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: op::Open) -> Outcome<Opened> {
        self.opened("open")
    }

    fn read(
        &self,
        cx: &Context<'_>,
        _: NodeId,
        _: op::Read,
        into: GuestPages<'_, Writable>,
    ) -> Outcome<usize> {
        self.note_sleeping("read", cx)?;
        let mut into = PageWriter::new(into);
        let room = into.room_bytes();
        assert!(into.push(&vec![b'R'; room]));
        Ok(room)
    }

    fn write(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: op::Write,
        from: GuestPages<'_, Readable>,
    ) -> Outcome<usize> {
        self.note(format!("write {}", from.len_bytes()));
        Ok(from.len_bytes())
    }

    fn flush(&self, _: &Context<'_>, _: NodeId, _: op::Flush) -> Outcome<()> {
        self.done("flush")
    }

    fn fsync(&self, cx: &Context<'_>, _: NodeId, _: op::Fsync) -> Outcome<()> {
        self.note_sleeping("fsync", cx)
    }

    fn release(&self, _: &Context<'_>, _: NodeId, _: op::Release) -> Outcome<()> {
        self.done("release")
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: op::Opendir) -> Outcome<Opened> {
        self.opened("opendir")
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        self.note("readdir");
        let (Push::Done | Push::Full) = into.push(&ENTRY);
        Ok(())
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        self.note("readdirplus");
        let (Push::Done | Push::Full) = into.push_plus(None, &ENTRY);
        Ok(())
    }

    fn getlk(&self, _: &Context<'_>, _: NodeId, _: op::Lock) -> Outcome<Option<op::HeldLock>> {
        self.note("getlk");
        Ok(*self.held.lock().unwrap())
    }

    fn setlk(&self, _: &Context<'_>, _: NodeId, _: op::Lock) -> Outcome<()> {
        self.done("setlk")
    }

    fn setlkw(&self, cx: &Context<'_>, _: NodeId, _: op::Lock) -> Outcome<()> {
        if self.sleepy.load(Ordering::Relaxed) && matches!(cx.patience, Patience::Never) {
            return Err(Refusal::WouldSleep(Lane::Lock));
        }
        self.done("setlkw")
    }

    fn look_again(&self) {
        self.note("look again");
    }

    fn fsyncdir(&self, _: &Context<'_>, _: NodeId, _: op::Fsync) -> Outcome<()> {
        self.done("fsyncdir")
    }

    fn releasedir(&self, _: &Context<'_>, _: NodeId, _: op::Releasedir) -> Outcome<()> {
        self.done("releasedir")
    }

    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Outcome<Statistics> {
        self.note("statfs");
        Ok(Statistics::default())
    }

    fn syncfs(&self, _: &Context<'_>, _: NodeId) -> Outcome<()> {
        self.done("syncfs")
    }

    fn fallocate(&self, _: &Context<'_>, _: NodeId, _: op::Fallocate) -> Outcome<()> {
        self.done("fallocate")
    }

    fn lseek(&self, _: &Context<'_>, _: NodeId, _: op::Lseek) -> Outcome<u64> {
        self.note("lseek");
        Ok(4096)
    }

    fn copy_file_range(&self, _: &Context<'_>, _: NodeId, op: op::CopyFileRange) -> Outcome<u64> {
        self.note("copy_file_range");
        Ok(op.len_bytes)
    }
}
