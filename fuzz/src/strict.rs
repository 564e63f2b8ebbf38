//! A file system without files that believes nothing: each method checks what the types promise.

use std::sync::atomic::{AtomicBool, Ordering};

use virtiofs_protocol::{
    Attr, Attributes, Context, DirEntries, DirEntry, DirOffset, Entry, Errno, Fh, FileOffset,
    Filesystem, FopenFlags, GuestPages, HangUp, InitFlags, Lane, LookupName, Name, Negotiated,
    NodeId, Opened, Outcome, PageWriter, Patience, Push, Readable, Refusal, Statistics, Validity,
    Writable, op,
};

/// Answers everything with the same node and handle.
#[derive(Debug, Default)]
pub struct Strict {
    /// Whether each request that may sleep does.
    pub sleepy: AtomicBool,
}

impl Strict {
    /// Refuses to sleep on a queue's thread.
    fn sleep(&self, cx: &Context<'_>) -> Outcome<()> {
        self.sleep_for(cx, Lane::Store)
    }

    fn sleep_for(&self, cx: &Context<'_>, lane: Lane) -> Outcome<()> {
        let sleepy = self.sleepy.load(Ordering::Relaxed);
        match cx.patience {
            Patience::Never if sleepy => Err(Refusal::WouldSleep(lane)),
            Patience::Never | Patience::Until(_) => Ok(()),
        }
    }
}

fn check_name(name: Name<'_>) {
    let bytes = name.to_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= 255);
    assert!(!bytes.contains(&b'/') && !bytes.contains(&0));
    assert!(bytes != b"." && bytes != b"..");
}

fn check_offset(offset: FileOffset) {
    assert!(offset.get() >= 0);
}

fn check_lock(op: op::Lock) {
    assert!(op.range.start <= op.range.end);
}

fn check_id(id: Option<u32>) {
    assert_ne!(id, Some(u32::MAX), "an id that means 'leave it'");
}

fn entry() -> Entry {
    Entry {
        node: NodeId::from_raw(7),
        entry_validity: Validity::default(),
        attr_validity: Validity::default(),
        attributes: Attributes::default(),
    }
}

fn attr() -> Attr {
    Attr {
        validity: Validity::default(),
        attributes: Attributes::default(),
    }
}

fn opened() -> Opened {
    Opened {
        handle: Fh::from_raw(5),
        flags: FopenFlags::empty(),
    }
}

fn list(into: &mut DirEntries<'_>, plus: Option<Entry>) -> Outcome<()> {
    for (next, name) in [&b"."[..], b"..", b"file", &[b'n'; 255]].iter().enumerate() {
        let entry = DirEntry {
            ino: 7,
            next: DirOffset(next as u64 + 1),
            kind: 8,
            name,
        };
        let pushed = match plus {
            Some(_) => into.push_plus(plus, &entry),
            None => into.push(&entry),
        };
        if pushed == Push::Full {
            break;
        }
    }
    Ok(())
}

impl Filesystem for Strict {
    fn wanted(&self) -> InitFlags {
        InitFlags::all()
    }

    fn begin(&self, negotiated: Negotiated) -> Result<(), Errno> {
        assert!((Negotiated::LEAST_MINOR..=Negotiated::NEWEST_MINOR).contains(&negotiated.minor));
        Ok(())
    }

    fn end(&self, _: HangUp) {}

    fn lookup(&self, _: &Context<'_>, _: NodeId, op: op::Lookup<'_>) -> Outcome<Entry> {
        match op.name {
            LookupName::Name(name) => check_name(name),
            LookupName::Myself | LookupName::Parent => {}
        }
        Ok(entry())
    }

    fn forget(&self, _: NodeId, _: u64) {}

    fn getattr(&self, cx: &Context<'_>, _: NodeId, _: op::Getattr) -> Outcome<Attr> {
        self.sleep(cx)?;
        Ok(attr())
    }

