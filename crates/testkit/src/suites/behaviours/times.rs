//! Times that are set: by whom, and to what (man 2 utimensat).

use rustix::fs::{UTIME_NOW, futimens, utimensat};

use super::kit::*;

super::checks!("times":
    both_are_set, nanoseconds_are_kept, one_is_left_out, the_other_is_left_out,
    both_left_out_change_nothing, now_is_now, one_is_now, setting_moves_ctime, nonsense_is_refused,
    before_1970, beyond_2038, beyond_2106, far_away_is_clamped_or_kept, through_an_open_file,
    through_an_unlinked_file, of_a_symlinks_target, of_a_directory, of_a_fifo, of_what_is_not_there,
    the_owner_sets_any, a_writer_sets_now, a_writer_sets_no_other, a_stranger_sets_none,
    a_stranger_may_leave_both_out, the_owner_of_a_read_only_file,
);

fn both_are_set() -> Outcome {
    new("f")?;
    set_times("f", &times((1_000_000, 0), (2_000_000, 0)))?;
    is((atime("f")?.0, mtime("f")?.0), (1_000_000, 2_000_000))
}

fn nanoseconds_are_kept() -> Outcome {
    new("f")?;
    set_times("f", &times((1, 123_456_789), (2, 999_999_999)))?;
    is(
        (atime("f")?, mtime("f")?),
        ((1, 123_456_789), (2, 999_999_999)),
    )
}

fn one_is_left_out() -> Outcome {
    new("f")?;
    set_times("f", &times((1, 1), (2, 2)))?;
    set_times("f", &times((3, 3), OMIT))?;
    is((atime("f")?, mtime("f")?), ((3, 3), (2, 2)))
}

fn the_other_is_left_out() -> Outcome {
    new("f")?;
    set_times("f", &times((1, 1), (2, 2)))?;
    set_times("f", &times(OMIT, (3, 3)))?;
    is((atime("f")?, mtime("f")?), ((1, 1), (3, 3)))
}

fn both_left_out_change_nothing() -> Outcome {
    new("f")?;
    set_times("f", &times((1, 1), (2, 2)))?;
    let before = ctime("f")?;
    tick();
    set_times("f", &times(OMIT, OMIT))?;
    is(
        (atime("f")?, mtime("f")?, ctime("f")?),
        ((1, 1), (2, 2), before),
    )
}

const NOW: (i64, i64) = (0, UTIME_NOW);

fn now_is_now() -> Outcome {
    new("f")?;
    make_old("f")?;
    set_times("f", &times(NOW, NOW))?;
    let now = super::sys::coarse_now().0;
    let near = |then: i64| (now - then).abs() < 300;
    is((near(atime("f")?.0), near(mtime("f")?.0)), (true, true))
}

fn one_is_now() -> Outcome {
    new("f")?;
    make_old("f")?;
    set_times("f", &times((5, 5), NOW))?;
    is((atime("f")?, modified("f")?), ((5, 5), true))
}

fn setting_moves_ctime() -> Outcome {
    new("f")?;
    changes("f", || Ok(set_times("f", &times((1, 1), (2, 2)))?))
}

fn nonsense_is_refused() -> Outcome {
    new("f")?;
    refused(
        set_times("f", &times((1, 1_000_000_000), (2, 2))),
        Errno::INVAL,
    )?;
    refused(set_times("f", &times((1, 1), (2, -1))), Errno::INVAL)
}

fn kept(seconds: i64) -> Outcome {
    new("f")?;
    set_times("f", &times((seconds, 5), (seconds, 7)))?;
    is((atime("f")?, mtime("f")?), ((seconds, 5), (seconds, 7)))
}

fn before_1970() -> Outcome {
    kept(-1_000_000)
}

fn beyond_2038() -> Outcome {
    kept(1 << 31)
}

fn beyond_2106() -> Outcome {
    kept(1 << 32)
}

fn far_away_is_clamped_or_kept() -> Outcome {
    new("f")?;
    set_times("f", &times((1 << 40, 0), (1 << 40, 0)))?;
    let time = mtime("f")?.0;
    holds(time > 1 << 33 && time <= 1 << 40, &format!("{time}"))
}

fn through_an_open_file() -> Outcome {
    new("f")?;
    let file = open("f", OFlags::RDONLY)?;
    futimens(&file, &times((1, 1), (2, 2)))?;
    is((atime("f")?, mtime("f")?), ((1, 1), (2, 2)))
}

fn through_an_unlinked_file() -> Outcome {
    let file = new("f")?;
    rustix::fs::unlink("f")?;
    futimens(&file, &times((1, 1), (2, 2)))?;
    is(rustix::fs::fstat(&file)?.st_mtime, 2)
}

fn of_a_symlinks_target() -> Outcome {
    new("f")?;
    rustix::fs::symlink("f", "s")?;
    utimensat(CWD, "s", &times((1, 1), (2, 2)), AtFlags::empty())?;
    is(mtime("f")?, (2, 2))?;
    holds(mtime("s")?.0 > 2, "the link's stay")
}

fn of_a_directory() -> Outcome {
    dir("d")?;
    set_times("d", &times((1, 1), (2, 2)))?;
    is((atime("d")?, mtime("d")?), ((1, 1), (2, 2)))
}

fn of_a_fifo() -> Outcome {
    rustix::fs::mkfifoat(CWD, "p", mode(0o600))?;
    set_times("p", &times((1, 1), (2, 2)))?;
    is((atime("p")?, mtime("p")?), ((1, 1), (2, 2)))
}

fn of_what_is_not_there() -> Outcome {
    refused(set_times("f", &times((1, 1), (2, 2))), Errno::NOENT)
}

fn the_owner_sets_any() -> Outcome {
    given("f", ALICE, 0o644)?;
    as_user(ALICE, || Ok(set_times("f", &times((1, 1), (2, 2)))?))?;
    is(mtime("f")?, (2, 2))
}

fn a_writer_sets_now() -> Outcome {
    given("f", ALICE, 0o666)?;
    make_old("f")?;
    as_user(BOB, || Ok(set_times("f", &times(NOW, NOW))?))?;
    is(modified("f")?, true)
}

fn a_writer_sets_no_other() -> Outcome {
    given("f", ALICE, 0o666)?;
    as_user(BOB, || {
        refused(set_times("f", &times((1, 1), (2, 2))), Errno::PERM)?;
        refused(set_times("f", &times(OMIT, NOW)), Errno::PERM)?;
        refused(set_times("f", &times(NOW, OMIT)), Errno::PERM)
    })
}

fn a_stranger_sets_none() -> Outcome {
    given("f", ALICE, 0o644)?;
    as_user(BOB, || {
        refused(set_times("f", &times(NOW, NOW)), Errno::ACCESS)?;
        refused(set_times("f", &times((1, 1), (2, 2))), Errno::PERM)
    })
}

fn a_stranger_may_leave_both_out() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(BOB, || Ok(set_times("f", &times(OMIT, OMIT))?))
}

fn the_owner_of_a_read_only_file() -> Outcome {
    given("f", ALICE, 0o400)?;
    as_user(ALICE, || {
        set_times("f", &times(NOW, NOW))?;
        Ok(set_times("f", &times((1, 1), (2, 2)))?)
    })?;
    is(mtime("f")?, (2, 2))
}
