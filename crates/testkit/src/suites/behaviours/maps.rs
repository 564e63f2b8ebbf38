//! Files in memory (man 2 mmap): coherent with reading and writing, and ending where the file ends.

use rustix::fs::{FallocateFlags, fallocate, fsync, ftruncate};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

use super::kit::*;
use super::sys::Map;

super::checks!("maps":
    what_is_written_is_mapped, what_is_mapped_is_read, two_maps_are_one, another_process_sees_it,
    a_private_map_stays_private, a_private_map_of_what_is_only_read, it_outlives_the_descriptor,
    it_outlives_the_name, it_is_written_out_by_msync, it_is_written_out_by_fsync,
    it_reaches_the_file_at_its_end, the_rest_of_the_last_page_is_zeros,
    the_rest_of_the_last_page_is_not_written, the_rest_of_the_last_page_is_zeros_when_longer, beyond_the_end_is_a_signal, what_was_cut_off_is_a_signal,
    what_is_longer_again_is_zeros, a_file_that_grows_shows_in_it, a_hole_shows_in_it,
    a_hole_is_filled_through_it, a_shared_one_for_writing_needs_both, any_needs_reading,
    a_directory_cannot_be_mapped, nothing_cannot_be_mapped, an_empty_file_can_be_mapped,
    reading_into_its_own_map, writing_from_its_own_map, a_program_runs,
    a_program_that_may_not_be_run, many_pages_keep_their_bytes, appending_shows_in_it,
    what_is_only_read_stays_so, a_program_that_is_written_does_not_run,
);

const PAGE: usize = 4096;
const READ: ProtFlags = ProtFlags::READ;
const BOTH: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn what_is_written_is_mapped() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    is(map.get(10), b'a')?;
    put(&file, b"xyz", 10)?;
    is((map.get(10), map.get(12), map.get(13)), (b'x', b'z', b'a'))
}

fn what_is_mapped_is_read() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    map.set(10, b'x');
    is(get(&file, 3, 9)?, b"axa".to_vec())?;
    is(std::fs::read("f")?[10], b'x')
}

fn two_maps_are_one() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let (one, other) = (
        Map::shared(&file, PAGE)?,
        Map::shared(open("f", OFlags::RDWR)?, PAGE)?,
    );
    one.set(10, b'x');
    is(other.get(10), b'x')
}

fn another_process_sees_it() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    in_child(|| {
        let map = Map::shared(open("f", OFlags::RDWR)?, PAGE)?;
        map.set(10, b'x');
        Ok(())
    })?;
    is(map.get(10), b'x')
}

fn a_private_map_stays_private() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::of(&file, PAGE, BOTH, MapFlags::PRIVATE)?;
    map.set(10, b'x');
    is((map.get(10), get(&file, 1, 10)?), (b'x', b"a".to_vec()))
}

fn a_private_map_of_what_is_only_read() -> Outcome {
    with("f", &[b'a'; PAGE])?;
    let file = open("f", OFlags::RDONLY)?;
    let map = Map::of(&file, PAGE, BOTH, MapFlags::PRIVATE)?;
    map.set(10, b'x');
    is((map.get(10), map.get(11)), (b'x', b'a'))
}

fn it_outlives_the_descriptor() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    drop(file);
    map.set(10, b'x');
    drop(map);
    is(std::fs::read("f")?[10], b'x')
}

fn it_outlives_the_name() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    rustix::fs::unlink("f")?;
    drop(file);
    map.set(10, b'x');
    map.sync(MsyncFlags::SYNC)?;
    is((map.get(10), map.get(11)), (b'x', b'a'))
}

fn it_is_written_out_by_msync() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    map.set(10, b'x');
    map.sync(MsyncFlags::SYNC)?;
    map.sync(MsyncFlags::ASYNC)?;
    map.sync(MsyncFlags::INVALIDATE)?;
    is((map.get(10), get(&file, 1, 10)?), (b'x', b"x".to_vec()))
}

fn it_is_written_out_by_fsync() -> Outcome {
    let file = with("f", &[b'a'; PAGE])?;
    let map = Map::shared(&file, PAGE)?;
    map.set(10, b'x');
    fsync(&file)?;
    is(get(&file, 1, 10)?, b"x".to_vec())
}

