//! Bytes that the kernel copies from file to file (man 2 copy_file_range, sendfile, splice).

use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek, sendfile};

use super::kit::*;

super::checks!("copies":
    a_whole_file, a_part_into_a_part, from_where_the_positions_are, the_end_is_the_end,
    behind_the_end_is_nothing, nothing_is_nothing, within_a_file, onto_itself_is_refused,
    from_what_is_not_readable, to_what_is_not_writable, to_what_appends, from_a_directory,
    from_a_pipe_is_refused, the_target_shows_it_in_its_times, the_source_stays,
    set_ids_of_the_target_go, beyond_a_limit, a_far_offset, with_unknown_flags, a_large_one,
    a_clone, sendfile_from_a_file, sendfile_into_a_file, splice_through_a_pipe,
);

fn two(from: &[u8], to: &[u8]) -> Outcome<(OwnedFd, OwnedFd)> {
    Ok((with("from", from)?, with("to", to)?))
}

fn copy(from: &OwnedFd, at: u64, to: &OwnedFd, there: u64, len: usize) -> Result<usize, Errno> {
    let (mut at, mut there) = (at, there);
    copy_file_range(from, Some(&mut at), to, Some(&mut there), len)
}

fn a_whole_file() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    is(copy(&from, 0, &to, 0, 10)?, 10)?;
    is(get(&to, 99, 0)?, b"0123456789".to_vec())
}

fn a_part_into_a_part() -> Outcome {
    let (from, to) = two(b"0123456789", b"abcdefghij")?;
    is(copy(&from, 2, &to, 5, 3)?, 3)?;
    is(get(&to, 99, 0)?, b"abcde234ij".to_vec())
}

fn from_where_the_positions_are() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    seek(&from, SeekFrom::Start(4))?;
    seek(&to, SeekFrom::Start(1))?;
    is(copy_file_range(&from, None, &to, None, 2)?, 2)?;
    is((rustix::fs::tell(&from)?, rustix::fs::tell(&to)?), (6, 3))?;
    is(get(&to, 99, 0)?, b"\x0045".to_vec())
}

fn the_end_is_the_end() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    is(copy(&from, 8, &to, 0, 100)?, 2)?;
    is(get(&to, 99, 0)?, b"89".to_vec())
}

fn behind_the_end_is_nothing() -> Outcome {
    let (from, to) = two(b"0123456789", b"ab")?;
    is(copy(&from, 100, &to, 0, 5)?, 0)?;
    is(get(&to, 99, 0)?, b"ab".to_vec())
}

fn nothing_is_nothing() -> Outcome {
    let (from, to) = two(b"0123456789", b"ab")?;
    is(copy(&from, 0, &to, 0, 0)?, 0)
}

fn within_a_file() -> Outcome {
    let file = with("f", b"0123456789")?;
    is(copy(&file, 0, &file, 5, 5)?, 5)?;
    is(get(&file, 99, 0)?, b"0123401234".to_vec())
}

fn onto_itself_is_refused() -> Outcome {
    let file = with("f", b"0123456789")?;
    refused(copy(&file, 0, &file, 3, 5), Errno::INVAL)
}

fn from_what_is_not_readable() -> Outcome {
    let (_, to) = two(b"01", b"")?;
    let from = open("from", OFlags::WRONLY)?;
    refused(copy(&from, 0, &to, 0, 1), Errno::BADF)
}

fn to_what_is_not_writable() -> Outcome {
    let (from, _) = two(b"01", b"")?;
    let to = open("to", OFlags::RDONLY)?;
    refused(copy(&from, 0, &to, 0, 1), Errno::BADF)
}

fn to_what_appends() -> Outcome {
    let (from, _) = two(b"01", b"")?;
    let to = open("to", OFlags::WRONLY | OFlags::APPEND)?;
    refused(copy(&from, 0, &to, 0, 1), Errno::BADF)
}

fn from_a_directory() -> Outcome {
    let to = new("to")?;
    dir("d")?;
    let from = open("d", OFlags::RDONLY)?;
    refused(copy(&from, 0, &to, 0, 1), Errno::ISDIR)
}

