//! Reading and writing at offsets of every kind (man 2 pread, man 2 preadv2).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;

use rustix::fs::{SeekFrom, seek, tell};
use rustix::io::{
    ReadWriteFlags, pread, preadv, preadv2, pwrite, pwritev, pwritev2, read, readv, write, writev,
};

use super::kit::*;

super::checks!("offsets":
    the_end_is_nothing, behind_the_end_is_nothing, a_short_read_at_the_end, reading_nothing,
    writing_nothing_beyond_the_end, a_gap_is_zeros, a_position_is_left_alone, a_position_moves,
    before_the_start_is_refused, the_last_offset_of_all, beyond_the_last_offset,
    a_vector_is_filled_in_order, a_vector_is_written_in_order, an_empty_vector, the_longest_vector,
    a_vector_with_empty_parts, preadv2_at_the_position, preadv2_without_waiting, pwritev2_appends,
    pwritev2_synchronously, unknown_flags, a_far_offset_is_sparse, large_blocks, odd_blocks,
    many_small_writes, overwriting_in_place, two_descriptors_see_each_other,
    a_child_sees_what_was_written, a_bad_address, reading_ahead_and_away_is_harmless,
    a_size_that_another_changes, backwards,
);

pub(super) fn digits() -> Outcome<OwnedFd> {
    with("f", b"0123456789")
}

fn the_end_is_nothing() -> Outcome {
    is(get(digits()?, 5, 10)?, Vec::new())
}

fn behind_the_end_is_nothing() -> Outcome {
    is(get(digits()?, 5, 1 << 40)?, Vec::new())
}

fn a_short_read_at_the_end() -> Outcome {
    is(get(digits()?, 100, 7)?, b"789".to_vec())
}

fn reading_nothing() -> Outcome {
    is(get(digits()?, 0, 3)?, Vec::new())
}

fn writing_nothing_beyond_the_end() -> Outcome {
    put(digits()?, b"", 100)?;
    is(of("f")?.st_size, 10)
}

fn a_gap_is_zeros() -> Outcome {
    let file = digits()?;
    put(&file, b"x", 10_000)?;
    is(
        get(&file, 20_000, 10)?,
        [vec![0; 9990], b"x".to_vec()].concat(),
    )
}

fn a_position_is_left_alone() -> Outcome {
    let file = digits()?;
    seek(&file, SeekFrom::Start(4))?;
    put(&file, b"x", 0)?;
    get(&file, 5, 2)?;
    is(tell(&file)?, 4)
}

fn a_position_moves() -> Outcome {
    let file = digits()?;
    is(read(&file, &mut [0_u8; 4][..])?, 4)?;
    is(write(&file, b"xyz")?, 3)?;
    is(
        (tell(&file)?, get(&file, 99, 0)?),
        (7, b"0123xyz789".to_vec()),
    )
}

fn before_the_start_is_refused() -> Outcome {
    let file = digits()?;
    let negative = u64::MAX - 4;
    refused(pread(&file, &mut [0_u8; 1][..], negative), Errno::INVAL)?;
    refused(pwrite(&file, b"x", negative), Errno::INVAL)
}

fn the_last_offset_of_all() -> Outcome {
    let file = digits()?;
    let last = i64::MAX.cast_unsigned();
    is(pread(&file, &mut [0_u8; 1][..], last - 1)?, 0)?;
    refused_as(pwrite(&file, b"x", last), &[Errno::FBIG, Errno::INVAL])?;
    is(of("f")?.st_size, 10)
}

fn beyond_the_last_offset() -> Outcome {
    let file = digits()?;
    let last = i64::MAX.cast_unsigned();
    refused(pread(&file, &mut [0_u8; 1][..], last + 1), Errno::INVAL)?;
    let written = pwrite(&file, b"0123456789", last - 3);
    refused_as(written, &[Errno::FBIG, Errno::INVAL])?;
    is(of("f")?.st_size, 10)
}

fn a_vector_is_filled_in_order() -> Outcome {
    let file = digits()?;
    let (mut one, mut other) = ([0; 2], [0; 3]);
    let mut parts = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
    is(preadv(&file, &mut parts, 1)?, 5)?;
    is((one, other), (*b"12", *b"345"))?;
    let mut parts = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
    is((readv(&file, &mut parts)?, tell(&file)?), (5, 5))
}

fn a_vector_is_written_in_order() -> Outcome {
    let file = digits()?;
    let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cde")];
    is((pwritev(&file, &parts, 8)?, writev(&file, &parts)?), (5, 5))?;
    is(get(&file, 99, 0)?, b"abcde567abcde".to_vec())
}

fn an_empty_vector() -> Outcome {
    let file = digits()?;
    is(
        (preadv(&file, &mut [], 1)?, pwritev(&file, &[], 1)?),
        (0, 0),
    )
}

/// As many parts as one call takes.
fn the_longest_vector() -> Outcome {
    let file = new("f")?;
    let parts: Vec<IoSlice<'_>> = (0..1024).map(|_| IoSlice::new(b"ab")).collect();
    is(pwritev(&file, &parts, 0)?, 2048)?;
    is(get(&file, 4, 2044)?, b"abab".to_vec())
}

fn a_vector_with_empty_parts() -> Outcome {
    let file = digits()?;
    let parts = [
        IoSlice::new(b""),
        IoSlice::new(b"x"),
        IoSlice::new(b""),
        IoSlice::new(b"y"),
    ];
    is(pwritev(&file, &parts, 2)?, 2)?;
    is(get(&file, 99, 0)?, b"01xy456789".to_vec())
}

