//! Locks that reach the host: between owners, between guests on one share, and with the host.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

mod kit;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kit::{Guest, READ, READ_WRITE, ROOT, WRITE};
use rustix::fs::{FlockOperation, flock};
use virtiofs_hostfs::{Options, RemoteLocks};
use virtiofs_protocol::op::{Flush, HeldLock, Lock, LockKind, LockRange, LockType, Release};
use virtiofs_protocol::{
    Cancel, Context, Errno, Fh, Filesystem, HangUp, InitFlags, Lane, LockOwner, NodeId, Outcome,
    Patience, Refusal,
};

const LAST: u64 = i64::MAX.unsigned_abs();
const ALL: (u64, u64) = (0, LAST);
const LIMIT: Duration = Duration::from_secs(20);

/// A guest on a share with one file, open for reading and writing.
struct Locker {
    guest: Guest,
    node: NodeId,
    file: Fh,
}

/// An owner's wish.
#[derive(Clone, Copy)]
struct Wish {
    owner: u64,
    kind: LockKind,
    lock_type: LockType,
    range: (u64, u64),
}

fn posix(owner: u64, lock_type: LockType, range: (u64, u64)) -> Wish {
    Wish {
        owner,
        kind: LockKind::Posix,
        lock_type,
        range,
    }
}

fn flock_of(lock_type: LockType) -> Wish {
    Wish {
        kind: LockKind::Flock,
        ..posix(1, lock_type, ALL)
    }
}

fn errno<T>(outcome: Outcome<T>) -> Result<T, Errno> {
    outcome.map_err(|refusal| match refusal {
        Refusal::Errno(errno) => errno,
        Refusal::WouldSleep(lane) => panic!("would sleep on {lane:?}"),
    })
}

impl Locker {
    fn on(share: &Path) -> Self {
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

    fn lock(&self, file: Fh, wish: Wish) -> Lock {
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

    fn set(&self, wish: Wish) -> Result<(), Errno> {
        self.set_through(self.file, wish)
    }

    fn set_through(&self, file: Fh, wish: Wish) -> Result<(), Errno> {
        let op = self.lock(file, wish);
        errno(self.guest.fs.setlk(&self.guest.cx(), self.node, op))
    }

    fn get(&self, wish: Wish) -> Result<Option<HeldLock>, Errno> {
        let op = self.lock(self.file, wish);
        errno(self.guest.fs.getlk(&self.guest.cx(), self.node, op))
    }

    /// SETLKW on a queue's thread.
    fn at_once(&self, wish: Wish) -> Outcome<()> {
        let cx = Context {
            patience: Patience::Never,
            ..self.guest.cx()
        };
        let op = self.lock(self.file, wish);
        self.guest.fs.setlkw(&cx, self.node, op)
    }

    /// SETLKW on a thread that may sleep.
    fn wait(&self, wish: Wish, cancel: &Cancel) -> Result<(), Errno> {
        let cx = Context {
            patience: Patience::Until(cancel),
            ..self.guest.cx()
        };
        let op = self.lock(self.file, wish);
        errno(self.guest.fs.setlkw(&cx, self.node, op))
    }

    fn flush(&self, owner: u64) {
        let op = Flush {
            file: self.file,
            owner: LockOwner(owner),
        };
        errno(self.guest.fs.flush(&self.guest.cx(), self.node, op)).unwrap();
    }

    fn release(&self, file: Fh) {
        let op = Release {
            file,
            owner: LockOwner(0),
        };
        errno(self.guest.fs.release(&self.guest.cx(), self.node, op)).unwrap();
    }
}

fn share() -> tempfile::TempDir {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"0123456789").unwrap();
    share
}

/// Open descriptors that this process has of the share's file; those with `O_PATH` are none.
fn descriptors(share: &Path) -> usize {
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

use LockType::{Read, Unlock, Write};

#[test]
fn locks_are_offered_where_the_operator_wants_them() {
    let share = share();
    let both = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    let without = Guest::on(share.path());
    assert!(!without.fs.wanted().intersects(both));
    assert!(Locker::on(share.path()).guest.fs.wanted().contains(both));
    let one = Options {
        flocks: RemoteLocks::On,
        ..Options::default()
    };
    let one = Guest::with(share.path(), one).fs.wanted();
    assert_eq!(one & both, InitFlags::FLOCK_LOCKS);
}

/// Two owners in one guest, and the same two wishes in two guests.
#[test]
fn owners_and_guests_exclude_one_another_by_range() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    let cases = [
        (Write, (0, 4), Write, (5, 9), true),
        (Write, (0, 4), Write, (4, 9), false),
        (Write, (0, 4), Read, (0, 0), false),
        (Read, (0, 4), Read, (2, 9), true),
        (Read, (0, 4), Write, (2, 9), false),
        (Write, (100, LAST), Read, (LAST, LAST), false),
        (Write, (100, LAST), Read, (0, 99), true),
    ];
    for (held, held_range, wanted, range, granted) in cases {
        one.set(posix(1, held, held_range)).unwrap();
        for (other, owner) in [(&one, 2), (&two, 1)] {
            let wish = posix(owner, wanted, range);
            let in_the_way = other.get(wish).unwrap();
            assert_eq!(in_the_way.is_none(), granted, "{held_range:?} {range:?}");
            let want = if granted { Ok(()) } else { Err(Errno::AGAIN) };
            assert_eq!(other.set(wish), want, "{held_range:?} {range:?}");
            other.set(posix(owner, Unlock, ALL)).unwrap();
        }
        one.set(posix(1, Unlock, ALL)).unwrap();
    }
}

#[test]
fn an_owner_converts_and_gives_back_parts_of_its_lock() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    one.set(posix(1, Read, (0, 99))).unwrap();
    one.set(posix(1, Write, (10, 19))).unwrap();
    one.set(posix(1, Unlock, (50, 59))).unwrap();
    let free = |lock_type, range| two.get(posix(1, lock_type, range)).unwrap().is_none();
    assert!(free(Read, (0, 9)) && !free(Write, (0, 9)));
    assert!(!free(Read, (10, 19)) && free(Read, (20, 49)));
    assert!(free(Write, (50, 59)) && !free(Write, (60, 99)));
    one.set(posix(1, Read, (10, 19))).unwrap();
    assert!(free(Read, (0, 99)));
}

