//! Work that is handed in and comes back done (man 2 io_submit, io_getevents).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::ftruncate;

use super::kit::*;
use super::sys::aio::{Aio, SLOT, SLOTS, Work};

super::checks!("aio":
    a_read_is_what_was_written, a_write_is_there_when_it_is_told, a_read_at_the_end_is_of_nothing,
    a_read_across_the_end_is_short, a_hole_is_read_as_zeros, many_writes_are_each_told_once,
    many_reads_are_each_told_once, a_write_makes_the_file_longer, a_write_far_out_leaves_a_hole,
    a_sync_is_told, a_sync_of_data_is_told, into_nowhere_is_an_error,
    what_is_only_read_is_not_written, what_is_only_written_is_not_read,
    a_directory_is_not_read, it_is_done_after_the_file_is_closed,
    it_is_done_after_the_name_is_gone, direct_writes_are_read_by_everybody,
    direct_reads_see_what_everybody_wrote, a_direct_write_has_its_size_when_it_is_told,
    many_direct_writes_meet_no_other, what_was_cut_off_is_not_read,
);

/// Hands in one piece of work; what came of it.
fn one(aio: &Aio, file: impl AsFd, offset: usize, work: Work) -> Outcome<Result<usize, Errno>> {
    aio.submit(file, 0, offset, work)?;
    let came = aio.wait(1, LIMIT)?;
    is(came.len(), 1)?;
    Ok(came[0].1)
}

fn size(name: &str) -> Outcome<usize> {
    let size = usize::try_from(of(name)?.st_size);
    size.map_err(|_| Ended::Fail("a size below zero".to_owned()))
}

fn a_read_is_what_was_written() -> Outcome {
    let (file, aio) = (with("f", b"0123456789")?, Aio::new()?);
    is(one(&aio, &file, 3, Work::Read(4))?, Ok(4))?;
    is((aio.get(0, 0), aio.get(0, 3)), (b'3', b'6'))?;
    is(aio.get(0, 4), 0)
}

fn a_write_is_there_when_it_is_told() -> Outcome {
    let (file, aio) = (with("f", b"0123456789")?, Aio::new()?);
    aio.fill(0, b'x');
    is(one(&aio, &file, 3, Work::Write(2))?, Ok(2))?;
    is(text("f")?.as_str(), "012xx56789")
}

fn a_read_at_the_end_is_of_nothing() -> Outcome {
    let (file, aio) = (with("f", b"ab")?, Aio::new()?);
    is(one(&aio, &file, 2, Work::Read(4))?, Ok(0))?;
    is(one(&aio, &file, 1 << 30, Work::Read(4))?, Ok(0))
}

fn a_read_across_the_end_is_short() -> Outcome {
    let (file, aio) = (with("f", b"ab")?, Aio::new()?);
    is(one(&aio, &file, 1, Work::Read(SLOT))?, Ok(1))
}

fn a_hole_is_read_as_zeros() -> Outcome {
    let (file, aio) = (new("f")?, Aio::new()?);
    ftruncate(&file, 3 * SLOT as u64)?;
    aio.fill(0, b'x');
    is(one(&aio, &file, SLOT, Work::Read(SLOT))?, Ok(SLOT))?;
    is((aio.get(0, 0), aio.get(0, SLOT - 1)), (0, 0))
}

/// The byte that a slot is filled with.
fn letter(slot: usize) -> u8 {
    b'A' + u8::try_from(slot % 64).unwrap_or(0)
}

/// A write in every slot, the last one first; each must be told once and be whole.
fn many(file: impl AsFd) -> Outcome {
    let aio = Aio::new()?;
    for slot in (0..SLOTS).rev() {
        aio.fill(slot, letter(slot));
        aio.submit(&file, slot, slot * SLOT, Work::Write(SLOT))?;
    }
    let whole: Vec<_> = (0..SLOTS).map(|slot| (slot, Ok(SLOT))).collect();
    is(aio.wait(SLOTS, LIMIT)?, whole)?;
    let want: Vec<u8> = (0..SLOTS).flat_map(|slot| [letter(slot); SLOT]).collect();
    holds(std::fs::read("f")? == want, "each is where it belongs")
}

fn many_writes_are_each_told_once() -> Outcome {
    many(new("f")?)
}

fn many_reads_are_each_told_once() -> Outcome {
    let (file, aio) = (new("f")?, Aio::new()?);
    for slot in 0..SLOTS {
        put(&file, &[letter(slot); SLOT], (slot * SLOT) as u64)?;
    }
    for slot in 0..SLOTS {
        aio.submit(&file, slot, slot * SLOT, Work::Read(SLOT))?;
    }
    let whole: Vec<_> = (0..SLOTS).map(|slot| (slot, Ok(SLOT))).collect();
    is(aio.wait(SLOTS, LIMIT)?, whole)?;
    for slot in 0..SLOTS {
        let ends = (aio.get(slot, 0), aio.get(slot, SLOT - 1));
        is(ends, (letter(slot), letter(slot)))?;
    }
    Ok(())
}

fn a_write_makes_the_file_longer() -> Outcome {
    let (file, aio) = (with("f", b"ab")?, Aio::new()?);
    aio.fill(0, b'x');
    is(one(&aio, &file, 2, Work::Write(3))?, Ok(3))?;
    is(size("f")?, 5)?;
    is(text("f")?.as_str(), "abxxx")
}

