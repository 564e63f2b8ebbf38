//! Waiting for locks: who waits, and how a wait ends.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

mod kit;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kit::locker::{ALL, Locker, Wish, descriptors, flock_of, posix, share, waiting};
use rustix::fs::{FlockOperation, flock};
use virtiofs_protocol::op::LockType::{Read, Unlock, Write};
use virtiofs_protocol::{Cancel, Errno, Filesystem, Lane, Refusal};

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