    fn setattr(&self, _: &Context<'_>, _: NodeId, op: op::Setattr) -> Outcome<Attr> {
        check_id(op.guest_uid.map(|id| id.0.0));
        check_id(op.guest_gid.map(|id| id.0.0));
        op.size.into_iter().for_each(check_offset);
        assert!(op.mode.is_none_or(|mode| mode.bits() <= 0o7777));
        Ok(attr())
    }

    fn readlink(&self, _: &Context<'_>, _: NodeId, into: &mut PageWriter<'_>) -> Outcome<()> {
        if into.push(b"../target") {
            Ok(())
        } else {
            Err(Refusal::Errno(Errno::NAMETOOLONG))
        }
    }

    fn symlink(&self, _: &Context<'_>, _: NodeId, op: op::Symlink<'_>) -> Outcome<Entry> {
        check_name(op.name);
        assert!(op.target.count_bytes() <= op::Symlink::TARGET_MAX);
        check_extras(op.extras);
        Ok(entry())
    }

    fn mknod(&self, _: &Context<'_>, _: NodeId, op: op::Mknod<'_>) -> Outcome<Entry> {
        check_name(op.name);
        check_extras(op.extras);
        assert!(op.mode.bits() <= 0o7777);
        Ok(entry())
    }

    fn mkdir(&self, _: &Context<'_>, _: NodeId, op: op::Mkdir<'_>) -> Outcome<Entry> {
        check_name(op.name);
        check_extras(op.extras);
        assert!(op.mode.bits() <= 0o7777);
        Ok(entry())
    }

    fn create(&self, _: &Context<'_>, _: NodeId, op: op::Create<'_>) -> Outcome<(Entry, Opened)> {
        check_name(op.name);
        check_extras(op.extras);
        assert!(op.mode.bits() <= 0o7777);
        Ok((entry(), opened()))
    }

    fn tmpfile(&self, _: &Context<'_>, _: NodeId, op: op::Tmpfile<'_>) -> Outcome<(Entry, Opened)> {
        check_extras(op.extras);
        Ok((entry(), opened()))
    }

    fn link(&self, _: &Context<'_>, _: NodeId, op: op::Link<'_>) -> Outcome<Entry> {
        check_name(op.name);
        Ok(entry())
    }

    fn unlink(&self, _: &Context<'_>, _: NodeId, op: op::Unlink<'_>) -> Outcome<()> {
        check_name(op.name);
        Ok(())
    }

    fn rmdir(&self, _: &Context<'_>, _: NodeId, op: op::Rmdir<'_>) -> Outcome<()> {
        check_name(op.name);
        Ok(())
    }

    fn rename(&self, _: &Context<'_>, _: NodeId, op: op::Rename<'_>) -> Outcome<()> {
        check_name(op.from);
        check_name(op.to);
        Ok(())
    }

    fn open(&self, _: &Context<'_>, _: NodeId, _: op::Open) -> Outcome<Opened> {
        Ok(opened())
    }

    fn read(
        &self,
        cx: &Context<'_>,
        _: NodeId,
        op: op::Read,
        into: GuestPages<'_, Writable>,
    ) -> Outcome<usize> {
        self.sleep(cx)?;
        check_offset(op.offset);
        assert!(into.len_bytes() <= op.size_bytes);
        let mut into = PageWriter::new(into);
        let data = vec![b'R'; into.room_bytes()];
        assert!(into.push(&data), "{} bytes of room", data.len());
        Ok(data.len())
    }

    fn write(
        &self,
        cx: &Context<'_>,
        _: NodeId,
        op: op::Write,
        from: GuestPages<'_, Readable>,
    ) -> Outcome<usize> {
        self.sleep(cx)?;
        check_offset(op.offset);
        assert_eq!(from.len_bytes(), op.size_bytes);
        let mut data = vec![0; op.size_bytes];
        assert_eq!(from.copy_out(&mut data), op.size_bytes);
        Ok(op.size_bytes)
    }

    fn flush(&self, _: &Context<'_>, _: NodeId, _: op::Flush) -> Outcome<()> {
        Ok(())
    }

    fn fsync(&self, cx: &Context<'_>, _: NodeId, _: op::Fsync) -> Outcome<()> {
        self.sleep(cx)
    }

