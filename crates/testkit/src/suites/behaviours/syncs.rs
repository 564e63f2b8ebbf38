//! What is written out, and where it lies then (man 2 fsync, sync_file_range, posix_fadvise).

use std::mem::MaybeUninit;

use rustix::fs::{fsync, syncfs};

use super::kit::*;

use super::sys;

super::checks!("syncs":
    fsync_of_a_file, fsync_of_a_directory, fdatasync_of_a_file, fsync_of_what_is_only_read,
    syncfs_of_the_mount, a_range_is_written_out, a_range_of_nonsense, sync_of_all,
    fsync_of_a_fifo_is_refused, extents_are_told, an_empty_file_has_no_extent, readahead_of_a_file,
);

fn fsync_of_a_file() -> Outcome {
    Ok(fsync(with("f", b"text")?)?)
}

fn fsync_of_a_directory() -> Outcome {
    dir("d")?;
    new("d/f")?;
    Ok(fsync(open("d", OFlags::DIRECTORY)?)?)
}

fn fdatasync_of_a_file() -> Outcome {
    Ok(rustix::fs::fdatasync(with("f", b"text")?)?)
}

fn fsync_of_what_is_only_read() -> Outcome {
    with("f", b"text")?;
    Ok(fsync(open("f", OFlags::RDONLY)?)?)
}

fn syncfs_of_the_mount() -> Outcome {
    let file = with("f", b"text")?;
    syncfs(&file)?;
    Ok(syncfs(open(".", OFlags::DIRECTORY)?)?)
}

fn a_range_is_written_out() -> Outcome {
    let file = with("f", &[1; 100_000])?;
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sys::sync_file_range(&file, 0, 4096, all)?;
    Ok(sys::sync_file_range(&file, 4096, 0, all)?)
}

fn a_range_of_nonsense() -> Outcome {
    let file = new("f")?;
    refused(sys::sync_file_range(&file, -1, 1, 0), Errno::INVAL)?;
    refused(sys::sync_file_range(&file, 0, 1, 1 << 9), Errno::INVAL)?;
    dir("d")?;
    let directory = open("d", OFlags::DIRECTORY)?;
    Ok(sys::sync_file_range(
        &directory,
        0,
        0,
        libc::SYNC_FILE_RANGE_WRITE,
    )?)
}

fn sync_of_all() -> Outcome {
    let file = with("f", b"text")?;
    rustix::fs::sync();
    is(get(&file, 9, 0)?, b"text".to_vec())
}

fn fsync_of_a_fifo_is_refused() -> Outcome {
    rustix::fs::mkfifoat(CWD, "p", mode(0o600))?;
    refused(
        fsync(open("p", OFlags::RDWR | OFlags::NONBLOCK)?),
        Errno::INVAL,
    )
}

fn extents_are_told() -> Outcome {
    let file = with("f", &[1; 100_000])?;
    holds(sys::extents(&file)? > 0, "at least one")
}

fn an_empty_file_has_no_extent() -> Outcome {
    is(sys::extents(new("f")?)?, 0)
}

fn readahead_of_a_file() -> Outcome {
    let file = with("f", &[1; 100_000])?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::WillNeed)?;
    let mut rest = vec![MaybeUninit::<u8>::uninit(); 100_001];
    let (read, _) = rustix::io::pread(&file, &mut rest[..], 0)?;
    is(read.len(), 100_000)
}
