//! Locks that reach the host: between owners, between guests on one share, and with the host.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

mod kit;

use std::fs::File;
use std::thread;
use std::time::Duration;

use kit::locker::{ALL, LAST, Locker, descriptors, flock_of, posix, share, waiting};
use kit::{Guest, READ, READ_WRITE, ROOT, WRITE};
use rustix::fs::{FlockOperation, flock};
use virtiofs_hostfs::{Options, RemoteLocks};
use virtiofs_protocol::op::{HeldLock, LockRange, LockType};
use virtiofs_protocol::{Cancel, Errno, Fh, Filesystem, HangUp, InitFlags};

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
