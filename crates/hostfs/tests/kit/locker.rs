//! Guests that lock one file.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Guest, READ_WRITE, ROOT};
use virtiofs_hostfs::{Options, RemoteLocks};
use virtiofs_protocol::op::{Flush, HeldLock, Lock, LockKind, LockRange, LockType, Release};
use virtiofs_protocol::{
    Cancel, Context, Errno, Fh, Filesystem, LockOwner, NodeId, Outcome, Patience, Refusal,
};

pub(crate) const LAST: u64 = i64::MAX.unsigned_abs();
pub(crate) const ALL: (u64, u64) = (0, LAST);
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A guest on a share with one file, open for reading and writing.
pub(crate) struct Locker {
    pub(crate) guest: Guest,
    pub(crate) node: NodeId,
    pub(crate) file: Fh,
}

/// An owner's wish.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) owner: u64,
    pub(crate) kind: LockKind,
    pub(crate) lock_type: LockType,
    pub(crate) range: (u64, u64),
}

pub(crate) fn posix(owner: u64, lock_type: LockType, range: (u64, u64)) -> Wish {
    Wish {
        owner,
        kind: LockKind::Posix,
        lock_type,
        range,
    }
}

pub(crate) fn flock_of(lock_type: LockType) -> Wish {
    Wish {
        kind: LockKind::Flock,
        ..posix(1, lock_type, ALL)
    }
}

pub(crate) fn errno<T>(outcome: Outcome<T>) -> Result<T, Errno> {
    outcome.map_err(|refusal| match refusal {
        Refusal::Errno(errno) => errno,
        Refusal::WouldSleep(lane) => panic!("would sleep on {lane:?}"),
    })
}

impl Locker {
    pub(crate) fn on(share: &Path) -> Self {
        let options = Options {
            posix_locks: RemoteLocks::On,
            flocks: RemoteLocks::On,
            ..Options::default()
        };
        let guest = Guest::with(share, options);
        let node = guest.lookup(ROOT, "file").unwrap().node;
        let file = guest.open(node, READ_WRITE).unwrap();
        Self { guest, node, file }
    }

    pub(crate) fn lock(&self, file: Fh, wish: Wish) -> Lock {
        Lock {
            file,
            owner: LockOwner(wish.owner),
            kind: wish.kind,
            lock_type: wish.lock_type,
            range: LockRange {
                start: wish.range.0,
                end: wish.range.1,
            },
            pid: u32::try_from(wish.owner * 100).unwrap(),
        }
    }

    pub(crate) fn set(&self, wish: Wish) -> Result<(), Errno> {
        self.set_through(self.file, wish)
    }

    pub(crate) fn set_through(&self, file: Fh, wish: Wish) -> Result<(), Errno> {
        let op = self.lock(file, wish);
        errno(self.guest.fs.setlk(&self.guest.cx(), self.node, op))
    }

    pub(crate) fn get(&self, wish: Wish) -> Result<Option<HeldLock>, Errno> {
        let op = self.lock(self.file, wish);
        errno(self.guest.fs.getlk(&self.guest.cx(), self.node, op))
    }

    /// SETLKW on a queue's thread.
    pub(crate) fn at_once(&self, wish: Wish) -> Outcome<()> {
        let cx = Context {
            patience: Patience::Never,
            ..self.guest.cx()
        };
        let op = self.lock(self.file, wish);
        self.guest.fs.setlkw(&cx, self.node, op)
    }

    /// SETLKW on a thread that may sleep.
    pub(crate) fn wait(&self, wish: Wish, cancel: &Cancel) -> Result<(), Errno> {
        let cx = Context {
            patience: Patience::Until(cancel),
            ..self.guest.cx()
        };
        let op = self.lock(self.file, wish);
        errno(self.guest.fs.setlkw(&cx, self.node, op))
    }

    pub(crate) fn flush(&self, owner: u64) {
        let op = Flush {
            file: self.file,
            owner: LockOwner(owner),
        };
        errno(self.guest.fs.flush(&self.guest.cx(), self.node, op)).unwrap();
    }

    pub(crate) fn release(&self, file: Fh) {
        let op = Release {
            file,
            owner: LockOwner(0),
        };
        errno(self.guest.fs.release(&self.guest.cx(), self.node, op)).unwrap();
    }
}

pub(crate) fn share() -> tempfile::TempDir {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"0123456789").unwrap();
    share
}

/// Open descriptors that this process has of the share's file; those with `O_PATH` are none.
pub(crate) fn descriptors(share: &Path) -> usize {
    let file = share.join("file");
    let is_open = |number: &std::ffi::OsStr| -> Option<bool> {
        let about = std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).ok()?;
        let flags = about.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
        Some(flags & rustix::fs::OFlags::PATH.bits() == 0)
    };
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file))
        .filter(|entry| is_open(&entry.file_name()) == Some(true))
        .count()
}

/// Waits in a thread of its own, and tells when it sleeps.
pub(crate) fn waiting<T>(
    locker: &Locker,
    wish: Wish,
    cancel: &Cancel,
    meanwhile: impl FnOnce() -> T,
) -> (Result<(), Errno>, T) {
    thread::scope(|scope| {
        let waiter = scope.spawn(|| locker.wait(wish, cancel));
        thread::sleep(Duration::from_millis(30));
        assert!(!waiter.is_finished(), "it does not wait");
        let done = meanwhile();
        let deadline = Instant::now() + LIMIT;
        while !waiter.is_finished() {
            assert!(Instant::now() < deadline, "it waits for ever");
            thread::sleep(Duration::from_millis(1));
        }
        (waiter.join().unwrap(), done)
    })
}