fn it_reaches_the_file_at_its_end() -> Outcome {
    let file = with("f", &[b'a'; PAGE + 10])?;
    let map = Map::shared(&file, 2 * PAGE)?;
    map.set(PAGE + 9, b'x');
    drop(map);
    is(get(&file, 99, 4096 + 8)?, b"ax".to_vec())
}

fn the_rest_of_the_last_page_is_zeros() -> Outcome {
    let file = with("f", b"text")?;
    let map = Map::shared(&file, PAGE)?;
    is((4..PAGE).find(|place| map.get(*place) != 0), None)
}

fn the_rest_of_the_last_page_is_not_written() -> Outcome {
    let file = with("f", b"text")?;
    let map = Map::shared(&file, PAGE)?;
    map.set(10, b'x');
    map.sync(MsyncFlags::SYNC)?;
    drop(map);
    is(std::fs::read("f")?, b"text".to_vec())
}

/// Not on tmpfs, where what was mapped there comes to light.
fn the_rest_of_the_last_page_is_zeros_when_longer() -> Outcome {
    let file = with("f", b"text")?;
    let map = Map::shared(&file, PAGE)?;
    map.set(10, b'x');
    map.sync(MsyncFlags::SYNC)?;
    drop(map);
    ftruncate(&file, 20)?;
    match get(&file, 99, 4)? {
        rest if rest == vec![0; 16] => Ok(()),
        rest => Err(Ended::NotHere(format!("{rest:?}"))),
    }
}

/// A touch of the map ends the process.
fn is_a_signal(map: &Map, place: usize) -> Outcome {
    let mut child = super::sys::fork(|| map.get(place) & 1)?;
    holds(child.ends_within(LIMIT)?, "it ends")?;
    is(child.wait()?.terminating_signal(), Some(libc::SIGBUS))
}

fn beyond_the_end_is_a_signal() -> Outcome {
    let file = with("f", b"text")?;
    let map = Map::shared(&file, 2 * PAGE)?;
    is_a_signal(&map, PAGE)?;
    is(map.get(0), b't')
}

fn what_was_cut_off_is_a_signal() -> Outcome {
    let file = with("f", &[b'a'; 2 * PAGE])?;
    let map = Map::shared(&file, 2 * PAGE)?;
    is(map.get(PAGE), b'a')?;
    ftruncate(&file, 100)?;
    is_a_signal(&map, PAGE)?;
    is((map.get(99), map.get(100)), (b'a', 0))
}

fn what_is_longer_again_is_zeros() -> Outcome {
    let file = with("f", &[b'a'; 2 * PAGE])?;
    let map = Map::shared(&file, 2 * PAGE)?;
    is(map.get(PAGE), b'a')?;
    ftruncate(&file, 0)?;
    ftruncate(&file, 8192)?;
    is((map.get(0), map.get(PAGE)), (0, 0))
}

fn a_file_that_grows_shows_in_it() -> Outcome {
    let file = with("f", b"text")?;
    let map = Map::shared(&file, 2 * PAGE)?;
    put(&file, b"far", 5000)?;
    is((map.get(0), map.get(4999), map.get(5000)), (b't', 0, b'f'))
}

fn a_hole_shows_in_it() -> Outcome {
    let file = with("f", &[b'a'; 4 * PAGE])?;
    let map = Map::shared(&file, 4 * PAGE)?;
    is(map.get(PAGE), b'a')?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 4096)?;
    is(
        (map.get(PAGE - 1), map.get(PAGE), map.get(2 * PAGE)),
        (b'a', 0, b'a'),
    )
}

fn a_hole_is_filled_through_it() -> Outcome {
    let file = new("f")?;
    ftruncate(&file, 1 << 20)?;
    let map = Map::shared(&file, 1 << 20)?;
    map.set(500_000, b'x');
    drop(map);
    is(get(&file, 3, 499_999)?, b"\0x\0".to_vec())
}

fn a_shared_one_for_writing_needs_both() -> Outcome {
    with("f", &[b'a'; PAGE])?;
    let file = open("f", OFlags::RDONLY)?;
    refused(Map::shared(&file, PAGE), Errno::ACCESS)?;
    let map = Map::of(&file, PAGE, READ, MapFlags::SHARED)?;
    is(map.get(0), b'a')
}

fn any_needs_reading() -> Outcome {
    with("f", &[b'a'; PAGE])?;
    let file = open("f", OFlags::WRONLY)?;
    refused(Map::of(&file, PAGE, READ, MapFlags::SHARED), Errno::ACCESS)?;
    refused(Map::of(&file, PAGE, READ, MapFlags::PRIVATE), Errno::ACCESS)
}