#[test]
fn getlk_names_the_guests_own_process_and_no_other() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    one.set(posix(3, Write, (5, 7))).unwrap();
    let held = |pid| HeldLock {
        lock_type: Write,
        range: LockRange { start: 5, end: 7 },
        pid,
    };
    let wish = posix(4, Read, ALL);
    assert_eq!(one.get(wish), Ok(Some(held(300))));
    assert_eq!(two.get(wish), Ok(Some(held(0))));
    assert_eq!(one.get(posix(3, Write, ALL)), Ok(None), "its own");
    assert_eq!(one.get(posix(4, Unlock, ALL)), Err(Errno::INVAL));
    assert_eq!(one.get(flock_of(Write)), Err(Errno::INVAL));
}

/// One owner, whatever handle it uses: its locks are one set, and any close of the file ends it.
#[test]
fn an_owners_locks_are_its_own_through_every_handle_and_go_at_flush() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    let second = one.guest.open(one.node, READ).unwrap();
    one.set_through(second, posix(1, Read, (0, 9))).unwrap();
    one.set(posix(1, Write, (0, 9))).unwrap();
    one.set(posix(2, Read, (20, 29))).unwrap();
    assert_eq!(two.set(posix(1, Read, (0, 0))), Err(Errno::AGAIN));
    one.flush(1);
    assert_eq!(two.set(posix(1, Write, (0, 9))), Ok(()));
    assert_eq!(
        two.set(posix(1, Write, (20, 20))),
        Err(Errno::AGAIN),
        "another's"
    );
    two.flush(1);
    one.flush(2);
    // One handle each, and the second of the first.
    assert_eq!(descriptors(share.path()), 3);
}

