//! Space that is allocated, punched, moved and searched (man 2 fallocate, man 2 lseek).

use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, ftruncate, seek};

use super::kit::*;

super::checks!("space":
    allocating_makes_the_file_longer, allocating_keeps_what_is_there, allocated_space_is_zeros,
    allocating_may_keep_the_size, allocating_takes_blocks, nothing_cannot_be_allocated,
    beyond_all_files_nothing_is_allocated, what_is_read_only_is_not_allocated,
    a_directory_is_not_allocated, a_hole_is_zeros, a_hole_leaves_its_neighbours,
    a_hole_gives_blocks_back, a_hole_keeps_the_size, a_hole_must_keep_the_size,
    a_hole_beyond_the_end_changes_nothing, a_hole_in_a_part_of_a_page, zeroed_is_zeros,
    zeroing_may_make_longer, zeroing_may_keep_the_size, collapsing_takes_a_part_out,
    collapsing_to_the_end_is_refused, collapsing_a_part_of_a_block_is_refused,
    inserting_moves_the_rest, inserting_at_the_end_is_refused, inserting_a_part_of_a_block_is_refused,
    allocating_drops_set_ids, a_hole_moves_the_times, allocating_moves_the_times,
    allocating_beyond_a_limit_is_refused, the_end_is_a_hole, data_is_found, a_hole_is_found,
    behind_the_end_nothing_is_found, before_the_start_nothing_is_found, in_a_hole_at_the_end_no_data_is_found,
    searching_sets_the_position, what_was_punched_is_a_hole, what_was_written_is_data,
    an_empty_file_has_neither, unknown_ways_to_seek_are_refused,
);

const BLOCK: u64 = 64 << 10;
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
const PLAIN: FallocateFlags = FallocateFlags::empty();

/// A file of some blocks, each of its own letter.
fn letters(letters: &[u8]) -> Outcome<OwnedFd> {
    let file = new("f")?;
    for (number, letter) in (0..).zip(letters) {
        put(&file, &vec![*letter; 64 << 10], number * BLOCK)?;
    }
    Ok(file)
}

/// The file is as long as these blocks, and each byte of each is its letter.
#[track_caller]
fn reads_as(file: &OwnedFd, letters: &[u8]) -> Outcome {
    let want: Vec<u8> = letters
        .iter()
        .flat_map(|letter| vec![*letter; 64 << 10])
        .collect();
    let got = get(file, want.len() + 1, 0)?;
    is(got.len(), want.len())?;
    is(
        got.iter().zip(&want).position(|(one, other)| one != other),
        None,
    )
}

fn size(file: &OwnedFd) -> Outcome<i64> {
    Ok(rustix::fs::fstat(file)?.st_size)
}

/// The blocks of a file that is closed now; of an open one they may be counted late.
fn blocks(file: OwnedFd) -> Outcome<i64> {
    rustix::fs::fsync(&file)?;
    drop(file);
    Ok(of("f")?.st_blocks)
}

fn allocating_makes_the_file_longer() -> Outcome {
    let file = with("f", b"abc")?;
    fallocate(&file, PLAIN, 10, 90)?;
    is(size(&file)?, 100)
}

fn allocating_keeps_what_is_there() -> Outcome {
    let file = letters(b"ab")?;
    fallocate(&file, PLAIN, 0, 3 * BLOCK)?;
    reads_as(&file, b"ab\0")
}

fn allocated_space_is_zeros() -> Outcome {
    let file = new("f")?;
    fallocate(&file, PLAIN, BLOCK, BLOCK)?;
    reads_as(&file, b"\0\0")
}

fn allocating_may_keep_the_size() -> Outcome {
    let file = with("f", b"abc")?;
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, BLOCK)?;
    is(size(&file)?, 3)?;
    ftruncate(&file, BLOCK)?;
    is(get(&file, 5, 0)?, b"abc\0\0".to_vec())
}

fn allocating_takes_blocks() -> Outcome {
    let file = new("f")?;
    fallocate(&file, PLAIN, 0, 4 * BLOCK)?;
    holds(blocks(file)? * 512 >= 4 * (64 << 10), "blocks are taken")
}

fn nothing_cannot_be_allocated() -> Outcome {
    let file = new("f")?;
    refused(fallocate(&file, PLAIN, 0, 0), Errno::INVAL)?;
    refused(fallocate(&file, PLAIN, u64::MAX, 1), Errno::INVAL)
}

fn beyond_all_files_nothing_is_allocated() -> Outcome {
    let file = new("f")?;
    refused(
        fallocate(&file, PLAIN, i64::MAX.cast_unsigned(), 10),
        Errno::FBIG,
    )
}

fn what_is_read_only_is_not_allocated() -> Outcome {
    new("f")?;
    let file = open("f", OFlags::RDONLY)?;
    refused(fallocate(&file, PLAIN, 0, 1), Errno::BADF)
}

fn a_directory_is_not_allocated() -> Outcome {
    dir("d")?;
    let directory = open("d", OFlags::RDONLY)?;
    refused_as(
        fallocate(&directory, PLAIN, 0, 1),
        &[Errno::BADF, Errno::ISDIR],
    )
}

