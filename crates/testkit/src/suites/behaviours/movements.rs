//! What moves the times of a file and what does not (man 7 inode).

use rustix::fs::futimens;

use super::kit::*;

super::checks!("movements":
    writing_moves_mtime, writing_moves_ctime, writing_nothing_moves_nothing, cutting_moves_mtime,
    cutting_to_the_same_size_by_name, cutting_to_the_same_size_by_descriptor,
    opening_with_trunc_moves_mtime, reading_does_not_move_mtime, reading_moves_atime,
    reading_nothing_keeps_mtime, chmod_moves_ctime_only, chown_moves_ctime_only,
    creating_moves_the_directorys, unlinking_moves_the_directorys,
    making_a_directory_moves_the_parents, removing_a_directory_moves_the_parents,
    making_a_symlink_moves_the_directorys, making_a_fifo_moves_the_directorys,
    a_failed_creation_moves_nothing, a_new_file_has_one_time, they_survive_a_rename,
    they_survive_closing, set_times_win_over_writes, opening_alone_moves_nothing,
    listing_keeps_mtime, a_mapped_write_moves_mtime, appending_moves_mtime,
);

fn writing_moves_mtime() -> Outcome {
    let file = new("f")?;
    make_old("f")?;
    put(&file, b"x", 0)?;
    is(modified("f")?, true)
}

fn writing_moves_ctime() -> Outcome {
    let file = new("f")?;
    changes("f", || put(&file, b"x", 0))
}

fn writing_nothing_moves_nothing() -> Outcome {
    let file = new("f")?;
    make_old("f")?;
    put(&file, b"", 0)?;
    is(modified("f")?, false)
}

fn cutting_moves_mtime() -> Outcome {
    let file = with("f", b"text")?;
    make_old("f")?;
    rustix::fs::ftruncate(&file, 2)?;
    is(modified("f")?, true)
}

/// Whether the times move then is the store's affair.
fn cutting_to_the_same_size_by_name() -> Outcome {
    with("f", b"text")?;
    super::sys::truncate("f", 4)?;
    is(std::fs::read("f")?, b"text".to_vec())
}

fn cutting_to_the_same_size_by_descriptor() -> Outcome {
    let file = with("f", b"text")?;
    make_old("f")?;
    rustix::fs::ftruncate(&file, 4)?;
    is(modified("f")?, true)
}

fn opening_with_trunc_moves_mtime() -> Outcome {
    with("f", b"text")?;
    make_old("f")?;
    open("f", OFlags::WRONLY | OFlags::TRUNC)?;
    is((modified("f")?, of("f")?.st_size), (true, 0))?;
    make_old("f")?;
    open("f", OFlags::WRONLY | OFlags::TRUNC)?;
    is(modified("f")?, true)
}

fn reading_does_not_move_mtime() -> Outcome {
    with("f", b"text")?;
    make_old("f")?;
    is(std::fs::read("f")?.len(), 4)?;
    is(modified("f")?, false)
}

/// With `relatime` at the latest when it is older than the modification.
fn reading_moves_atime() -> Outcome {
    with("f", b"text")?;
    set_times("f", &times((1000, 0), (2000, 0)))?;
    is(std::fs::read("f")?.len(), 4)?;
    holds(atime("f")?.0 > 2000, "the access shows")
}

fn reading_nothing_keeps_mtime() -> Outcome {
    let file = new("f")?;
    make_old("f")?;
    get(&file, 5, 0)?;
    is(modified("f")?, false)
}

fn chmod_moves_ctime_only() -> Outcome {
    new("f")?;
    make_old("f")?;
    changes("f", || Ok(chmod("f", 0o600)?))?;
    is((modified("f")?, atime("f")?.0), (false, 1000))
}

fn chown_moves_ctime_only() -> Outcome {
    new("f")?;
    make_old("f")?;
    changes("f", || Ok(chown("f", 1, 1)?))?;
    is((modified("f")?, atime("f")?.0), (false, 1000))
}