/// A lock that an open file of the guest owns by itself (`F_OFD_SETLK` there) is told to nobody at
/// its end but by RELEASE.
#[test]
fn a_lock_of_an_open_file_goes_with_it() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    let second = one.guest.open(one.node, READ_WRITE).unwrap();
    one.set_through(second, posix(7, Write, ALL)).unwrap();
    one.flush(1);
    one.release(one.guest.open(one.node, READ).unwrap());
    assert_eq!(two.set(posix(1, Read, (0, 0))), Err(Errno::AGAIN));
    one.release(second);
    assert_eq!(two.set(posix(1, Write, ALL)), Ok(()));
}

#[test]
fn a_handle_allows_the_locks_that_its_access_does() {
    let share = share();
    let one = Locker::on(share.path());
    let (reads, writes) = (
        one.guest.open(one.node, READ).unwrap(),
        one.guest.open(one.node, WRITE).unwrap(),
    );
    let bad = Err(Errno::BADF);
    assert_eq!(one.set_through(reads, posix(1, Write, ALL)), bad);
    assert_eq!(one.set_through(writes, posix(1, Read, ALL)), bad);
    assert_eq!(one.set_through(reads, posix(1, Read, ALL)), Ok(()));
    assert_eq!(one.set_through(writes, posix(1, Write, ALL)), Ok(()));
    assert_eq!(one.set_through(reads, flock_of(Write)), Ok(()));
    let directory = one.guest.opendir(ROOT).unwrap();
    assert_eq!(one.set_through(directory, posix(1, Read, ALL)), bad);
    assert_eq!(one.set_through(Fh::from_raw(77), flock_of(Read)), bad);
}

#[test]
fn ranges_beyond_the_end_of_any_file_are_none() {
    let share = share();
    let one = Locker::on(share.path());
    let cases = [
        ((LAST, u64::MAX), Ok(())),
        ((0, u64::MAX), Ok(())),
        ((LAST + 1, u64::MAX), Err(Errno::INVAL)),
        ((u64::MAX, u64::MAX), Err(Errno::INVAL)),
    ];
    for (range, want) in cases {
        assert_eq!(one.set(posix(1, Write, range)), want, "{range:?}");
    }
}

#[test]
fn flocks_of_open_files_guests_and_the_host_exclude_one_another() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    let second = one.guest.open(one.node, READ).unwrap();
    let host = File::open(share.path().join("file")).unwrap();
    let on_host = |how| flock(&host, how);
    one.set(flock_of(Read)).unwrap();
    one.set_through(second, flock_of(Read)).unwrap();
    two.set(flock_of(Read)).unwrap();
    assert_eq!(on_host(FlockOperation::NonBlockingLockShared), Ok(()));
    assert_eq!(two.set(flock_of(Write)), Err(Errno::AGAIN));
    on_host(FlockOperation::Unlock).unwrap();
    one.set(flock_of(Unlock)).unwrap();
    one.set_through(second, flock_of(Unlock)).unwrap();
    // The failed conversion has cost the second guest its lock, as it does on one machine.
    one.set(flock_of(Write)).unwrap();
    let refused = Err(Errno::AGAIN);
    assert_eq!(one.set_through(second, flock_of(Read)), refused);
    assert_eq!(two.set(flock_of(Read)), refused);
    assert_eq!(on_host(FlockOperation::NonBlockingLockShared), refused);
    one.flush(1);
    assert_eq!(two.set(flock_of(Read)), refused, "a FLUSH is no RELEASE");
    one.release(one.file);
    assert_eq!(on_host(FlockOperation::NonBlockingLockExclusive), Ok(()));
    assert_eq!(two.set(flock_of(Read)), refused);
}

#[test]
fn both_families_ignore_one_another() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    one.set(flock_of(Write)).unwrap();
    assert_eq!(two.set(posix(1, Write, ALL)), Ok(()));
}

/// A queue's thread takes what is free, and parks the rest where no I/O waits.
#[test]
fn only_what_is_held_by_another_is_waited_for() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    for wish in [posix(1, Write, ALL), flock_of(Write)] {
        assert_eq!(one.at_once(wish), Ok(()));
        let wait = Err(Refusal::WouldSleep(Lane::Lock));
        assert_eq!(two.at_once(wish), wait);
        let gives_back = Wish {
            lock_type: Unlock,
            ..wish
        };
        assert_eq!(one.at_once(gives_back), Ok(()));
        assert_eq!(two.at_once(wish), Ok(()));
    }
    // What was refused has left nothing behind: two handles, and a description of the one who holds.
    assert_eq!(descriptors(share.path()), 3);
}