fn a_hole_is_zeros() -> Outcome {
    let file = letters(b"abc")?;
    fallocate(&file, PUNCH, BLOCK, BLOCK)?;
    reads_as(&file, b"a\0c")
}

fn a_hole_leaves_its_neighbours() -> Outcome {
    let file = letters(b"abc")?;
    fallocate(&file, PUNCH, BLOCK - 10, 20)?;
    let want = [&b"aa"[..], &[0; 20], b"bb"].concat();
    is(get(&file, 24, BLOCK - 12)?, want)
}

fn a_hole_gives_blocks_back() -> Outcome {
    let file = letters(b"abcdefgh")?;
    let before = blocks(file)?;
    let file = open("f", OFlags::RDWR)?;
    fallocate(&file, PUNCH, BLOCK, 6 * BLOCK)?;
    let after = blocks(file)?;
    holds(
        after <= before - 5 * 128,
        &format!("{before} blocks become less than {after}"),
    )
}

fn a_hole_keeps_the_size() -> Outcome {
    let file = letters(b"ab")?;
    fallocate(&file, PUNCH, BLOCK, 9 * BLOCK)?;
    reads_as(&file, b"a\0")
}

fn a_hole_must_keep_the_size() -> Outcome {
    let file = letters(b"ab")?;
    // EOPNOTSUPP is the answer itself here.
    fallocate(&file, PUNCH, 0, 1)?;
    is(
        fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 1),
        Err(Errno::OPNOTSUPP),
    )
}

fn a_hole_beyond_the_end_changes_nothing() -> Outcome {
    let file = letters(b"ab")?;
    fallocate(&file, PUNCH, 5 * BLOCK, BLOCK)?;
    reads_as(&file, b"ab")
}

fn a_hole_in_a_part_of_a_page() -> Outcome {
    let file = with("f", b"0123456789")?;
    fallocate(&file, PUNCH, 3, 4)?;
    is(get(&file, 99, 0)?, b"012\0\0\0\x00789".to_vec())
}

fn zeroed_is_zeros() -> Outcome {
    let file = letters(b"abc")?;
    fallocate(&file, FallocateFlags::ZERO_RANGE, BLOCK, BLOCK)?;
    reads_as(&file, b"a\0c")
}

fn zeroing_may_make_longer() -> Outcome {
    let file = letters(b"a")?;
    fallocate(&file, FallocateFlags::ZERO_RANGE, BLOCK / 2, BLOCK)?;
    is(size(&file)?, 96 << 10)?;
    is(get(&file, 4, BLOCK / 2 - 2)?, b"aa\0\0".to_vec())
}

fn zeroing_may_keep_the_size() -> Outcome {
    let file = letters(b"a")?;
    let keeping = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, keeping, 0, 2 * BLOCK)?;
    reads_as(&file, b"\0")
}

fn collapsing_takes_a_part_out() -> Outcome {
    let file = letters(b"abcd")?;
    fallocate(&file, FallocateFlags::COLLAPSE_RANGE, BLOCK, BLOCK)?;
    reads_as(&file, b"acd")
}

fn collapsing_to_the_end_is_refused() -> Outcome {
    let file = letters(b"ab")?;
    let collapsed = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, BLOCK, BLOCK);
    refused(collapsed, Errno::INVAL)?;
    reads_as(&file, b"ab")
}

fn collapsing_a_part_of_a_block_is_refused() -> Outcome {
    let file = letters(b"abc")?;
    let collapsed = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 1, 100);
    refused(collapsed, Errno::INVAL)?;
    reads_as(&file, b"abc")
}

fn inserting_moves_the_rest() -> Outcome {
    let file = letters(b"abc")?;
    fallocate(&file, FallocateFlags::INSERT_RANGE, BLOCK, 2 * BLOCK)?;
    reads_as(&file, b"a\0\0bc")
}

fn inserting_at_the_end_is_refused() -> Outcome {
    let file = letters(b"ab")?;
    let inserted = fallocate(&file, FallocateFlags::INSERT_RANGE, 2 * BLOCK, BLOCK);
    refused(inserted, Errno::INVAL)?;
    reads_as(&file, b"ab")
}

fn inserting_a_part_of_a_block_is_refused() -> Outcome {
    let file = letters(b"ab")?;
    let inserted = fallocate(&file, FallocateFlags::INSERT_RANGE, 1, 100);
    refused(inserted, Errno::INVAL)?;
    reads_as(&file, b"ab")
}

fn allocating_drops_set_ids() -> Outcome {
    given("f", ALICE, 0o6777)?;
    as_user(BOB, || {
        Ok(fallocate(open("f", OFlags::RDWR)?, PLAIN, 0, 100)?)
    })?;
    is(bits("f")?, 0o777)
}

fn a_hole_moves_the_times() -> Outcome {
    let file = letters(b"ab")?;
    make_old("f")?;
    changes("f", || Ok(fallocate(&file, PUNCH, 0, BLOCK)?))?;
    is(modified("f")?, true)
}