fn a_write_far_out_leaves_a_hole() -> Outcome {
    let (file, aio) = (new("f")?, Aio::new()?);
    aio.fill(0, b'x');
    is(one(&aio, &file, 10 * SLOT, Work::Write(1))?, Ok(1))?;
    is(get(&file, 2, 10 * SLOT as u64 - 1)?, b"\0x".to_vec())?;
    is(size("f")?, 10 * SLOT + 1)
}

fn a_sync_is_told() -> Outcome {
    let (file, aio) = (with("f", b"ab")?, Aio::new()?);
    is(one(&aio, &file, 0, Work::Sync)?, Ok(0))
}

fn a_sync_of_data_is_told() -> Outcome {
    let (file, aio) = (with("f", b"ab")?, Aio::new()?);
    is(one(&aio, &file, 0, Work::SyncData)?, Ok(0))
}

fn into_nowhere_is_an_error() -> Outcome {
    let (file, aio) = (with("f", &[b'a'; SLOT])?, Aio::new()?);
    is(one(&aio, &file, 0, Work::ReadToNowhere)?, Err(Errno::FAULT))
}

fn what_is_only_read_is_not_written() -> Outcome {
    with("f", b"ab")?;
    let (file, aio) = (open("f", OFlags::RDONLY)?, Aio::new()?);
    refused(aio.submit(&file, 0, 0, Work::Write(1)), Errno::BADF)
}

fn what_is_only_written_is_not_read() -> Outcome {
    with("f", b"ab")?;
    let (file, aio) = (open("f", OFlags::WRONLY)?, Aio::new()?);
    refused(aio.submit(&file, 0, 0, Work::Read(1)), Errno::BADF)
}

fn a_directory_is_not_read() -> Outcome {
    let (directory, aio) = (open(".", OFlags::DIRECTORY)?, Aio::new()?);
    let refusals = [Errno::INVAL, Errno::ISDIR];
    refused_as(aio.submit(&directory, 0, 0, Work::Read(1)), &refusals)
}

fn it_is_done_after_the_file_is_closed() -> Outcome {
    let (file, aio) = (new("f")?, Aio::new()?);
    for slot in 0..SLOTS {
        aio.fill(slot, letter(slot));
        aio.submit(&file, slot, slot * SLOT, Work::Write(SLOT))?;
    }
    drop(file);
    let whole: Vec<_> = (0..SLOTS).map(|slot| (slot, Ok(SLOT))).collect();
    is(aio.wait(SLOTS, LIMIT)?, whole)?;
    is(size("f")?, SLOTS * SLOT)
}

fn it_is_done_after_the_name_is_gone() -> Outcome {
    let (file, aio) = (new("f")?, Aio::new()?);
    rustix::fs::unlink("f")?;
    aio.fill(0, b'x');
    is(one(&aio, &file, 0, Work::Write(SLOT))?, Ok(SLOT))?;
    is(get(&file, 2, SLOT as u64 - 2)?, b"xx".to_vec())
}

/// A file that is read and written around the kernel's cache, where the store can do that.
fn direct(name: &str) -> Outcome<OwnedFd> {
    match open(name, OFlags::DIRECT | OFlags::RDWR) {
        Err(Errno::INVAL) => Err(Ended::NotHere("no direct files".to_owned())),
        opened => Ok(opened?),
    }
}

fn direct_writes_are_read_by_everybody() -> Outcome {
    let (file, aio) = (with("f", &[b'a'; 2 * SLOT])?, Aio::new()?);
    // In the cache, from where it has to go.
    get(&file, 2 * SLOT, 0)?;
    aio.fill(0, b'x');
    is(one(&aio, direct("f")?, 0, Work::Write(SLOT))?, Ok(SLOT))?;
    is(get(&file, 2, SLOT as u64 - 1)?, b"xa".to_vec())
}

fn direct_reads_see_what_everybody_wrote() -> Outcome {
    let (file, aio) = (with("f", &[b'a'; 2 * SLOT])?, Aio::new()?);
    put(&file, b"x", 5)?;
    is(one(&aio, direct("f")?, 0, Work::Read(SLOT))?, Ok(SLOT))?;
    is((aio.get(0, 4), aio.get(0, 5)), (b'a', b'x'))
}

fn a_direct_write_has_its_size_when_it_is_told() -> Outcome {
    new("f")?;
    let (file, aio) = (direct("f")?, Aio::new()?);
    // A page that nobody has written to is the kernel's page of zeros, which user-mode Linux does not share.
    aio.fill(0, b'x');
    for at in 0..SLOTS {
        is(one(&aio, &file, at * SLOT, Work::Write(SLOT))?, Ok(SLOT))?;
        is(size("f")?, (at + 1) * SLOT)?;
    }
    Ok(())
}

fn many_direct_writes_meet_no_other() -> Outcome {
    new("f")?;
    many(direct("f")?)
}

fn what_was_cut_off_is_not_read() -> Outcome {
    let (file, aio) = (with("f", &[b'a'; 2 * SLOT])?, Aio::new()?);
    ftruncate(&file, 10)?;
    is(one(&aio, &file, 0, Work::Read(SLOT))?, Ok(10))?;
    ftruncate(&file, SLOT as u64)?;
    is(one(&aio, &file, 0, Work::Read(SLOT))?, Ok(SLOT))?;
    is((aio.get(0, 9), aio.get(0, 10)), (b'a', 0))
}