fn a_directory_cannot_be_mapped() -> Outcome {
    dir("d")?;
    let directory = open("d", OFlags::RDONLY)?;
    refused(
        Map::of(&directory, PAGE, READ, MapFlags::PRIVATE),
        Errno::NODEV,
    )
}

fn nothing_cannot_be_mapped() -> Outcome {
    let file = with("f", b"text")?;
    refused(Map::of(&file, 0, READ, MapFlags::PRIVATE), Errno::INVAL)
}

fn an_empty_file_can_be_mapped() -> Outcome {
    let file = new("f")?;
    let map = Map::shared(&file, PAGE)?;
    is_a_signal(&map, 0)?;
    put(&file, b"x", 0)?;
    is(map.get(0), b'x')
}

/// The place to read into is what is read from, or not in memory yet.
fn reading_into_its_own_map() -> Outcome {
    let file = with("f", &[b'a'; 2 * PAGE])?;
    put(&file, &[b'b'; PAGE], 4096)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    is(map.read(&file, 0, 10, 4096)?, 10)?;
    is((map.get(9), map.get(10)), (b'b', b'a'))?;
    is(map.read(&file, PAGE, 10, 4096)?, 10)?;
    is(map.get(PAGE), b'b')
}

fn writing_from_its_own_map() -> Outcome {
    let file = with("f", &[b'a'; 2 * PAGE])?;
    put(&file, &[b'b'; PAGE], 4096)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let map = Map::shared(&file, 2 * PAGE)?;
    is(map.write(&file, PAGE, 10, 0)?, 10)?;
    is((map.get(9), map.get(10)), (b'b', b'a'))?;
    is(map.write(&file, 0, 20, 0)?, 20)?;
    is((map.get(9), map.get(10)), (b'b', b'a'))
}

fn script(bits: u32) -> Outcome {
    with("run", b"#!/bin/sh\nexit 7\n")?;
    Ok(chmod("run", bits)?)
}

fn a_program_runs() -> Outcome {
    script(0o755)?;
    is(
        std::process::Command::new("./run").status()?.code(),
        Some(7),
    )
}

fn a_program_that_may_not_be_run() -> Outcome {
    script(0o644)?;
    let started = errno(std::process::Command::new("./run").status());
    refused(started, Errno::ACCESS)
}

fn many_pages_keep_their_bytes() -> Outcome {
    let file = new("f")?;
    ftruncate(&file, 1 << 20)?;
    let map = Map::shared(&file, 1 << 20)?;
    let byte = |page: usize| u8::try_from(page % 251).unwrap_or(0) + 1;
    for page in 0..256 {
        map.set(page * PAGE + page, byte(page));
    }
    drop(map);
    fsync(&file)?;
    let bytes = std::fs::read("f")?;
    is(
        (0..256).find(|page| bytes[page * PAGE + page] != byte(*page)),
        None,
    )
}

fn appending_shows_in_it() -> Outcome {
    let file = with("f", b"text")?;
    let map = Map::shared(&file, PAGE)?;
    is(map.get(4), 0)?;
    let appends = open("f", OFlags::WRONLY | OFlags::APPEND)?;
    rustix::io::write(&appends, b"more")?;
    is((map.get(4), map.get(8)), (b'm', 0))
}

fn what_is_only_read_stays_so() -> Outcome {
    use rustix::mm::MprotectFlags;
    with("f", &[b'a'; PAGE])?;
    let file = open("f", OFlags::RDONLY)?;
    let map = Map::of(&file, PAGE, READ, MapFlags::SHARED)?;
    let both = MprotectFlags::READ | MprotectFlags::WRITE;
    refused(map.protect(both), Errno::ACCESS)?;
    let map = Map::of(&file, PAGE, READ, MapFlags::PRIVATE)?;
    map.protect(both)?;
    map.set(0, b'x');
    is(get(&file, 1, 0)?, b"a".to_vec())
}

fn a_program_that_is_written_does_not_run() -> Outcome {
    script(0o755)?;
    let writes = open("run", OFlags::WRONLY)?;
    refused(
        errno(std::process::Command::new("./run").status()),
        Errno::TXTBSY,
    )?;
    drop(writes);
    is(
        std::process::Command::new("./run").status()?.code(),
        Some(7),
    )
}