fn allocating_moves_the_times() -> Outcome {
    let file = letters(b"ab")?;
    make_old("f")?;
    changes("f", || Ok(fallocate(&file, PLAIN, 0, 9 * BLOCK)?))
}

fn allocating_beyond_a_limit_is_refused() -> Outcome {
    use rustix::process::{Resource, Rlimit, setrlimit};
    super::sys::ignore_file_size_signal();
    let file = new("f")?;
    let limit = Rlimit {
        current: Some(1000),
        maximum: None,
    };
    setrlimit(Resource::Fsize, limit)?;
    fallocate(&file, PLAIN, 0, 1000)?;
    refused(fallocate(&file, PLAIN, 0, 1001), Errno::FBIG)?;
    is(size(&file)?, 1000)
}

fn the_end_is_a_hole() -> Outcome {
    let file = letters(b"ab")?;
    is(seek(&file, SeekFrom::Hole(0))?, 2 * BLOCK)
}

/// A block of data, a hole of many, a block of data.
fn sparse() -> Outcome<OwnedFd> {
    let file = letters(b"a")?;
    put(&file, b"z", 16 * BLOCK)?;
    // What is not on the store yet has no place there to be searched.
    rustix::fs::fsync(&file)?;
    Ok(file)
}

fn data_is_found() -> Outcome {
    let file = sparse()?;
    is(seek(&file, SeekFrom::Data(0))?, 0)?;
    is(seek(&file, SeekFrom::Data(100))?, 100)?;
    is(seek(&file, SeekFrom::Data(2 * BLOCK))?, 16 * BLOCK)
}

fn a_hole_is_found() -> Outcome {
    let file = sparse()?;
    is(seek(&file, SeekFrom::Hole(0))?, BLOCK)?;
    is(seek(&file, SeekFrom::Hole(3 * BLOCK))?, 3 * BLOCK)?;
    is(seek(&file, SeekFrom::Hole(16 * BLOCK))?, 16 * BLOCK + 1)
}

fn behind_the_end_nothing_is_found() -> Outcome {
    let file = letters(b"a")?;
    refused(seek(&file, SeekFrom::Data(BLOCK)), Errno::NXIO)?;
    refused(seek(&file, SeekFrom::Hole(BLOCK)), Errno::NXIO)?;
    refused(seek(&file, SeekFrom::Data(1 << 40)), Errno::NXIO)
}

fn before_the_start_nothing_is_found() -> Outcome {
    let file = letters(b"a")?;
    let sought = seek(&file, SeekFrom::Data(u64::MAX));
    refused_as(sought, &[Errno::NXIO, Errno::INVAL])?;
    let sought = seek(&file, SeekFrom::Hole(u64::MAX));
    refused_as(sought, &[Errno::NXIO, Errno::INVAL])
}

fn in_a_hole_at_the_end_no_data_is_found() -> Outcome {
    let file = sparse()?;
    ftruncate(&file, 32 * BLOCK)?;
    refused(seek(&file, SeekFrom::Data(20 * BLOCK)), Errno::NXIO)?;
    is(seek(&file, SeekFrom::Hole(20 * BLOCK))?, 20 * BLOCK)
}

fn searching_sets_the_position() -> Outcome {
    let file = sparse()?;
    seek(&file, SeekFrom::Data(2 * BLOCK))?;
    let mut byte = [0; 1];
    is(rustix::io::read(&file, &mut byte[..])?, 1)?;
    is(byte, *b"z")
}

fn what_was_punched_is_a_hole() -> Outcome {
    let file = letters(b"abcd")?;
    rustix::fs::fsync(&file)?;
    fallocate(&file, PUNCH, BLOCK, 2 * BLOCK)?;
    is(seek(&file, SeekFrom::Hole(0))?, BLOCK)?;
    is(seek(&file, SeekFrom::Data(BLOCK))?, 3 * BLOCK)
}

fn what_was_written_is_data() -> Outcome {
    let file = new("f")?;
    ftruncate(&file, 16 * BLOCK)?;
    put(&file, &vec![b'x'; 64 << 10], 4 * BLOCK)?;
    is(seek(&file, SeekFrom::Data(0))?, 4 * BLOCK)?;
    is(seek(&file, SeekFrom::Hole(4 * BLOCK))?, 5 * BLOCK)
}

fn an_empty_file_has_neither() -> Outcome {
    let file = new("f")?;
    refused(seek(&file, SeekFrom::Data(0)), Errno::NXIO)?;
    refused(seek(&file, SeekFrom::Hole(0)), Errno::NXIO)
}

fn unknown_ways_to_seek_are_refused() -> Outcome {
    let file = with("f", b"abc")?;
    refused(seek(&file, SeekFrom::Current(-1)), Errno::INVAL)?;
    refused(seek(&file, SeekFrom::End(-4)), Errno::INVAL)?;
    is(seek(&file, SeekFrom::End(-1))?, 2)?;
    is(seek(&file, SeekFrom::Current(5))?, 7)
}