/// Waits in a thread of its own, and tells when it sleeps.
fn waiting<T>(
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

#[test]
fn a_wait_ends_with_the_lock_of_the_other_guest_or_of_the_host() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    let cancel = Cancel::default();
    for wish in [posix(1, Write, (0, 4)), flock_of(Write)] {
        one.set(wish).unwrap();
        let gives_back = Wish {
            lock_type: Unlock,
            ..wish
        };
        let (waited, ()) = waiting(&two, wish, &cancel, || one.set(gives_back).unwrap());
        assert_eq!(waited, Ok(()));
        assert_eq!(one.set(wish), Err(Errno::AGAIN), "not taken");
        two.set(gives_back).unwrap();
    }
    let host = File::open(share.path().join("file")).unwrap();
    flock(&host, FlockOperation::LockShared).unwrap();
    let (waited, ()) = waiting(&two, flock_of(Write), &cancel, || drop(host));
    assert_eq!(waited, Ok(()));
}

/// Each row: how a wait is given up, and its answer.
#[test]
fn a_wait_that_is_given_up_ends_and_takes_nothing() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    type GiveUp = fn(&Cancel);
    let cases: [(GiveUp, Errno); 3] = [
        (Cancel::interrupt, Errno::INTR),
        (Cancel::close, Errno::BADF),
        (Cancel::hang_up, Errno::NOLCK),
    ];
    for wish in [posix(1, Write, ALL), flock_of(Write)] {
        for (give_up, errno) in cases {
            one.set(wish).unwrap();
            let cancel = Cancel::default();
            let (waited, ()) = waiting(&two, wish, &cancel, || {
                give_up(&cancel);
                two.guest.fs.look_again();
            });
            assert_eq!(waited, Err(errno));
            let gives_back = Wish {
                lock_type: Unlock,
                ..wish
            };
            one.set(gives_back).unwrap();
            assert_eq!(one.set(wish), Ok(()), "the wait has taken it");
            one.set(gives_back).unwrap();
        }
    }
    assert_eq!(descriptors(share.path()), 2);
}

#[test]
fn who_waits_keeps_what_it_has_and_closing_gives_up_both() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    one.set(posix(1, Write, (0, 4))).unwrap();
    two.set(posix(1, Write, (5, 9))).unwrap();
    let cancel = Cancel::default();
    let (waited, ()) = waiting(&two, posix(1, Write, (0, 4)), &cancel, || {
        assert_eq!(one.set(posix(1, Read, (5, 5))), Err(Errno::AGAIN));
        // As a session does it.
        cancel.close();
        two.guest.fs.look_again();
        two.flush(1);
        assert_eq!(one.set(posix(1, Write, (5, 9))), Ok(()));
    });
    assert_eq!(waited, Err(Errno::BADF));
    one.flush(1);
    assert_eq!(one.set(posix(1, Write, ALL)), Ok(()));
}

/// The kernel finds circles of processes, and these are open files.
#[test]
fn owners_that_wait_for_one_another_wait_until_one_is_given_up() {
    let share = share();
    let one = Locker::on(share.path());
    one.set(posix(1, Write, (1, 1))).unwrap();
    one.set(posix(2, Write, (2, 2))).unwrap();
    let (first, second) = (Cancel::default(), Cancel::default());
    let (waited, other) = waiting(&one, posix(1, Write, (2, 2)), &first, || {
        let (other, ()) = waiting(&one, posix(2, Write, (1, 1)), &second, || {
            second.interrupt();
            one.guest.fs.look_again();
        });
        one.flush(2);
        other
    });
    assert_eq!((waited, other), (Ok(()), Err(Errno::INTR)));
}

