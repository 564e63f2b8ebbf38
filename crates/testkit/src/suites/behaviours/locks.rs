//! Locks of ranges that belong to processes (man 2 fcntl).

use super::kit::*;
use super::sys::{self, Kind::*, Owner::*, Range, in_the_way, lock, lock_waiting};

super::checks!("locks":
    writers_exclude_writers, readers_share, readers_exclude_writers, writers_exclude_readers,
    ranges_apart_do_not_meet, ranges_that_touch_do_not_meet, to_the_end_means_any_offset,
    a_process_is_not_in_its_own_way, a_lock_can_be_weakened, a_lock_can_be_strengthened,
    the_middle_can_be_given_back, neighbours_are_one_lock, the_holder_is_named,
    nobody_in_the_way_is_said, a_child_has_none_of_its_parents, any_close_gives_all_back,
    an_end_gives_all_back, reading_locks_need_reading, writing_locks_need_writing,
    a_negative_length_reaches_back, before_the_start_is_nothing, relative_to_the_end,
    relative_to_the_position, the_last_byte_of_all, one_waits_for_another,
    a_killed_wait_takes_nothing, locks_follow_the_file_through_a_rename,
);

/// The same file, opened once more.
pub(super) fn again() -> Outcome<std::os::fd::OwnedFd> {
    Ok(open("f", OFlags::RDWR)?)
}

/// Another process is refused (or not) a lock.
pub(super) fn elsewhere(range: Range, granted: bool) -> Outcome {
    in_child(|| {
        let file = again()?;
        match (granted, lock(&file, Process, range)) {
            (true, got) => Ok(got?),
            (false, got) => refused_as(got, &[Errno::AGAIN, Errno::ACCESS]),
        }
    })
}

fn held(held: sys::Kind, wanted: sys::Kind, granted: bool) -> Outcome {
    let file = with("f", b"0123456789")?;
    lock(&file, Process, Range::new(held, 0, 10))?;
    elsewhere(Range::new(wanted, 5, 1), granted)
}

fn writers_exclude_writers() -> Outcome {
    held(Write, Write, false)
}

fn readers_share() -> Outcome {
    held(Read, Read, true)
}

fn readers_exclude_writers() -> Outcome {
    held(Read, Write, false)
}

fn writers_exclude_readers() -> Outcome {
    held(Write, Read, false)
}

fn ranges_apart_do_not_meet() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 0, 10))?;
    elsewhere(Range::new(Write, 100, 10), true)
}

fn ranges_that_touch_do_not_meet() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 10, 10))?;
    elsewhere(Range::new(Write, 0, 10), true)?;
    elsewhere(Range::new(Write, 20, 10), true)?;
    elsewhere(Range::new(Write, 0, 11), false)?;
    elsewhere(Range::new(Write, 19, 1), false)
}

fn to_the_end_means_any_offset() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 10, 0))?;
    elsewhere(Range::new(Write, 0, 10), true)?;
    elsewhere(Range::new(Write, i64::MAX - 1, 1), false)
}

fn a_process_is_not_in_its_own_way() -> Outcome {
    let (one, other) = (new("f")?, again()?);
    lock(&one, Process, Range::new(Write, 0, 10))?;
    lock(&other, Process, Range::new(Write, 5, 10))?;
    is(in_the_way(&other, Process, Range::new(Write, 0, 0))?, None)
}

fn a_lock_can_be_weakened() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 0, 10))?;
    lock(&file, Process, Range::new(Read, 0, 10))?;
    elsewhere(Range::new(Read, 0, 10), true)?;
    elsewhere(Range::new(Write, 0, 10), false)
}

fn a_lock_can_be_strengthened() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Read, 0, 10))?;
    lock(&file, Process, Range::new(Write, 3, 2))?;
    elsewhere(Range::new(Read, 0, 3), true)?;
    elsewhere(Range::new(Read, 3, 2), false)?;
    elsewhere(Range::new(Read, 5, 5), true)
}

fn the_middle_can_be_given_back() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 0, 30))?;
    lock(&file, Process, Range::new(Unlock, 10, 10))?;
    elsewhere(Range::new(Write, 9, 1), false)?;
    elsewhere(Range::new(Write, 10, 10), true)?;
    elsewhere(Range::new(Write, 20, 1), false)
}

fn neighbours_are_one_lock() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 0, 10))?;
    lock(&file, Process, Range::new(Write, 10, 10))?;
    in_child(|| {
        let found = in_the_way(again()?, Process, Range::new(Read, 0, 1))?;
        is(
            found.map(|(range, _)| range),
            Some(Range::new(Write, 0, 20)),
        )
    })
}

fn the_holder_is_named() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Read, 7, 3))?;
    let holder = rustix::process::getpid().as_raw_nonzero().get();
    in_child(|| {
        let found = in_the_way(again()?, Process, Range::new(Write, 0, 0))?;
        is(found, Some((Range::new(Read, 7, 3), holder)))
    })
}

