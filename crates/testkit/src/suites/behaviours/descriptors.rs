//! What is open: where it writes, what it may, and what it leads to (man 2 open, man 2 openat2).

use rustix::fs::{Access, accessat, fcntl_getfl, fstat, symlink, unlink};
use rustix::io::{read, write};

use super::kit::*;

super::checks!("descriptors":
    nofollow_is_for_the_last_part, a_place_is_not_read, a_place_is_told_about,
    a_place_is_started_from, a_place_needs_no_permission, a_place_opens_again_by_proc,
    noatime_is_for_the_owner, noatime_keeps_the_time, direct_reads_and_writes,
    direct_and_cached_agree, synchronous_writes, nonblocking_is_kept, flags_are_told,
    cloexec_is_told, each_open_has_its_position, a_duplicate_shares_the_position,
    deleted_and_made_again_is_another, permission_is_asked_at_opening_only, a_socket_is_not_opened,
    a_device_without_driver_is_not_opened, many_files_at_once, access_through_a_descriptor,
    relative_to_a_directory, relative_to_a_file, stays_beneath_a_directory, without_any_symlink,
);

const APPENDS: OFlags = OFlags::APPEND.union(OFlags::RDWR);

fn nofollow_is_for_the_last_part() -> Outcome {
    dir("d")?;
    new("d/f")?;
    symlink("d", "s")?;
    open("s/f", OFlags::NOFOLLOW)?;
    refused(open("s", OFlags::NOFOLLOW), Errno::LOOP)?;
    refused(
        open("s", OFlags::NOFOLLOW | OFlags::DIRECTORY),
        Errno::NOTDIR,
    )
}

fn a_place_is_not_read() -> Outcome {
    with("f", b"text")?;
    let place = open("f", OFlags::PATH)?;
    refused(read(&place, &mut [0_u8; 1][..]), Errno::BADF)?;
    refused(write(&place, b"x"), Errno::BADF)?;
    refused(rustix::fs::fchmod(&place, mode(0o600)), Errno::BADF)
}

fn a_place_is_told_about() -> Outcome {
    with("f", b"text")?;
    let place = open("f", OFlags::PATH)?;
    unlink("f")?;
    is((fstat(&place)?.st_size, fstat(&place)?.st_nlink), (4, 0))
}

fn a_place_is_started_from() -> Outcome {
    dir("d")?;
    with("d/f", b"text")?;
    let place = open("d", OFlags::PATH)?;
    let file = rustix::fs::openat(&place, "f", OFlags::RDONLY, mode(0))?;
    is(get(&file, 9, 0)?, b"text".to_vec())?;
    rustix::process::fchdir(&place)?;
    is(text("f")?, "text".to_owned())
}

fn a_place_needs_no_permission() -> Outcome {
    given("f", ALICE, 0o000)?;
    as_user(BOB, || is(fstat(open("f", OFlags::PATH)?)?.st_size, 2))
}

fn a_place_opens_again_by_proc() -> Outcome {
    use std::os::fd::AsRawFd;
    with("f", b"text")?;
    let place = open("f", OFlags::PATH)?;
    let file = open(
        &format!("/proc/self/fd/{}", place.as_raw_fd()),
        OFlags::RDWR,
    )?;
    is(get(&file, 9, 0)?, b"text".to_vec())
}

fn noatime_is_for_the_owner() -> Outcome {
    given("f", ALICE, 0o644)?;
    as_user(ALICE, || Ok(open("f", OFlags::NOATIME).map(drop)?))?;
    as_user(BOB, || refused(open("f", OFlags::NOATIME), Errno::PERM))
}

fn noatime_keeps_the_time() -> Outcome {
    with("f", b"text")?;
    set_times("f", &times((1000, 0), (2000, 0)))?;
    let file = open("f", OFlags::NOATIME)?;
    is(get(&file, 9, 0)?.len(), 4)?;
    is(atime("f")?.0, 1000)
}

/// Aligned as every store wants it.
fn direct_reads_and_writes() -> Outcome {
    let file = open("f", OFlags::DIRECT | OFlags::RDWR | OFlags::CREATE)?;
    let page = super::sys::Map::shared(with("page", &[b'x'; 4096])?, 4096)?;
    is(page.write(&file, 0, 4096, 0)?, 4096)?;
    is(std::fs::read("f")? == vec![b'x'; 4096], true)?;
    page.set(0, b'y');
    is(page.read(&file, 0, 4096, 0)?, 4096)?;
    is((page.get(0), page.read(&file, 0, 4096, 4096)?), (b'x', 0))
}

fn direct_and_cached_agree() -> Outcome {
    let cached = with("f", &[b'a'; 8192])?;
    let direct = open("f", OFlags::DIRECT | OFlags::RDWR)?;
    let page = super::sys::Map::shared(with("page", &[b'x'; 4096])?, 4096)?;
    is(get(&cached, 1, 4096)?, b"a".to_vec())?;
    is(page.write(&direct, 0, 4096, 4096)?, 4096)?;
    is(get(&cached, 2, 4095)?, b"ax".to_vec())?;
    put(&cached, b"z", 0)?;
    is(page.read(&direct, 0, 4096, 0)?, 4096)?;
    is((page.get(0), page.get(1)), (b'z', b'a'))
}

fn synchronous_writes() -> Outcome {
    for (name, flag) in [("s", OFlags::SYNC), ("d", OFlags::DSYNC)] {
        let file = open(name, OFlags::CREATE | OFlags::RDWR | flag)?;
        put(&file, b"text", 0)?;
        is(text(name)?, "text".to_owned())?;
    }
    Ok(())
}

