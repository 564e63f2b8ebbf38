//! Sizes of files and what bounds them (man 2 truncate, man 2 setrlimit).

use rustix::fs::ftruncate;
use rustix::io::pwrite;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::kit::*;
use super::offsets::digits;
use super::sys::truncate as cut;

super::checks!("sizes":
    a_limit_cuts_a_write, beyond_a_limit_is_refused, a_limit_is_a_signal, cutting_beyond_a_limit,
    cutting_makes_shorter, cutting_makes_longer_with_zeros, cutting_to_nothing_and_back,
    what_was_cut_off_does_not_come_back, in_the_middle_of_a_page, cutting_below_zero,
    cutting_far_beyond, cutting_a_directory, cutting_by_name_needs_permission,
    cutting_through_a_descriptor_needs_none, cutting_what_is_not_there, cutting_a_fifo,
);

fn limit(bytes: u64) -> Outcome {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: None,
    };
    Ok(setrlimit(Resource::Fsize, limit)?)
}

fn a_limit_cuts_a_write() -> Outcome {
    super::sys::ignore_file_size_signal();
    let file = new("f")?;
    limit(7)?;
    is(pwrite(&file, b"0123456789", 0)?, 7)?;
    is(of("f")?.st_size, 7)
}

fn beyond_a_limit_is_refused() -> Outcome {
    super::sys::ignore_file_size_signal();
    let file = digits()?;
    limit(7)?;
    refused(pwrite(&file, b"x", 7), Errno::FBIG)?;
    put(&file, b"x", 6)?;
    refused(pwrite(&file, b"x", 100), Errno::FBIG)
}

fn a_limit_is_a_signal() -> Outcome {
    let file = digits()?;
    let mut child =
        super::sys::fork(|| u8::from(limit(7).is_err() || pwrite(&file, b"x", 7).is_err()))?;
    is(child.wait()?.terminating_signal(), Some(libc::SIGXFSZ))
}

fn cutting_beyond_a_limit() -> Outcome {
    super::sys::ignore_file_size_signal();
    let file = digits()?;
    limit(20)?;
    refused(ftruncate(&file, 21), Errno::FBIG)?;
    ftruncate(&file, 20)?;
    is(of("f")?.st_size, 20)
}

fn cutting_makes_shorter() -> Outcome {
    let file = digits()?;
    ftruncate(&file, 4)?;
    is(get(&file, 99, 0)?, b"0123".to_vec())
}

fn cutting_makes_longer_with_zeros() -> Outcome {
    let file = digits()?;
    ftruncate(&file, 10_000)?;
    is(get(&file, 20_000, 10)?, vec![0; 9990])
}

fn cutting_to_nothing_and_back() -> Outcome {
    let file = with("f", &[b'a'; 9000])?;
    ftruncate(&file, 0)?;
    ftruncate(&file, 9000)?;
    is(get(&file, 9999, 0)?, vec![0; 9000])
}

fn what_was_cut_off_does_not_come_back() -> Outcome {
    let file = with("f", &[b'a'; 9000])?;
    ftruncate(&file, 4100)?;
    put(&file, b"z", 8999)?;
    is(
        get(&file, 9999, 4099)?,
        [b"a".to_vec(), vec![0; 4899], b"z".to_vec()].concat(),
    )
}

fn in_the_middle_of_a_page() -> Outcome {
    let file = with("f", &[b'a'; 100])?;
    for size in [50, 60, 10, 4096, 20, 4097] {
        ftruncate(&file, size)?;
    }
    is(
        get(&file, 9999, 0)?,
        [vec![b'a'; 10], vec![0; 4087]].concat(),
    )
}

fn cutting_below_zero() -> Outcome {
    let file = digits()?;
    refused(ftruncate(&file, u64::MAX), Errno::INVAL)?;
    is(of("f")?.st_size, 10)
}

fn cutting_far_beyond() -> Outcome {
    let file = digits()?;
    match ftruncate(&file, i64::MAX.cast_unsigned()) {
        Ok(()) => is(of("f")?.st_size, i64::MAX)?,
        cut => refused_as(cut, &[Errno::FBIG, Errno::INVAL])?,
    }
    ftruncate(&file, 3)?;
    is(get(&file, 9, 0)?, b"012".to_vec())
}

fn cutting_a_directory() -> Outcome {
    dir("d")?;
    refused(cut("d", 0), Errno::ISDIR)
}

fn cutting_by_name_needs_permission() -> Outcome {
    given("f", ALICE, 0o646)?;
    as_user(BOB, || Ok(cut("f", 1)?))?;
    chmod("f", 0o644)?;
    as_user(BOB, || refused(cut("f", 0), Errno::ACCESS))?;
    is(of("f")?.st_size, 1)
}

fn cutting_through_a_descriptor_needs_none() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || {
        let file = open("f", OFlags::RDWR)?;
        chmod("f", 0)?;
        ftruncate(&file, 1)?;
        refused(cut("f", 0), Errno::ACCESS)
    })?;
    is(of("f")?.st_size, 1)
}

fn cutting_what_is_not_there() -> Outcome {
    refused(cut("f", 0), Errno::NOENT)?;
    refused(cut("", 0), Errno::NOENT)
}

fn cutting_a_fifo() -> Outcome {
    rustix::fs::mkfifoat(CWD, "p", mode(0o600))?;
    refused(cut("p", 0), Errno::INVAL)
}
