//! From inside, with a broker of file handles beside: what a server that was taken over gets out of it.

use rustix::fs::FileType;
use virtiofs_hostfs::{FileHandle, FileHandles};

use super::*;
use crate::broker::Client;

const HELD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW);

/// Runs an attempt in each mode, with the filter and without; each has to come to this.
fn comes_to(want: i32, attempt: impl Fn(&Client, &Confined) -> Result<(), Errno>) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for mode in MODES {
        for seccomp in ["none", "kill"] {
            let line = [
                "--sandbox",
                mode,
                "--seccomp",
                seccomp,
                "--inode-file-handles=mandatory",
            ];
            let got = place.attempt_with(&line, |inside| {
                attempt(inside.handles.as_ref().ok_or(Errno::NOSYS)?, inside)
            });
            assert_eq!(got, want, "{mode}, --seccomp {seccomp}");
        }
    }
}

/// A fact that has to hold inside.
fn holds(fact: bool) -> Result<(), Errno> {
    if fact { Ok(()) } else { Err(Errno::ILSEQ) }
}

fn made(client: &Client, path: &str) -> Result<FileHandle, Errno> {
    client.make(path.as_bytes()).ok_or(Errno::NOENT)
}

/// Number, size and type.
fn look_at(fd: impl std::os::fd::AsFd) -> Result<(u64, u64, FileType), Errno> {
    let mask = rustix::fs::StatxFlags::BASIC_STATS;
    let stat = rustix::fs::statx(fd, c"", rustix::fs::AtFlags::EMPTY_PATH, mask)?;
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    Ok((stat.stx_ino, stat.stx_size, kind))
}

#[test]
fn what_the_broker_signed_it_opens_whatever_its_name_is_by_then() {
    comes_to(0, |client, inside| {
        let handle = made(client, "file")?;
        let rename = |from, to| {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&inside.root, from, &inside.root, to, flags)
        };
        rename("file", "inner/other")?;
        let held = client.open(&handle, HELD);
        let open = client.open(&handle, OFlags::RDWR);
        rename("inner/other", "file")?;
        let (held, open) = (look_at(held?)?, look_at(open?)?);
        holds(held == open && open.1 == 6 && open.2 == FileType::RegularFile)
    });
}

#[test]
fn a_handle_that_was_forged_or_altered_opens_nothing() {
    comes_to(0, |client, _| {
        let good = made(client, "file")?;
        let bytes = good.bytes().to_vec();
        for at in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut altered = bytes.clone();
                altered[at] ^= bit;
                let refused = client.open(&FileHandle::new(&altered), HELD).map(drop);
                holds(refused == Err(Errno::PERM))?;
            }
        }
        for len in 0..bytes.len() {
            let refused = client.open(&FileHandle::new(&bytes[..len]), HELD).map(drop);
            holds(refused == Err(Errno::PERM))?;
        }
        let longer = [&bytes[..], &[0]].concat();
        holds(client.open(&FileHandle::new(&longer), HELD).map(drop) == Err(Errno::PERM))?;
        client.open(&good, HELD).map(drop)
    });
}

#[test]
fn no_path_that_leaves_the_share_gets_a_handle() {
    comes_to(0, |client, inside| {
        // A symlink that the server itself may make.
        rustix::fs::symlinkat("/etc", &inside.root, "way")?;
        let long = "a".repeat(256);
        let paths = [
            "..",
            ".",
            "",
            "/",
            "/etc/passwd",
            "inner/../../secret",
            "inner//",
            "file/",
            "file/x",
            "way/passwd",
            "in\0ner",
            &long,
        ];
        let refused = paths
            .iter()
            .all(|path| client.make(path.as_bytes()).is_none());
        let link = made(client, "way").and_then(|link| client.open(&link, OFlags::RDONLY));
        let _ = rustix::fs::unlinkat(&inside.root, "way", rustix::fs::AtFlags::empty());
        holds(refused)?;
        holds(link.map(drop) == Err(Errno::PERM))
    });
}

#[test]
fn a_handle_of_somebody_elses_making_opens_nothing() {
    comes_to(0, |client, inside| {
        // Of an inode of the share, as the kernel makes it for anybody; the filter ends who asks for it inside.
        let file = made(client, "file")?;
        let (signature, rest) = file.bytes().split_at(16);
        let root = [&[0; 16], rest].concat();
        holds(client.open(&FileHandle::new(&root), HELD).map(drop) == Err(Errno::PERM))?;
        let mixed = [signature, made(client, "inner")?.bytes().split_at(16).1].concat();
        holds(client.open(&FileHandle::new(&mixed), HELD).map(drop) == Err(Errno::PERM))?;
        open(&inside.root, "file", LOOK).map(drop)
    });
}

