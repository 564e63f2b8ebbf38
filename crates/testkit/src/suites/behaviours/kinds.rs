//! Special files, and what goes through them (man 2 mknod, man 7 fifo, man 7 unix).

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{FileType, makedev, mkfifoat, mknodat, rename, unlink};
use rustix::io::{read, write};

use super::kit::*;

super::checks!("kinds":
    mknod_makes_a_file, mknod_makes_a_fifo, mknod_makes_a_socket, mknod_makes_a_device,
    mknod_over_a_name_is_refused, mknod_obeys_the_umask, a_stranger_makes_no_device,
    a_stranger_makes_a_fifo, mknod_of_a_directory_is_refused, a_device_works, a_fifo_carries_bytes,
    a_fifo_waits_for_its_other_end, a_fifo_for_writing_without_readers, a_fifo_ends_with_its_writer,
    a_fifo_without_readers_is_a_signal, a_fifo_is_not_seekable, a_fifo_has_no_size,
    a_fifo_outlives_its_name, a_socket_carries_bytes, a_socket_is_a_socket, a_socket_name_is_taken,
    a_socket_outlives_a_rename, a_socket_without_listener, a_socket_needs_permission,
    a_socket_name_stays,
);

fn node(name: &str, kind: FileType, device: u64) -> Result<(), Errno> {
    mknodat(CWD, name, kind, mode(0o640), device)
}

fn kind(name: &str) -> Outcome<FileType> {
    Ok(FileType::from_raw_mode(of(name)?.st_mode))
}

fn mknod_makes_a_file() -> Outcome {
    node("f", FileType::RegularFile, 0)?;
    put(open("f", OFlags::WRONLY)?, b"text", 0)?;
    is(
        (kind("f")?, of("f")?.st_size, bits("f")?),
        (FileType::RegularFile, 4, 0o640),
    )
}

fn mknod_makes_a_fifo() -> Outcome {
    node("p", FileType::Fifo, 0)?;
    is((kind("p")?, bits("p")?), (FileType::Fifo, 0o640))
}

fn mknod_makes_a_socket() -> Outcome {
    node("s", FileType::Socket, 0)?;
    is((kind("s")?, bits("s")?), (FileType::Socket, 0o640))
}

fn mknod_makes_a_device() -> Outcome {
    for (name, kind_of, device) in [
        ("c", FileType::CharacterDevice, makedev(1, 3)),
        ("b", FileType::BlockDevice, makedev(7, 99)),
        ("z", FileType::CharacterDevice, 0),
        ("l", FileType::BlockDevice, makedev(4095, 1_048_575)),
    ] {
        node(name, kind_of, device)?;
        is((kind(name)?, of(name)?.st_rdev), (kind_of, device))?;
    }
    Ok(())
}

fn mknod_over_a_name_is_refused() -> Outcome {
    new("f")?;
    refused(node("f", FileType::Fifo, 0), Errno::EXIST)?;
    refused(node("f/g", FileType::Fifo, 0), Errno::NOTDIR)
}

fn mknod_obeys_the_umask() -> Outcome {
    rustix::process::umask(mode(0o077));
    mknodat(CWD, "p", FileType::Fifo, mode(0o666), 0)?;
    is(bits("p")?, 0o600)
}

fn a_stranger_makes_no_device() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    as_user(ALICE, || {
        refused(
            node("d/n", FileType::CharacterDevice, makedev(1, 3)),
            Errno::PERM,
        )
    })
}

fn a_stranger_makes_a_fifo() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    as_user(BOB, || Ok(node("d/p", FileType::Fifo, 0)?))?;
    is((of("d/p")?.st_uid, of("d/p")?.st_gid), (BOB.uid, BOB.gid))
}

fn mknod_of_a_directory_is_refused() -> Outcome {
    refused_as(
        node("d", FileType::Directory, 0),
        &[Errno::PERM, Errno::INVAL],
    )
}

/// A device without permission to be used is a matter of the mount.
fn a_device_works() -> Outcome {
    node("null", FileType::CharacterDevice, makedev(1, 3))?;
    match open("null", OFlags::RDWR) {
        Err(Errno::ACCESS) => Err(Ended::NotHere("a mount without devices".to_owned())),
        opened => {
            let device = opened?;
            is(write(&device, b"gone")?, 4)?;
            is(read(&device, &mut [0_u8; 4][..])?, 0)
        }
    }
}

fn pipe() -> Outcome {
    Ok(mkfifoat(CWD, "p", mode(0o666))?)
}