fn preadv2_at_the_position() -> Outcome {
    let file = digits()?;
    seek(&file, SeekFrom::Start(6))?;
    let mut two = [0; 2];
    let mut parts = [IoSliceMut::new(&mut two)];
    is(
        preadv2(&file, &mut parts, u64::MAX, ReadWriteFlags::empty())?,
        2,
    )?;
    is((two, tell(&file)?), (*b"67", 8))
}

/// Either what is there already, or a refusal to wait for it.
fn preadv2_without_waiting() -> Outcome {
    let file = digits()?;
    get(&file, 10, 0)?;
    let mut two = [0; 2];
    let mut parts = [IoSliceMut::new(&mut two)];
    match preadv2(&file, &mut parts, 3, ReadWriteFlags::NOWAIT) {
        Ok(len) => is((len, two), (2, *b"34")),
        tried => refused(tried, Errno::AGAIN),
    }
}

fn pwritev2_appends() -> Outcome {
    let file = digits()?;
    let parts = [IoSlice::new(b"xy")];
    is(pwritev2(&file, &parts, 3, ReadWriteFlags::APPEND)?, 2)?;
    is(get(&file, 99, 0)?, b"0123456789xy".to_vec())
}

fn pwritev2_synchronously() -> Outcome {
    let file = digits()?;
    let parts = [IoSlice::new(b"xy")];
    is(pwritev2(&file, &parts, 3, ReadWriteFlags::DSYNC)?, 2)?;
    is(pwritev2(&file, &parts, 5, ReadWriteFlags::SYNC)?, 2)?;
    is(get(&file, 99, 0)?, b"012xyxy789".to_vec())
}

/// EOPNOTSUPP is the answer itself here.
fn unknown_flags() -> Outcome {
    let file = digits()?;
    let unknown = ReadWriteFlags::from_bits_retain(1 << 30);
    is(
        pwritev2(&file, &[IoSlice::new(b"xy")], 3, unknown),
        Err(Errno::OPNOTSUPP),
    )?;
    is(of("f")?.st_size, 10)
}

fn a_far_offset_is_sparse() -> Outcome {
    let file = new("f")?;
    put(&file, b"far", 5 << 30)?;
    rustix::fs::fsync(&file)?;
    let stat = of("f")?;
    is(
        (stat.st_size, get(&file, 9, 5 << 30)?),
        ((5 << 30) + 3, b"far".to_vec()),
    )?;
    holds(stat.st_blocks < 10_000, "few blocks")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn large_blocks() -> Outcome {
    let bytes = pattern(5 << 20);
    with("f", &bytes)?;
    is(std::fs::read("f")? == bytes, true)
}

fn odd_blocks() -> Outcome {
    let (bytes, file) = (pattern(300_000), new("f")?);
    for (number, part) in (0..).zip(bytes.chunks(7919)) {
        put(&file, part, number * 7919)?;
    }
    for (number, part) in (0..).zip(bytes.chunks(4099)) {
        is(get(&file, part.len(), number * 4099)? == part, true)?;
    }
    Ok(())
}

fn many_small_writes() -> Outcome {
    let (bytes, file) = (pattern(2000), new("f")?);
    for byte in &bytes {
        write(&file, &[*byte])?;
    }
    is(std::fs::read("f")? == bytes, true)
}

fn overwriting_in_place() -> Outcome {
    let file = with("f", &pattern(20_000))?;
    put(&file, &[b'x'; 5000], 3000)?;
    let mut want = pattern(20_000);
    want[3000..8000].fill(b'x');
    is(get(&file, 30_000, 0)? == want, true)
}

fn two_descriptors_see_each_other() -> Outcome {
    let one = digits()?;
    let other = open("f", OFlags::RDWR)?;
    for number in 0..20 {
        put(&one, &[number], 5)?;
        is(get(&other, 1, 5)?, vec![number])?;
        put(&other, &[number + 100], 5)?;
        is(get(&one, 1, 5)?, vec![number + 100])?;
    }
    Ok(())
}

fn a_child_sees_what_was_written() -> Outcome {
    let file = digits()?;
    in_child(|| {
        is(std::fs::read("f")?, b"0123456789".to_vec())?;
        put(open("f", OFlags::WRONLY)?, b"more", 10)
    })?;
    is(get(&file, 99, 8)?, b"89more".to_vec())
}

fn a_bad_address() -> Outcome {
    let file = digits()?;
    refused(super::sys::write_from_nowhere(&file), Errno::FAULT)?;
    is(get(&file, 99, 0)?, b"0123456789".to_vec())
}

fn reading_ahead_and_away_is_harmless() -> Outcome {
    use rustix::fs::{Advice, fadvise};
    let bytes = pattern(100_000);
    let file = with("f", &bytes)?;
    for advice in [
        Advice::WillNeed,
        Advice::DontNeed,
        Advice::Random,
        Advice::Sequential,
    ] {
        fadvise(&file, 0, None, advice)?;
        is(get(&file, 200_000, 0)? == bytes, true)?;
    }
    Ok(())
}

fn a_size_that_another_changes() -> Outcome {
    let file = digits()?;
    in_child(|| Ok(super::sys::truncate("f", 4)?))?;
    is(get(&file, 99, 0)?, b"0123".to_vec())?;
    in_child(|| put(open("f", OFlags::WRONLY)?, b"z", 9))?;
    is(
        (of("f")?.st_size, get(&file, 99, 3)?),
        (10, b"3\0\0\0\0\0z".to_vec()),
    )
}

fn backwards() -> Outcome {
    let (bytes, file) = (pattern(100_000), new("f")?);
    for (number, part) in (0..)
        .zip(bytes.chunks(1000))
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        put(&file, part, number * 1000)?;
    }
    is(get(&file, 200_000, 0)? == bytes, true)
}