    fn release(&self, _: &Context<'_>, _: NodeId, _: op::Release) -> Outcome<()> {
        Ok(())
    }

    fn opendir(&self, _: &Context<'_>, _: NodeId, _: op::Opendir) -> Outcome<Opened> {
        Ok(opened())
    }

    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        list(into, None)
    }

    fn readdirplus(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: op::Readdir,
        into: &mut DirEntries<'_>,
    ) -> Outcome<()> {
        list(into, Some(entry()))
    }

    fn fsyncdir(&self, cx: &Context<'_>, _: NodeId, _: op::Fsync) -> Outcome<()> {
        self.sleep(cx)
    }

    fn releasedir(&self, _: &Context<'_>, _: NodeId, _: op::Releasedir) -> Outcome<()> {
        Ok(())
    }

    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Outcome<Statistics> {
        Ok(Statistics::default())
    }

    fn syncfs(&self, cx: &Context<'_>, _: NodeId) -> Outcome<()> {
        self.sleep(cx)
    }

    fn fallocate(&self, _: &Context<'_>, _: NodeId, op: op::Fallocate) -> Outcome<()> {
        check_offset(op.offset);
        Ok(())
    }

    fn lseek(&self, _: &Context<'_>, _: NodeId, op: op::Lseek) -> Outcome<u64> {
        check_offset(op.offset);
        Ok(op.offset.get_u64())
    }

    fn copy_file_range(&self, cx: &Context<'_>, _: NodeId, op: op::CopyFileRange) -> Outcome<u64> {
        self.sleep(cx)?;
        Ok(op.len_bytes)
    }

    fn getlk(&self, _: &Context<'_>, _: NodeId, op: op::Lock) -> Outcome<Option<op::HeldLock>> {
        check_lock(op);
        // Somebody has a lock on the first half of all files.
        let is_free = op.range.start > i64::MAX as u64 / 2;
        Ok((!is_free).then_some(op::HeldLock {
            lock_type: op.lock_type,
            range: op.range,
            pid: op.pid,
        }))
    }

    fn setlk(&self, _: &Context<'_>, _: NodeId, op: op::Lock) -> Outcome<()> {
        check_lock(op);
        Ok(())
    }

    fn setlkw(&self, cx: &Context<'_>, _: NodeId, op: op::Lock) -> Outcome<()> {
        check_lock(op);
        self.sleep_for(cx, Lane::Lock)
    }

    fn ioctl(&self, _: &Context<'_>, _: NodeId, op: op::Ioctl<'_>) -> Outcome<Vec<u8>> {
        Ok(vec![b'I'; op.output_bytes.min(128)])
    }

    fn setxattr(&self, _: &Context<'_>, _: NodeId, _: op::Setxattr<'_>) -> Outcome<()> {
        Ok(())
    }

    fn getxattr(
        &self,
        _: &Context<'_>,
        _: NodeId,
        op: op::Getxattr<'_>,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        value(op.size_bytes, into)
    }

    fn listxattr(
        &self,
        _: &Context<'_>,
        _: NodeId,
        op: op::Listxattr,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        value(op.size_bytes, into)
    }

    fn removexattr(&self, _: &Context<'_>, _: NodeId, _: op::Removexattr<'_>) -> Outcome<()> {
        Ok(())
    }
}

fn check_extras(extras: op::Extras<'_>) {
    check_id(extras.supplementary_group.map(|id| id.0.0));
    if let Some(label) = extras.label {
        let name = label.name().to_bytes();
        assert!(name.starts_with(b"security.") && (10..=255).contains(&name.len()));
        assert!(!label.value().is_empty());
    }
}

/// Value or names of nine bytes: what fits, or the length.
fn value(size_bytes: usize, into: &mut PageWriter<'_>) -> Outcome<usize> {
    assert!(into.room_bytes() <= size_bytes);
    if size_bytes > 0 && !into.push(b"user.a\0b\0") {
        return Err(Refusal::Errno(Errno::RANGE));
    }
    Ok(9)
}
