//! Locks of open files, and leases (man 2 fcntl, man 2 flock).

use rustix::fs::{FlockOperation, flock};

use super::kit::*;
use super::locks::{again, elsewhere, waits};
use super::sys::{Kind::*, Owner::*, Range, in_the_way, lease, lock, lock_waiting, set_lease};

super::checks!("file_locks":
    locks_outlive_the_name, open_files_exclude_one_another, an_open_file_owns_through_duplicates,
    an_open_file_is_inherited, open_files_and_processes_exclude_one_another,
    another_close_leaves_open_files_alone, the_holder_of_an_open_file_has_no_number,
    an_open_file_waits_for_another, flock_excludes_open_files, flock_is_shared,
    flock_of_a_duplicate_is_the_same, flock_is_converted, flock_works_on_what_is_read_only,
    flock_of_a_directory, flock_is_inherited_and_given_back_by_any,
    flock_goes_with_the_last_descriptor, flock_waits, flock_and_ranges_are_apart, a_reading_lease,
    a_writing_lease_alone, no_writing_lease_where_others_read,
    no_reading_lease_where_somebody_writes, no_lease_of_a_strangers_file,
);

fn locks_outlive_the_name() -> Outcome {
    let (file, other) = (new("f")?, again()?);
    lock(&file, OpenFile, Range::new(Write, 0, 0))?;
    rustix::fs::unlink("f")?;
    refused(lock(&other, OpenFile, Range::new(Read, 0, 0)), Errno::AGAIN)
}

fn open_files_exclude_one_another() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    lock(&one, OpenFile, Range::new(Write, 0, 10))?;
    refused(lock(&other, OpenFile, Range::new(Read, 9, 1)), Errno::AGAIN)?;
    lock(&other, OpenFile, Range::new(Read, 10, 1))?;
    lock(&one, OpenFile, Range::new(Unlock, 0, 10))?;
    Ok(lock(&other, OpenFile, Range::new(Write, 0, 20))?)
}

fn an_open_file_owns_through_duplicates() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    let duplicate = rustix::io::dup(&one)?;
    lock(&one, OpenFile, Range::new(Write, 0, 0))?;
    lock(&duplicate, OpenFile, Range::new(Write, 0, 0))?;
    drop(one);
    refused(
        lock(&other, OpenFile, Range::new(Write, 0, 0)),
        Errno::AGAIN,
    )?;
    lock(&duplicate, OpenFile, Range::new(Unlock, 0, 0))?;
    Ok(lock(&other, OpenFile, Range::new(Write, 0, 0))?)
}

fn an_open_file_is_inherited() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    lock(&one, OpenFile, Range::new(Write, 0, 0))?;
    in_child(|| Ok(lock(&one, OpenFile, Range::new(Unlock, 0, 0))?))?;
    Ok(lock(&other, OpenFile, Range::new(Write, 0, 0))?)
}

fn open_files_and_processes_exclude_one_another() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    lock(&one, OpenFile, Range::new(Write, 0, 0))?;
    refused(lock(&other, Process, Range::new(Read, 0, 0)), Errno::AGAIN)?;
    lock(&one, OpenFile, Range::new(Unlock, 0, 0))?;
    lock(&other, Process, Range::new(Read, 0, 0))?;
    refused(lock(&one, OpenFile, Range::new(Write, 0, 0)), Errno::AGAIN)
}

fn another_close_leaves_open_files_alone() -> Outcome {
    let (one, closed, other) = (new("f")?, again()?, again()?);
    lock(&one, OpenFile, Range::new(Write, 0, 0))?;
    drop(closed);
    refused(lock(&other, OpenFile, Range::new(Read, 0, 0)), Errno::AGAIN)
}

fn the_holder_of_an_open_file_has_no_number() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    lock(&one, OpenFile, Range::new(Write, 2, 3))?;
    let found = in_the_way(&other, OpenFile, Range::new(Read, 0, 0))?;
    is(found, Some((Range::new(Write, 2, 3), -1)))
}

fn an_open_file_waits_for_another() -> Outcome {
    let file = new("f")?;
    waits(
        || Ok(lock(&file, OpenFile, Range::new(Write, 0, 0))?),
        || Ok(lock_waiting(again()?, OpenFile, Range::new(Read, 0, 1))?),
        || Ok(lock(&file, OpenFile, Range::new(Unlock, 0, 0))?),
    )
}

const EXCLUSIVE: FlockOperation = FlockOperation::NonBlockingLockExclusive;

