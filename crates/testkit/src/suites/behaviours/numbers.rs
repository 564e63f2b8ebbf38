//! What is told about files and file systems (man 2 statx, man 2 statfs).

use rustix::fs::{StatxFlags, fstat, fsync, statfs, statvfs, statx};

use super::kit::*;
use super::sys;

super::checks!("numbers":
    a_new_files, a_new_directorys, size_and_blocks, blocks_of_an_open_file, a_hole_has_few_blocks,
    all_ways_agree, inodes_differ, one_device, a_block_size, a_devices_numbers,
    basic_stats_are_there, a_birth_is_there, a_birth_stays, a_birth_is_not_after_the_change,
    an_unknown_mask_is_harmless, a_reserved_mask_is_refused,
    contradicting_synchronization_is_refused, by_an_empty_path, a_symlink_is_itself_on_demand,
    what_is_not_there, a_mount_number, flags_in_statx, direct_alignment_is_not_nonsense,
    statfs_has_sensible_numbers, statfs_of_a_file_is_the_same, statfs_names_are_long,
    space_that_is_written_is_taken, statvfs_knows_read_only, attributes_are_fresh_after_a_change,
    links_of_a_directory, nanoseconds_are_less_than_a_second,
);

fn a_new_files() -> Outcome {
    let stat = fstat(new("f")?)?;
    is(
        (stat.st_mode, stat.st_nlink, stat.st_size),
        (0o100_644, 1, 0),
    )?;
    is((stat.st_uid, stat.st_gid, stat.st_rdev), (0, 0, 0))
}

fn a_new_directorys() -> Outcome {
    dir("d")?;
    let stat = of("d")?;
    is((stat.st_mode, stat.st_uid, stat.st_gid), (0o040_755, 0, 0))
}

fn size_and_blocks() -> Outcome {
    fsync(with("f", &[1; 100_000])?)?;
    let stat = of("f")?;
    is(stat.st_size, 100_000)?;
    holds(stat.st_blocks * 512 >= 98_304, "as many blocks as bytes")
}

fn blocks_of_an_open_file() -> Outcome {
    let file = with("f", &[1; 100_000])?;
    fsync(&file)?;
    let blocks = fstat(&file)?.st_blocks;
    holds(blocks * 512 >= 98_304, "as many blocks as bytes")
}

fn a_hole_has_few_blocks() -> Outcome {
    let file = new("f")?;
    rustix::fs::ftruncate(&file, 1 << 30)?;
    let stat = fstat(&file)?;
    is(stat.st_size, 1 << 30)?;
    holds(stat.st_blocks < 100, "hardly any blocks")
}

fn all_ways_agree() -> Outcome {
    let file = with("f", b"text")?;
    let (one, other) = (fstat(&file)?, rustix::fs::stat("f")?);
    let third = rustix::fs::statat(CWD, "f", AtFlags::SYMLINK_NOFOLLOW)?;
    let all = |stat: &Stat| {
        let times = (
            stat.st_mtime,
            stat.st_mtime_nsec,
            stat.st_ctime,
            stat.st_ctime_nsec,
        );
        (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_size, times)
    };
    is(all(&one), all(&other))?;
    is(all(&one), all(&third))
}

fn inodes_differ() -> Outcome {
    new("f")?;
    new("g")?;
    dir("d")?;
    let (f, g, d) = (of("f")?.st_ino, of("g")?.st_ino, of("d")?.st_ino);
    is(f == g || g == d || f == d || f == 0, false)
}

fn one_device() -> Outcome {
    new("f")?;
    dir("d")?;
    is(
        (of("f")?.st_dev, of("d")?.st_dev),
        (of(".")?.st_dev, of(".")?.st_dev),
    )
}

fn a_block_size() -> Outcome {
    new("f")?;
    let size = of("f")?.st_blksize;
    holds(
        size >= 512 && size & (size - 1) == 0,
        &format!("a power of two: {size}"),
    )
}

fn a_devices_numbers() -> Outcome {
    let device = rustix::fs::makedev(259, 70_000);
    rustix::fs::mknodat(
        CWD,
        "n",
        rustix::fs::FileType::BlockDevice,
        mode(0o600),
        device,
    )?;
    is(of("n")?.st_rdev, device)
}

fn all_of(name: &str) -> Result<rustix::fs::Statx, Errno> {
    statx(CWD, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::ALL)
}

fn basic_stats_are_there() -> Outcome {
    with("f", b"text")?;
    let found = all_of("f")?;
    is(
        found.stx_mask & StatxFlags::BASIC_STATS.bits(),
        StatxFlags::BASIC_STATS.bits(),
    )?;
    is(
        (found.stx_size, found.stx_nlink, found.stx_ino),
        (4, 1, of("f")?.st_ino),
    )?;
    is(u32::from(found.stx_mode), of("f")?.st_mode)
}