#[test]
fn the_end_of_a_session_gives_everything_back() {
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    let waits = Cancel::default();
    one.set(posix(1, Write, (0, 4))).unwrap();
    one.set(flock_of(Write)).unwrap();
    two.set(posix(1, Write, (5, 9))).unwrap();
    let (waited, ()) = waiting(&one, posix(2, Write, (5, 9)), &waits, || {
        waits.hang_up();
        one.guest.fs.look_again();
        one.guest.fs.end(HangUp::Disconnected);
        assert_eq!(two.set(posix(1, Write, ALL)), Ok(()));
        assert_eq!(two.set(flock_of(Write)), Ok(()));
    });
    assert_eq!(waited, Err(Errno::NOLCK));
    assert_eq!(descriptors(share.path()), 2);
}

/// Owners that take, convert, await and give back ranges all at once: a counter under the lock is
/// never changed by two, and nothing is left.
#[test]
fn contending_owners_of_two_guests_are_never_inside_together() {
    const ROUNDS: usize = 300;
    let share = share();
    let guests = [Locker::on(share.path()), Locker::on(share.path())];
    let inside = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        for owner in 1..=4_u64 {
            let (guest, inside) = (&guests[usize::try_from(owner % 2).unwrap()], &inside);
            scope.spawn(move || {
                let cancel = Cancel::default();
                for _ in 0..ROUNDS {
                    guest.wait(posix(owner, Write, (3, 5)), &cancel).unwrap();
                    assert!(!inside.swap(true, Ordering::SeqCst), "two inside");
                    thread::yield_now();
                    inside.store(false, Ordering::SeqCst);
                    if owner < 3 {
                        guest.set(posix(owner, Unlock, (0, 9))).unwrap();
                    } else {
                        guest.flush(owner);
                    }
                }
            });
        }
    });
    assert_eq!(descriptors(share.path()), 2);
}

/// The kernel goes through all of an inode's ranges at every call: there is a limit.
#[test]
fn o_a_hundred_thousand_ranges_are_refused_at_the_limit_and_all_given_back() {
    const LIMIT: usize = 16_384;
    let share = share();
    let one = Locker::on(share.path());
    let byte = |number: u64| (number * 2, number * 2);
    let mut granted = 0;
    for number in 0..100_000 {
        match one.set(posix(1, Write, byte(number))) {
            Ok(()) => granted += 1,
            Err(errno) => assert_eq!(errno, Errno::NOLCK),
        }
    }
    assert!((LIMIT - 2..=LIMIT).contains(&granted), "{granted}");
    assert_eq!(
        one.set(posix(2, Write, (900_000, 900_000))),
        Err(Errno::NOLCK)
    );
    one.set(posix(1, Unlock, ALL)).unwrap();
    assert_eq!(descriptors(share.path()), 1);
    // Holes in one lock count as well.
    one.set(posix(1, Write, ALL)).unwrap();
    let mut holes = 0;
    while one.set(posix(1, Unlock, byte(holes + 1))).is_ok() {
        holes += 1;
        assert!(holes < 100_000, "no limit");
    }
    assert_eq!(usize::try_from(holes).unwrap(), LIMIT - 1);
    one.flush(1);
    one.set(posix(2, Write, byte(1))).unwrap();
}

/// Waits that begin below the limit end above it; what was granted can be given back all the same.
#[test]
fn above_the_limit_of_ranges_what_shrinks_is_granted() {
    const LIMIT: u64 = 16_384;
    let share = share();
    let (one, two) = (Locker::on(share.path()), Locker::on(share.path()));
    for number in 0..LIMIT - 2 {
        one.set(posix(1, Write, (number * 2, number * 2))).unwrap();
    }
    let far = (1 << 40, 1 << 40);
    two.set(posix(1, Write, far)).unwrap();
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let waiters: Vec<_> = (2..6)
            .map(|owner| {
                scope.spawn({
                    let (one, cancel) = (&one, &cancel);
                    move || one.wait(posix(owner, Read, far), cancel)
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        two.set(posix(1, Unlock, ALL)).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(()));
        }
    });
    assert_eq!(one.set(posix(6, Read, far)), Err(Errno::NOLCK));
    assert_eq!(one.set(posix(2, Unlock, far)), Ok(()));
    assert_eq!(one.set(posix(1, Unlock, ALL)), Ok(()));
    assert_eq!(one.set(posix(6, Read, far)), Ok(()));
}