const SHARED: FlockOperation = FlockOperation::NonBlockingLockShared;

fn flock_excludes_open_files() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    flock(&one, EXCLUSIVE)?;
    refused(flock(&other, EXCLUSIVE), Errno::AGAIN)?;
    refused(flock(&other, SHARED), Errno::AGAIN)?;
    flock(&one, FlockOperation::Unlock)?;
    Ok(flock(&other, EXCLUSIVE)?)
}

fn flock_is_shared() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    flock(&one, SHARED)?;
    flock(&other, SHARED)?;
    refused(flock(&other, EXCLUSIVE), Errno::AGAIN)
}

fn flock_of_a_duplicate_is_the_same() -> Outcome {
    let one = new("f")?;
    flock(&one, EXCLUSIVE)?;
    Ok(flock(rustix::io::dup(&one)?, EXCLUSIVE)?)
}

fn flock_is_converted() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    flock(&one, EXCLUSIVE)?;
    flock(&one, SHARED)?;
    flock(&other, SHARED)?;
    flock(&other, FlockOperation::Unlock)?;
    flock(&one, EXCLUSIVE)?;
    refused(flock(&other, SHARED), Errno::AGAIN)
}

fn flock_works_on_what_is_read_only() -> Outcome {
    given("f", ALICE, 0o444)?;
    as_user(ALICE, || {
        let (one, other) = (open("f", OFlags::RDONLY)?, open("f", OFlags::RDONLY)?);
        flock(&one, EXCLUSIVE)?;
        refused(flock(&other, SHARED), Errno::AGAIN)
    })
}

fn flock_of_a_directory() -> Outcome {
    dir("d")?;
    let (one, other) = (open("d", OFlags::DIRECTORY)?, open("d", OFlags::DIRECTORY)?);
    flock(&one, EXCLUSIVE)?;
    refused(flock(&other, SHARED), Errno::AGAIN)
}

fn flock_is_inherited_and_given_back_by_any() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    flock(&one, EXCLUSIVE)?;
    in_child(|| Ok(flock(&one, FlockOperation::Unlock)?))?;
    Ok(flock(&other, EXCLUSIVE)?)
}

fn flock_goes_with_the_last_descriptor() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    let duplicate = rustix::io::dup(&one)?;
    flock(&one, EXCLUSIVE)?;
    drop(one);
    refused(flock(&other, SHARED), Errno::AGAIN)?;
    drop(duplicate);
    // Waiting, because a close need not wait until the lock is given back.
    Ok(flock(&other, FlockOperation::LockExclusive)?)
}

fn flock_waits() -> Outcome {
    let file = new("f")?;
    waits(
        || Ok(flock(&file, EXCLUSIVE)?),
        || Ok(flock(again()?, FlockOperation::LockShared)?),
        || Ok(flock(&file, FlockOperation::Unlock)?),
    )
}

fn flock_and_ranges_are_apart() -> Outcome {
    let file = new("f")?;
    flock(&file, EXCLUSIVE)?;
    elsewhere(Range::new(Write, 0, 0), true)
}

fn a_reading_lease() -> Outcome {
    new("f")?;
    let file = open("f", OFlags::RDONLY)?;
    set_lease(&file, libc::F_RDLCK)?;
    is(lease(&file)?, libc::F_RDLCK)?;
    set_lease(&file, libc::F_UNLCK)?;
    is(lease(&file)?, libc::F_UNLCK)
}

fn a_writing_lease_alone() -> Outcome {
    let file = new("f")?;
    set_lease(&file, libc::F_WRLCK)?;
    is(lease(&file)?, libc::F_WRLCK)
}

fn no_writing_lease_where_others_read() -> Outcome {
    let file = new("f")?;
    let _reads = open("f", OFlags::RDONLY)?;
    refused(set_lease(&file, libc::F_WRLCK), Errno::AGAIN)
}

fn no_reading_lease_where_somebody_writes() -> Outcome {
    let _writes = new("f")?;
    let file = open("f", OFlags::RDONLY)?;
    refused(set_lease(&file, libc::F_RDLCK), Errno::AGAIN)
}

fn no_lease_of_a_strangers_file() -> Outcome {
    given("f", ALICE, 0o644)?;
    as_user(BOB, || {
        let file = open("f", OFlags::RDONLY)?;
        refused(set_lease(&file, libc::F_RDLCK), Errno::ACCESS)
    })
}