/// A step in `d` moves the times of `d`.
fn moves_the_directorys(prepare: fn() -> Outcome, step: fn() -> Outcome) -> Outcome {
    dir("d")?;
    prepare()?;
    make_old("d")?;
    changes("d", step)?;
    is(modified("d")?, true)
}

fn nothing() -> Outcome {
    Ok(())
}

fn creating_moves_the_directorys() -> Outcome {
    moves_the_directorys(nothing, || new("d/f").map(drop))
}

fn unlinking_moves_the_directorys() -> Outcome {
    moves_the_directorys(|| new("d/f").map(drop), || Ok(rustix::fs::unlink("d/f")?))
}

fn making_a_directory_moves_the_parents() -> Outcome {
    moves_the_directorys(nothing, || dir("d/d"))
}

fn removing_a_directory_moves_the_parents() -> Outcome {
    moves_the_directorys(|| dir("d/d"), || Ok(rustix::fs::rmdir("d/d")?))
}

fn making_a_symlink_moves_the_directorys() -> Outcome {
    moves_the_directorys(nothing, || Ok(rustix::fs::symlink("x", "d/s")?))
}

fn making_a_fifo_moves_the_directorys() -> Outcome {
    moves_the_directorys(nothing, || {
        Ok(rustix::fs::mkfifoat(CWD, "d/p", mode(0o600))?)
    })
}

fn a_failed_creation_moves_nothing() -> Outcome {
    dir("d")?;
    new("d/f")?;
    make_old("d")?;
    let before = ctime("d")?;
    refused(open("d/f", OFlags::CREATE | OFlags::EXCL), Errno::EXIST)?;
    refused(rustix::fs::unlink("d/g"), Errno::NOENT)?;
    is((modified("d")?, ctime("d")?), (false, before))
}

fn a_new_file_has_one_time() -> Outcome {
    new("f")?;
    is((atime("f")?, mtime("f")?), (mtime("f")?, ctime("f")?))
}

fn they_survive_a_rename() -> Outcome {
    new("f")?;
    set_times("f", &times((1, 1), (2, 2)))?;
    rustix::fs::rename("f", "g")?;
    is((atime("g")?, mtime("g")?), ((1, 1), (2, 2)))
}

fn they_survive_closing() -> Outcome {
    let file = with("f", b"text")?;
    set_times("f", &times((1, 1), (2, 2)))?;
    drop(file);
    open("f", OFlags::RDWR)?;
    is((atime("f")?, mtime("f")?), ((1, 1), (2, 2)))
}

/// What was written before must not move them later.
fn set_times_win_over_writes() -> Outcome {
    let file = with("f", b"text")?;
    put(&file, b"more", 4)?;
    futimens(&file, &times((1, 1), (2, 2)))?;
    rustix::fs::fsync(&file)?;
    drop(file);
    is((atime("f")?, mtime("f")?), ((1, 1), (2, 2)))
}

fn opening_alone_moves_nothing() -> Outcome {
    new("f")?;
    make_old("f")?;
    let before = ctime("f")?;
    tick();
    open("f", OFlags::RDWR | OFlags::CREATE)?;
    is(
        (modified("f")?, ctime("f")?, atime("f")?.0),
        (false, before, 1000),
    )
}

fn listing_keeps_mtime() -> Outcome {
    dir("d")?;
    new("d/f")?;
    make_old("d")?;
    is(std::fs::read_dir("d")?.count(), 1)?;
    is(modified("d")?, false)
}

fn a_mapped_write_moves_mtime() -> Outcome {
    let file = with("f", b"text")?;
    make_old("f")?;
    let map = super::sys::Map::shared(&file, 4)?;
    map.set(0, b'T');
    map.sync(rustix::mm::MsyncFlags::SYNC)?;
    drop(map);
    is(
        (modified("f")?, std::fs::read("f")?),
        (true, b"Text".to_vec()),
    )
}

fn appending_moves_mtime() -> Outcome {
    with("f", b"text")?;
    make_old("f")?;
    let file = open("f", OFlags::WRONLY | OFlags::APPEND)?;
    rustix::io::write(&file, b"x")?;
    is(modified("f")?, true)
}