fn a_fifo_carries_bytes() -> Outcome {
    pipe()?;
    let task = Task::start(|| is(write(open("p", OFlags::WRONLY)?, b"text")?, 4))?;
    let mut text = [0; 9];
    is(read(open("p", OFlags::RDONLY)?, &mut text[..])?, 4)?;
    is(&text[..4], &b"text"[..])?;
    task.finish()
}

fn a_fifo_waits_for_its_other_end() -> Outcome {
    pipe()?;
    let task = Task::start(|| Ok(open("p", OFlags::RDONLY).map(drop)?))?;
    holds(!task.child().ends_within(A_WHILE)?, "it waits")?;
    let _writes = open("p", OFlags::WRONLY)?;
    holds(task.child().ends_within(LIMIT)?, "it goes on")?;
    task.finish()
}

fn a_fifo_for_writing_without_readers() -> Outcome {
    pipe()?;
    refused(open("p", OFlags::WRONLY | OFlags::NONBLOCK), Errno::NXIO)?;
    Ok(open("p", OFlags::RDONLY | OFlags::NONBLOCK).map(drop)?)
}

/// Both ends, opened by one process.
fn ends() -> Outcome<(OwnedFd, OwnedFd)> {
    pipe()?;
    let reads = open("p", OFlags::RDONLY | OFlags::NONBLOCK)?;
    let writes = open("p", OFlags::WRONLY | OFlags::NONBLOCK)?;
    Ok((reads, writes))
}

fn a_fifo_ends_with_its_writer() -> Outcome {
    let (reads, writes) = ends()?;
    write(&writes, b"x")?;
    drop(writes);
    is(read(&reads, &mut [0_u8; 9][..])?, 1)?;
    is(read(&reads, &mut [0_u8; 9][..])?, 0)
}

fn a_fifo_without_readers_is_a_signal() -> Outcome {
    let (reads, writes) = ends()?;
    drop(reads);
    // This process ignores the signal, as Rust's programs do.
    refused(write(&writes, b"x"), Errno::PIPE)
}

fn a_fifo_is_not_seekable() -> Outcome {
    let (reads, _writes) = ends()?;
    refused(rustix::fs::tell(&reads), Errno::SPIPE)?;
    refused(get(&reads, 1, 0).map_err(|_| Errno::SPIPE), Errno::SPIPE)
}

fn a_fifo_has_no_size() -> Outcome {
    let (_reads, writes) = ends()?;
    write(&writes, b"text")?;
    is(of("p")?.st_size, 0)
}

fn a_fifo_outlives_its_name() -> Outcome {
    let (reads, writes) = ends()?;
    unlink("p")?;
    write(&writes, b"text")?;
    is(read(&reads, &mut [0_u8; 9][..])?, 4)
}

fn a_socket_carries_bytes() -> Outcome {
    let listener = UnixListener::bind("s")?;
    let task = Task::start(|| Ok(UnixStream::connect("s")?.write_all(b"text")?))?;
    let mut text = String::new();
    listener.accept()?.0.read_to_string(&mut text)?;
    is(text, "text".to_owned())?;
    task.finish()
}

fn a_socket_is_a_socket() -> Outcome {
    let _listener = UnixListener::bind("s")?;
    is(
        (kind("s")?, bits("s")?, of("s")?.st_size),
        (FileType::Socket, 0o755, 0),
    )
}

fn a_socket_name_is_taken() -> Outcome {
    new("f")?;
    let _listener = UnixListener::bind("s")?;
    refused(errno(UnixListener::bind("s")), Errno::ADDRINUSE)?;
    refused(errno(UnixListener::bind("f")), Errno::ADDRINUSE)
}

fn a_socket_outlives_a_rename() -> Outcome {
    let _listener = UnixListener::bind("s")?;
    rename("s", "t")?;
    UnixStream::connect("t")?;
    refused(errno(UnixStream::connect("s")), Errno::NOENT)
}

fn a_socket_without_listener() -> Outcome {
    drop(UnixListener::bind("s")?);
    refused(errno(UnixStream::connect("s")), Errno::CONNREFUSED)
}

fn a_socket_needs_permission() -> Outcome {
    let _listener = UnixListener::bind("s")?;
    chmod("s", 0o755)?;
    as_user(BOB, || {
        refused(errno(UnixStream::connect("s")), Errno::ACCESS)
    })?;
    chmod("s", 0o757)?;
    as_user(BOB, || Ok(UnixStream::connect("s").map(drop)?))
}

fn a_socket_name_stays() -> Outcome {
    drop(UnixListener::bind("s")?);
    is(kind("s")?, FileType::Socket)?;
    unlink("s")?;
    Ok(UnixListener::bind("s").map(drop)?)
}