fn nobody_in_the_way_is_said() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Read, 0, 3))?;
    in_child(|| {
        is(in_the_way(again()?, Process, Range::new(Read, 0, 0))?, None)?;
        is(
            in_the_way(again()?, Process, Range::new(Write, 3, 0))?,
            None,
        )
    })
}

fn a_child_has_none_of_its_parents() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 0, 1))?;
    in_child(|| {
        // Through the very descriptor that was inherited.
        let got = lock(&file, Process, Range::new(Write, 0, 1));
        refused_as(got, &[Errno::AGAIN, Errno::ACCESS])
    })
}

fn any_close_gives_all_back() -> Outcome {
    let (one, other) = (new("f")?, open("f", OFlags::RDONLY)?);
    lock(&one, Process, Range::new(Write, 0, 0))?;
    drop(other);
    elsewhere(Range::new(Write, 0, 0), true)
}

fn an_end_gives_all_back() -> Outcome {
    let file = new("f")?;
    in_child(|| Ok(lock(&file, Process, Range::new(Write, 0, 0))?))?;
    Ok(lock(&file, Process, Range::new(Write, 0, 0))?)
}

fn reading_locks_need_reading() -> Outcome {
    new("f")?;
    let file = open("f", OFlags::WRONLY)?;
    refused(lock(&file, Process, Range::new(Read, 0, 1)), Errno::BADF)
}

fn writing_locks_need_writing() -> Outcome {
    new("f")?;
    let file = open("f", OFlags::RDONLY)?;
    refused(lock(&file, Process, Range::new(Write, 0, 1)), Errno::BADF)
}

fn a_negative_length_reaches_back() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, 10, -5))?;
    elsewhere(Range::new(Write, 0, 5), true)?;
    elsewhere(Range::new(Write, 5, 1), false)?;
    elsewhere(Range::new(Write, 10, 1), true)
}

fn before_the_start_is_nothing() -> Outcome {
    let file = new("f")?;
    refused(lock(&file, Process, Range::new(Write, -1, 1)), Errno::INVAL)?;
    refused(lock(&file, Process, Range::new(Write, 1, -2)), Errno::INVAL)
}

fn relative_to_the_end() -> Outcome {
    let file = with("f", b"0123456789")?;
    let range = Range {
        whence: libc::SEEK_END,
        ..Range::new(Write, -2, 2)
    };
    lock(&file, Process, range)?;
    elsewhere(Range::new(Write, 0, 8), true)?;
    elsewhere(Range::new(Write, 8, 1), false)?;
    elsewhere(Range::new(Write, 10, 1), true)
}

fn relative_to_the_position() -> Outcome {
    let file = with("f", b"0123456789")?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(4))?;
    let range = Range {
        whence: libc::SEEK_CUR,
        ..Range::new(Write, 1, 1)
    };
    lock(&file, Process, range)?;
    elsewhere(Range::new(Write, 4, 1), true)?;
    elsewhere(Range::new(Write, 5, 1), false)
}

fn the_last_byte_of_all() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Write, i64::MAX, 1))?;
    elsewhere(Range::new(Write, i64::MAX, 1), false)?;
    elsewhere(Range::new(Write, 0, i64::MAX), true)
}

/// Somebody waits for what this process holds, and gets it when that is given back.
pub(super) fn waits(
    hold: impl FnOnce() -> Outcome,
    wait: impl FnOnce() -> Outcome,
    give_back: impl FnOnce() -> Outcome,
) -> Outcome {
    hold()?;
    let task = Task::start(wait)?;
    holds(!task.child().ends_within(A_WHILE)?, "it waits")?;
    give_back()?;
    holds(task.child().ends_within(LIMIT)?, "it gets it")?;
    task.finish()
}

fn one_waits_for_another() -> Outcome {
    let file = new("f")?;
    waits(
        || Ok(lock(&file, Process, Range::new(Write, 0, 0))?),
        || Ok(lock_waiting(again()?, Process, Range::new(Write, 0, 1))?),
        || Ok(lock(&file, Process, Range::new(Unlock, 0, 0))?),
    )
}

fn a_killed_wait_takes_nothing() -> Outcome {
    let file = new("f")?;
    lock(&file, Process, Range::new(Read, 0, 0))?;
    let task = Task::start(|| Ok(lock_waiting(again()?, Process, Range::new(Write, 0, 0))?))?;
    holds(!task.child().ends_within(A_WHILE)?, "it waits")?;
    task.child().kill();
    let ended = task.child().ends_within(LIMIT)?;
    lock(&file, Process, Range::new(Unlock, 0, 0))?;
    holds(ended, "a signal ends the wait")?;
    elsewhere(Range::new(Write, 0, 0), true)
}

fn locks_follow_the_file_through_a_rename() -> Outcome {
    let file = new("before")?;
    lock(&file, Process, Range::new(Write, 0, 0))?;
    rustix::fs::rename("before", "f")?;
    elsewhere(Range::new(Write, 0, 0), false)
}