fn from_a_pipe_is_refused() -> Outcome {
    let to = new("to")?;
    let (from, _) = rustix::pipe::pipe()?;
    refused(copy_file_range(&from, None, &to, None, 1), Errno::INVAL)
}

fn the_target_shows_it_in_its_times() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    make_old("to")?;
    changes("to", || is(copy(&from, 0, &to, 0, 5)?, 5))?;
    is(modified("to")?, true)
}

fn the_source_stays() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    make_old("from")?;
    copy(&from, 0, &to, 0, 10)?;
    is(
        (modified("from")?, get(&from, 99, 0)?),
        (false, b"0123456789".to_vec()),
    )
}

fn set_ids_of_the_target_go() -> Outcome {
    given("from", ALICE, 0o666)?;
    given("to", ALICE, 0o6777)?;
    as_user(BOB, || {
        let (from, to) = (open("from", OFlags::RDONLY)?, open("to", OFlags::WRONLY)?);
        is(copy(&from, 0, &to, 0, 1)?, 1)
    })?;
    is(bits("to")?, 0o777)
}

fn beyond_a_limit() -> Outcome {
    use rustix::process::{Resource, Rlimit, setrlimit};
    super::sys::ignore_file_size_signal();
    let (from, to) = two(b"0123456789", b"")?;
    let limit = Rlimit {
        current: Some(4),
        maximum: None,
    };
    setrlimit(Resource::Fsize, limit)?;
    is(copy(&from, 0, &to, 0, 10)?, 4)?;
    refused(copy(&from, 0, &to, 4, 1), Errno::FBIG)
}

fn a_far_offset() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    is(copy(&from, 0, &to, 5 << 30, 10)?, 10)?;
    is(get(&to, 99, 5 << 30)?, b"0123456789".to_vec())?;
    is(copy(&to, 5 << 30, &from, 10, 10)?, 10)
}

fn with_unknown_flags() -> Outcome {
    let (from, to) = two(b"01", b"")?;
    // Lengths beyond what off_t holds are nonsense as well.
    let copied = copy(&from, u64::MAX, &to, 0, 1);
    refused_as(copied, &[Errno::INVAL, Errno::OVERFLOW])
}

fn a_large_one() -> Outcome {
    let bytes: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
    let (from, to) = two(&bytes, b"")?;
    let mut copied = 0;
    while copied < bytes.len() {
        let at = u64::try_from(copied).unwrap_or(u64::MAX);
        let more = copy(&from, at, &to, at, bytes.len())?;
        holds(more > 0, "it goes on")?;
        copied += more;
    }
    is(std::fs::read("to")? == bytes, true)
}

fn a_clone() -> Outcome {
    let bytes = vec![7; 256 << 10];
    let (from, to) = two(&bytes, b"")?;
    ioctl_ficlone(&to, &from)?;
    put(&from, b"other", 0)?;
    is(std::fs::read("to")? == bytes, true)
}

fn sendfile_from_a_file() -> Outcome {
    let from = with("from", b"0123456789")?;
    let (reads, writes) = rustix::pipe::pipe()?;
    let mut at = 3;
    is(sendfile(&writes, &from, Some(&mut at), 4)?, 4)?;
    let mut bytes = [0; 4];
    rustix::io::read(&reads, &mut bytes[..])?;
    is((bytes, at), (*b"3456", 7))
}

fn sendfile_into_a_file() -> Outcome {
    let (from, to) = two(b"0123456789", b"")?;
    is(sendfile(&to, &from, None, 100)?, 10)?;
    is(get(&to, 99, 0)?, b"0123456789".to_vec())
}

fn splice_through_a_pipe() -> Outcome {
    use rustix::pipe::{SpliceFlags, splice};
    let (from, to) = two(b"0123456789", b"abc")?;
    let (reads, writes) = rustix::pipe::pipe()?;
    let (mut at, mut there) = (2, 1);
    let flags = SpliceFlags::empty();
    is(splice(&from, Some(&mut at), &writes, None, 5, flags)?, 5)?;
    is(splice(&reads, None, &to, Some(&mut there), 5, flags)?, 5)?;
    is(get(&to, 99, 0)?, b"a23456".to_vec())
}
