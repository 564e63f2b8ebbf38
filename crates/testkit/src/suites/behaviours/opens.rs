//! Opening: making, cutting, appending (man 2 open).

use rustix::fs::{fcntl_setfl, symlink};
use rustix::io::{read, write};

use super::kit::*;

super::checks!("opens":
    creating_makes_a_file, creating_opens_what_is_there, exclusively_refuses_what_is_there,
    exclusively_makes_what_is_not, the_umask_counts, a_read_only_mode_is_for_the_next_one,
    what_is_not_there_is_not_opened, a_directory_opens_for_reading_only, a_directory_on_demand,
    a_directory_that_is_none, creating_a_directory_is_refused, a_trailing_slash_is_a_directory,
    trunc_cuts, trunc_of_what_is_only_read, trunc_keeps_the_inode, trunc_needs_permission,
    append_writes_at_the_end, append_ignores_the_position, append_of_two_loses_nothing,
    append_is_switched_on_and_off, reading_only_is_not_written, writing_only_is_not_read,
);

fn creating_makes_a_file() -> Outcome {
    open("f", OFlags::CREATE | OFlags::WRONLY)?;
    let stat = of("f")?;
    is(
        (stat.st_mode, stat.st_size, stat.st_nlink),
        (0o100_644, 0, 1),
    )
}

fn creating_opens_what_is_there() -> Outcome {
    with("f", b"text")?;
    let file = open("f", OFlags::CREATE | OFlags::RDWR)?;
    is(get(&file, 9, 0)?, b"text".to_vec())
}

fn exclusively_refuses_what_is_there() -> Outcome {
    new("f")?;
    dir("d")?;
    let exclusive = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    refused(open("f", exclusive), Errno::EXIST)?;
    refused(open("d", exclusive), Errno::EXIST)
}

fn exclusively_makes_what_is_not() -> Outcome {
    open("f", OFlags::CREATE | OFlags::EXCL)?;
    is(exists("f"), true)
}

fn the_umask_counts() -> Outcome {
    rustix::process::umask(mode(0o137));
    rustix::fs::open("f", OFlags::CREATE, mode(0o777))?;
    rustix::fs::mkdir("d", mode(0o777))?;
    is((bits("f")?, bits("d")?), (0o640, 0o640))
}

fn a_read_only_mode_is_for_the_next_one() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    as_user(BOB, || {
        let file = rustix::fs::open("d/f", OFlags::CREATE | OFlags::RDWR, mode(0o000))?;
        put(&file, b"text", 0)?;
        is(get(&file, 9, 0)?, b"text".to_vec())?;
        refused(open("d/f", OFlags::RDONLY), Errno::ACCESS)
    })
}

fn what_is_not_there_is_not_opened() -> Outcome {
    refused(open("f", OFlags::RDWR), Errno::NOENT)?;
    refused(open("d/f", OFlags::CREATE | OFlags::RDWR), Errno::NOENT)
}

fn a_directory_opens_for_reading_only() -> Outcome {
    dir("d")?;
    open("d", OFlags::RDONLY)?;
    refused(open("d", OFlags::WRONLY), Errno::ISDIR)?;
    refused(open("d", OFlags::RDWR), Errno::ISDIR)?;
    refused(open("d", OFlags::RDONLY | OFlags::TRUNC), Errno::ISDIR)
}

fn a_directory_on_demand() -> Outcome {
    dir("d")?;
    open("d", OFlags::DIRECTORY)?;
    let directory = open("d", OFlags::RDONLY)?;
    refused(read(&directory, &mut [0_u8; 9][..]), Errno::ISDIR)
}

fn a_directory_that_is_none() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    refused(open("f", OFlags::DIRECTORY), Errno::NOTDIR)?;
    refused(open("s", OFlags::DIRECTORY), Errno::NOTDIR)
}

fn creating_a_directory_is_refused() -> Outcome {
    dir("d")?;
    refused(open("d", OFlags::CREATE | OFlags::RDONLY), Errno::ISDIR)?;
    refused(open("f/", OFlags::CREATE | OFlags::RDWR), Errno::ISDIR)
}

fn a_trailing_slash_is_a_directory() -> Outcome {
    dir("d")?;
    new("f")?;
    open("d/", OFlags::RDONLY)?;
    refused(open("f/", OFlags::RDONLY), Errno::NOTDIR)
}

fn trunc_cuts() -> Outcome {
    with("f", b"text")?;
    open("f", OFlags::WRONLY | OFlags::TRUNC)?;
    is(of("f")?.st_size, 0)
}

/// Unspecified by POSIX; Linux cuts.
fn trunc_of_what_is_only_read() -> Outcome {
    with("f", b"text")?;
    open("f", OFlags::RDONLY | OFlags::TRUNC)?;
    is(of("f")?.st_size, 0)
}

fn trunc_keeps_the_inode() -> Outcome {
    with("f", b"text")?;
    chmod("f", 0o604)?;
    let inode = of("f")?.st_ino;
    open("f", OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
    is((of("f")?.st_ino, bits("f")?), (inode, 0o604))
}

fn trunc_needs_permission() -> Outcome {
    given("f", ALICE, 0o644)?;
    as_user(BOB, || {
        refused(open("f", OFlags::RDONLY | OFlags::TRUNC), Errno::ACCESS)
    })?;
    is(of("f")?.st_size, 2)
}

const APPENDS: OFlags = OFlags::APPEND.union(OFlags::RDWR);

fn append_writes_at_the_end() -> Outcome {
    with("f", b"text")?;
    let file = open("f", APPENDS)?;
    is(write(&file, b"more")?, 4)?;
    is(
        (rustix::fs::tell(&file)?, text("f")?),
        (8, "textmore".to_owned()),
    )
}

fn append_ignores_the_position() -> Outcome {
    with("f", b"text")?;
    let file = open("f", APPENDS)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    write(&file, b"1")?;
    // Linux's pwrite appends as well, against POSIX (man 2 pwrite).
    put(&file, b"2", 0)?;
    is(text("f")?, "text12".to_owned())
}

fn append_of_two_loses_nothing() -> Outcome {
    let one = open("f", APPENDS | OFlags::CREATE)?;
    let task = Task::start(|| {
        let other = open("f", APPENDS)?;
        for _ in 0..200 {
            write(&other, b"child\n")?;
        }
        Ok(())
    })?;
    for _ in 0..200 {
        write(&one, b"parent\n")?;
    }
    task.finish()?;
    let text = text("f")?;
    let count = |line: &str| text.lines().filter(|other| *other == line).count();
    is(
        (count("child"), count("parent"), text.len()),
        (200, 200, 200 * 13),
    )
}

fn append_is_switched_on_and_off() -> Outcome {
    let file = with("f", b"text")?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    write(&file, b"1")?;
    fcntl_setfl(&file, OFlags::empty())?;
    put(&file, b"T", 0)?;
    is(text("f")?, "Text1".to_owned())
}

fn reading_only_is_not_written() -> Outcome {
    with("f", b"text")?;
    let file = open("f", OFlags::RDONLY)?;
    refused(write(&file, b"x"), Errno::BADF)?;
    refused_as(
        rustix::fs::ftruncate(&file, 0),
        &[Errno::BADF, Errno::INVAL],
    )
}

fn writing_only_is_not_read() -> Outcome {
    with("f", b"text")?;
    let file = open("f", OFlags::WRONLY)?;
    refused(read(&file, &mut [0_u8; 1][..]), Errno::BADF)
}