#[test]
fn the_server_itself_may_open_no_handle() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for mode in MODES {
        for (seccomp, want) in [("none", PERM), ("kill", KILLED)] {
            let line = [
                "--sandbox",
                mode,
                "--seccomp",
                seccomp,
                "--modcaps=+dac_read_search",
                "--inode-file-handles=prefer",
            ];
            let got = place.attempt_with(&line, |inside| {
                let directory = open(&inside.root, ".", READ)?;
                let client = inside.handles.as_ref().ok_or(Errno::NOSYS)?;
                let signed = made(client, "file")?;
                let (kind, bytes) = signed.bytes()[16..].split_at(4);
                let kind = i32::from_ne_bytes(kind.try_into().map_err(|_| Errno::INVAL)?);
                let handle = sys::RawHandle::new(kind, bytes).ok_or(Errno::INVAL)?;
                let directory = std::os::fd::AsFd::as_fd(&directory);
                sys::open_by_handle(directory, &handle, OFlags::RDONLY).map(drop)
            });
            assert_eq!(got, want, "{mode}, --seccomp {seccomp}");
        }
    }
}

#[test]
fn only_files_and_directories_are_opened_and_nothing_is_made_or_emptied() {
    comes_to(0, |client, inside| {
        rustix::fs::mknodat(&inside.root, "fifo", FileType::Fifo, FileMode::RWXU, 0)?;
        let opened = opens_only_files_and_directories(client);
        rustix::fs::unlinkat(&inside.root, "fifo", rustix::fs::AtFlags::empty())?;
        opened
    });
}

fn opens_only_files_and_directories(client: &Client) -> Result<(), Errno> {
    let (pipe, file) = (made(client, "fifo")?, made(client, "file")?);
    let directory = made(client, "inner")?;
    let refused = |handle: &FileHandle, flags| {
        holds(client.open(handle, flags).map(drop) == Err(Errno::PERM))
    };
    for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR] {
        refused(&pipe, flags | OFlags::NONBLOCK)?;
    }
    for flags in [OFlags::TRUNC, OFlags::CREATE, OFlags::TMPFILE, OFlags::PATH] {
        refused(&file, OFlags::RDWR | flags)?;
    }
    refused(&directory, OFlags::RDWR)?;
    client.open(&directory, OFlags::RDONLY)?;
    let file = client.open(&file, OFlags::WRONLY | OFlags::DSYNC)?;
    holds(look_at(file)?.1 == 6)?;
    client.open(&pipe, HELD).map(drop)
}

#[test]
fn a_share_that_is_only_read_is_written_by_no_handle() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let line = ["--readonly", "--inode-file-handles=mandatory"];
    let got = place.attempt_with(&line, |inside| {
        let client = inside.handles.as_ref().ok_or(Errno::NOSYS)?;
        let file = made(client, "file")?;
        client.open(&file, OFlags::RDONLY)?;
        for flags in [OFlags::WRONLY, OFlags::RDWR] {
            holds(client.open(&file, flags).map(drop) == Err(Errno::PERM))?;
        }
        Ok(())
    });
    assert_eq!(got, 0);
}

#[test]
fn whatever_the_broker_is_told_it_answers_the_next_request() {
    comes_to(0, |client, inside| {
        let mut packets: Vec<Vec<u8>> = [1, 2, 11, 12, 13, 4095, 4096, 4097, 9000]
            .into_iter()
            .flat_map(|len| [vec![0; len], vec![0xff; len], vec![1; len]])
            .collect();
        for what in 0..4_u32 {
            for len in [0, 20, 4084, 4085, u32::MAX] {
                let mut packet = vec![0xa5; 4096];
                packet[..4].copy_from_slice(&what.to_ne_bytes());
                packet[4..8].copy_from_slice(&0_u32.to_ne_bytes());
                packet[8..12].copy_from_slice(&len.to_ne_bytes());
                packets.push(packet);
            }
        }
        for packet in &packets {
            let (reply, opened) = client.exchange(packet)?;
            holds(reply[..4] != [0; 4] && !opened)?;
        }
        client.open(&made(client, "file")?, HELD)?;
        open(&inside.root, "file", LOOK).map(drop)
    });
}