fn nonblocking_is_kept() -> Outcome {
    with("f", b"text")?;
    let file = open("f", OFlags::RDONLY | OFlags::NONBLOCK)?;
    is(get(&file, 9, 0)?, b"text".to_vec())?;
    is(fcntl_getfl(&file)?.contains(OFlags::NONBLOCK), true)
}

fn flags_are_told() -> Outcome {
    let file = open("f", OFlags::CREATE | APPENDS | OFlags::TRUNC)?;
    let flags = fcntl_getfl(&file)?;
    is(flags.contains(APPENDS), true)?;
    is(flags.intersects(OFlags::CREATE | OFlags::TRUNC), false)
}

fn cloexec_is_told() -> Outcome {
    use rustix::io::{FdFlags, fcntl_getfd};
    let file = new("f")?;
    is(fcntl_getfd(&file)?, FdFlags::CLOEXEC)?;
    let other = rustix::fs::open("f", OFlags::RDONLY, mode(0))?;
    is(fcntl_getfd(&other)?, FdFlags::empty())
}

fn each_open_has_its_position() -> Outcome {
    with("f", b"0123456789")?;
    let (one, other) = (open("f", OFlags::RDONLY)?, open("f", OFlags::RDONLY)?);
    let mut three = [0_u8; 3];
    read(&one, &mut three[..])?;
    read(&other, &mut three[..])?;
    is(three, *b"012")
}

fn a_duplicate_shares_the_position() -> Outcome {
    with("f", b"0123456789")?;
    let one = open("f", OFlags::RDONLY)?;
    let other = rustix::io::dup(&one)?;
    let mut three = [0_u8; 3];
    read(&one, &mut three[..])?;
    in_child(|| is(read(&other, &mut [0_u8; 3][..])?, 3))?;
    read(&other, &mut three[..])?;
    is(three, *b"678")
}

fn deleted_and_made_again_is_another() -> Outcome {
    for number in 0..50_u8 {
        let file = with("f", &[number])?;
        is(std::fs::read("f")?, vec![number])?;
        unlink("f")?;
        is(get(&file, 9, 0)?, vec![number])?;
    }
    Ok(())
}

fn permission_is_asked_at_opening_only() -> Outcome {
    given("f", ALICE, 0o666)?;
    as_user(BOB, || {
        let file = open("f", OFlags::RDWR)?;
        as_root_would(&file)
    })?;
    let file = open("f", OFlags::RDWR)?;
    chmod("f", 0)?;
    as_user(BOB, || as_root_would(&file))
}

fn as_root_would(file: &std::os::fd::OwnedFd) -> Outcome {
    put(file, b"text", 0)?;
    is(get(file, 9, 0)?, b"text".to_vec())
}

fn a_socket_is_not_opened() -> Outcome {
    rustix::fs::mknodat(CWD, "s", rustix::fs::FileType::Socket, mode(0o600), 0)?;
    refused(open("s", OFlags::RDWR), Errno::NXIO)
}

fn a_device_without_driver_is_not_opened() -> Outcome {
    let device = rustix::fs::makedev(511, 77);
    rustix::fs::mknodat(
        CWD,
        "n",
        rustix::fs::FileType::CharacterDevice,
        mode(0o600),
        device,
    )?;
    refused_as(
        open("n", OFlags::RDONLY),
        &[Errno::NXIO, Errno::ACCESS, Errno::NODEV],
    )
}

fn many_files_at_once() -> Outcome {
    let files = (0..300)
        .map(|number| with(&format!("f{number}"), number.to_string().as_bytes()))
        .collect::<Outcome<Vec<_>>>()?;
    for (number, file) in files.iter().enumerate() {
        is(get(file, 9, 0)?, number.to_string().into_bytes())?;
    }
    Ok(())
}

fn access_through_a_descriptor() -> Outcome {
    given("f", ALICE, 0o600)?;
    dir("d")?;
    let directory = open("d", OFlags::DIRECTORY)?;
    accessat(&directory, "../f", Access::READ_OK, AtFlags::empty())?;
    as_user(BOB, || {
        let tried = accessat(&directory, "../f", Access::READ_OK, AtFlags::empty());
        refused(tried, Errno::ACCESS)
    })
}

fn relative_to_a_directory() -> Outcome {
    dir("d")?;
    let directory = open("d", OFlags::DIRECTORY)?;
    rustix::fs::openat(&directory, "f", OFlags::CREATE | OFlags::RDWR, mode(0o600))?;
    rustix::fs::mkdirat(&directory, "e", mode(0o700))?;
    rustix::fs::symlinkat("x", &directory, "s")?;
    rustix::fs::renameat(&directory, "f", &directory, "g")?;
    is(
        (exists("d/g"), exists("d/e"), exists("d/s")),
        (true, true, true),
    )
}

fn relative_to_a_file() -> Outcome {
    let file = new("f")?;
    let opened = rustix::fs::openat(&file, "g", OFlags::RDONLY, mode(0));
    refused(opened, Errno::NOTDIR)
}

fn stays_beneath_a_directory() -> Outcome {
    use rustix::fs::{ResolveFlags, openat2};
    dir("d")?;
    new("f")?;
    new("d/g")?;
    let directory = open("d", OFlags::DIRECTORY)?;
    let beneath = |path| {
        openat2(
            &directory,
            path,
            OFlags::RDONLY,
            mode(0),
            ResolveFlags::BENEATH,
        )
    };
    beneath("g")?;
    refused(beneath("../f"), Errno::XDEV)
}

fn without_any_symlink() -> Outcome {
    use rustix::fs::{ResolveFlags, openat2};
    dir("d")?;
    new("d/f")?;
    symlink("d", "s")?;
    let opened = openat2(
        CWD,
        "s/f",
        OFlags::RDONLY,
        mode(0),
        ResolveFlags::NO_SYMLINKS,
    );
    refused(opened, Errno::LOOP)
}