fn birth(name: &str) -> Outcome<(i64, u32)> {
    let found = all_of(name)?;
    if found.stx_mask & StatxFlags::BTIME.bits() == 0 {
        return Err(Ended::NotHere("no time of birth".to_owned()));
    }
    Ok((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

fn a_birth_is_there() -> Outcome {
    new("f")?;
    let now = sys::coarse_now().0;
    holds((birth("f")?.0 - now).abs() < 300, "it was just born")
}

fn a_birth_stays() -> Outcome {
    let file = new("f")?;
    let before = birth("f")?;
    tick();
    put(&file, b"x", 0)?;
    chmod("f", 0o600)?;
    make_old("f")?;
    rustix::fs::rename("f", "g")?;
    is(birth("g")?, before)
}

fn a_birth_is_not_after_the_change() -> Outcome {
    new("f")?;
    let (seconds, nanoseconds) = birth("f")?;
    holds(
        (seconds, u64::from(nanoseconds)) <= ctime("f")?,
        "born first",
    )
}

fn an_unknown_mask_is_harmless() -> Outcome {
    with("f", b"text")?;
    let mask = StatxFlags::from_bits_retain(0x4000_0000) | StatxFlags::SIZE;
    let found = statx(CWD, "f", AtFlags::empty(), mask)?;
    is((found.stx_size, found.stx_mask & 0x4000_0000), (4, 0))
}

fn a_reserved_mask_is_refused() -> Outcome {
    new("f")?;
    let mask = StatxFlags::from_bits_retain(1 << 31);
    refused(statx(CWD, "f", AtFlags::empty(), mask), Errno::INVAL)
}

fn contradicting_synchronization_is_refused() -> Outcome {
    new("f")?;
    let both = AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC;
    refused(statx(CWD, "f", both, StatxFlags::SIZE), Errno::INVAL)?;
    for one in [AtFlags::STATX_FORCE_SYNC, AtFlags::STATX_DONT_SYNC] {
        is(statx(CWD, "f", one, StatxFlags::SIZE)?.stx_size, 0)?;
    }
    Ok(())
}

fn by_an_empty_path() -> Outcome {
    let file = with("f", b"text")?;
    is(
        statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE)?.stx_size,
        4,
    )?;
    refused(
        statx(&file, "", AtFlags::empty(), StatxFlags::SIZE),
        Errno::NOENT,
    )
}

fn a_symlink_is_itself_on_demand() -> Outcome {
    with("f", b"text")?;
    rustix::fs::symlink("f", "s")?;
    is(all_of("s")?.stx_size, 1)?;
    is(
        statx(CWD, "s", AtFlags::empty(), StatxFlags::SIZE)?.stx_size,
        4,
    )
}

fn what_is_not_there() -> Outcome {
    refused(all_of("f"), Errno::NOENT)?;
    refused(all_of("f/g"), Errno::NOENT)
}

fn a_mount_number() -> Outcome {
    new("f")?;
    dir("d")?;
    let number = |name| statx(CWD, name, AtFlags::empty(), StatxFlags::MNT_ID);
    is(number("f")?.stx_mnt_id, number("d")?.stx_mnt_id)
}

fn flags_in_statx() -> Outcome {
    new("f")?;
    let found = all_of("f")?;
    is(
        found.stx_attributes.bits() & !found.stx_attributes_mask.bits(),
        0,
    )
}

fn direct_alignment_is_not_nonsense() -> Outcome {
    new("f")?;
    let found = statx(CWD, "f", AtFlags::empty(), StatxFlags::DIOALIGN)?;
    let alignment = found.stx_dio_offset_align;
    is(alignment & alignment.saturating_sub(1), 0)
}

fn statfs_has_sensible_numbers() -> Outcome {
    let numbers = statfs(".")?;
    holds(numbers.f_bsize >= 512, "a block size")?;
    holds(
        numbers.f_blocks >= numbers.f_bfree,
        "no more free than there is",
    )?;
    holds(
        numbers.f_bfree >= numbers.f_bavail,
        "no more for users than is free",
    )?;
    holds(
        numbers.f_files >= numbers.f_ffree,
        "no more free inodes than there are",
    )
}

fn statfs_of_a_file_is_the_same() -> Outcome {
    let file = new("f")?;
    let (one, other) = (statfs(".")?, rustix::fs::fstatfs(&file)?);
    is(
        (one.f_type, one.f_bsize, one.f_blocks),
        (other.f_type, other.f_bsize, other.f_blocks),
    )
}

fn statfs_names_are_long() -> Outcome {
    is(statvfs(".")?.f_namemax, 255)
}

fn space_that_is_written_is_taken() -> Outcome {
    let free = || -> Outcome<u64> {
        // Some stores count when they commit.
        rustix::fs::sync();
        let numbers = statvfs(".")?;
        Ok(numbers.f_bfree * numbers.f_frsize)
    };
    let before = free()?;
    // Random bytes: a store that compresses needs as many blocks.
    let mut bytes = vec![0; 4 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let file = with("f", &bytes)?;
    fsync(&file)?;
    let after = free()?;
    holds(
        after + (3 << 20) < before,
        &format!("{before} free before, {after} after"),
    )
}

fn statvfs_knows_read_only() -> Outcome {
    is(
        statvfs(".")?
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY),
        false,
    )
}

fn attributes_are_fresh_after_a_change() -> Outcome {
    let file = new("f")?;
    for number in 1..50_u32 {
        put(&file, b"x", u64::from(number) - 1)?;
        chmod("f", 0o600 | (number & 7))?;
        is(
            (of("f")?.st_size, bits("f")?),
            (i64::from(number), 0o600 | (number & 7)),
        )?;
    }
    Ok(())
}

fn links_of_a_directory() -> Outcome {
    dir("d")?;
    let empty = of("d")?.st_nlink;
    dir("d/e")?;
    new("d/f")?;
    let one = of("d")?.st_nlink;
    // Some stores do not count them, and say 1.
    holds(one == empty + 1 || empty == 1, &format!("{empty}, {one}"))
}

fn nanoseconds_are_less_than_a_second() -> Outcome {
    new("f")?;
    let stat = of("f")?;
    let all = [stat.st_atime_nsec, stat.st_mtime_nsec, stat.st_ctime_nsec];
    is(all.iter().all(|part| *part < 1_000_000_000), true)
}
