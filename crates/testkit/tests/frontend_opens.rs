//! How the guest is told to treat what it opens, and when it is told to open nothing at all.

use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::Errno;
use virtiofs_testkit::frontend::{Daemon, Launch};
use virtiofs_testkit::fuse::abi::{self, ROOT, init};
use virtiofs_testkit::fuse::{Failure, FuseClient, Session, errno};

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
const SEEK_HOLE: u32 = 4;
/// The handle of whoever has opened nothing.
const NOTHING: u64 = 0;
/// `FOPEN_*` of fuse.h.
const DIRECT_IO: u32 = 1 << 0;
const KEEP_CACHE: u32 = 1 << 1;
const CACHE_DIR: u32 = 1 << 3;
const NOFLUSH: u32 = 1 << 5;
const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

fn start(share: &Path, arguments: &[&str]) -> Result<Daemon> {
    Launch::new(share).args(arguments).start()
}

/// Each row: arguments, and the flags of a file opened for reading, for writing, and of a directory.
#[test]
fn open_files_are_treated_as_the_mode_says() -> Result<()> {
    let direct = DIRECT_IO | PARALLEL_DIRECT_WRITES;
    let rows: &[(&[&str], [u32; 3])] = &[
        (&[], [NOFLUSH, 0, 0]),
        (&["--cache=adaptive"], [NOFLUSH, 0, 0]),
        (&["--cache=never"], [direct | NOFLUSH, direct, 0]),
        (&["--cache=metadata"], [direct | NOFLUSH, direct, 0]),
        (
            &["--cache=always"],
            [KEEP_CACHE | NOFLUSH, KEEP_CACHE, KEEP_CACHE | CACHE_DIR],
        ),
        (&["--posix-lock"], [0, 0, 0]),
        (&["--flock"], [NOFLUSH, 0, 0]),
    ];
    for (arguments, want) in rows {
        let share = tempfile::tempdir()?;
        std::fs::write(share.path().join("file"), b"contents")?;
        let daemon = start(share.path(), arguments)?;
        let mut session = Session::open(daemon.socket())?;
        let client = session.client();
        let node = client.lookup(ROOT, "file")?.nodeid;
        let told = [
            client.open(node, O_RDONLY)?.open_flags,
            client.open(node, O_RDWR)?.open_flags,
            client.opendir(ROOT)?.open_flags,
        ];
        ensure!(told == *want, "{arguments:?}: {told:?}");
    }
    Ok(())
}

/// Whether OPEN and OPENDIR are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Yes,
    No,
}

/// A share of one file and one directory, and a session that offers all flags but these.
fn opened_with(arguments: &[&str], withheld: u64) -> Result<(tempfile::TempDir, Daemon, Session)> {
    let share = tempfile::tempdir()?;
    std::fs::write(share.path().join("file"), b"contents")?;
    std::fs::create_dir(share.path().join("directory"))?;
    let daemon = start(share.path(), arguments)?;
    let mut session = Session::open(daemon.socket())?;
    session.client().init_with(abi::MINOR, !withheld)?;
    Ok((share, daemon, session))
}

/// The handle of an open, or [`NOTHING`] where it need not be sent.
fn handle(opened: Result<abi::OpenOut, Failure>) -> Result<u64> {
    match opened {
        Err(failure) if failure.errno() == Some(Errno::NOSYS) => Ok(NOTHING),
        opened => Ok(opened?.fh),
    }
}

fn is_sent(handle: u64) -> Sent {
    if handle == NOTHING {
        Sent::No
    } else {
        Sent::Yes
    }
}

fn lists_the_file(client: &mut FuseClient, fh: u64) -> Result<()> {
    let listed = client.readdir(ROOT, fh, 0)?;
    ensure!(listed.iter().any(|entry| entry.name == b"file"));
    Ok(())
}

/// Each row: arguments, flags that the guest does not offer, and whether OPEN and OPENDIR are sent.
///
/// All conditions hold in the first row; in each other one of them is missing.
#[test]
fn opens_are_left_out_where_nothing_needs_them_and_sent_where_anything_does() -> Result<()> {
    const ALL: &[&str] = &["--readonly", "--cache=always"];
    let with = |more: &[&'static str]| [ALL, more].concat();
    let rows = [
        (with(&[]), 0, [Sent::No; 2]),
        (vec!["--cache=always"], 0, [Sent::Yes; 2]),
        (vec!["--readonly"], 0, [Sent::Yes; 2]),
        (with(&["--cache=metadata"]), 0, [Sent::Yes; 2]),
        (with(&["--cache=adaptive"]), 0, [Sent::Yes; 2]),
        (with(&["--cache=never"]), 0, [Sent::Yes; 2]),
        (with(&["--posix-lock"]), 0, [Sent::Yes; 2]),
        (with(&["--flock"]), 0, [Sent::Yes; 2]),
        (with(&["--allow-direct-io"]), 0, [Sent::Yes; 2]),
        (with(&["--preserve-noatime"]), 0, [Sent::Yes; 2]),
        (with(&[]), init::NO_OPEN_SUPPORT, [Sent::Yes, Sent::No]),
        (with(&[]), init::NO_OPENDIR_SUPPORT, [Sent::No, Sent::Yes]),
    ];
    for (arguments, withheld, want) in rows {
        let (_share, _daemon, mut session) = opened_with(&arguments, withheld)?;
        let client = session.client();
        let node = client.lookup(ROOT, "file")?.nodeid;
        let file = handle(client.open(node, O_RDONLY))?;
        let directory = handle(client.opendir(ROOT))?;
        let sent = [is_sent(file), is_sent(directory)];
        ensure!(sent == want, "{arguments:?} {withheld:#x}: {sent:?}");
        // Whichever it is, what is read is served, and by no other handle.
        ensure!(client.read(node, file, 0, 100)? == b"contents");
        lists_the_file(client, directory)?;
        if sent[0] == Sent::Yes {
            let unopened = errno(client.read(node, NOTHING, 0, 100));
            ensure!(unopened == Some(Errno::BADF), "{arguments:?}: {unopened:?}");
        }
        if sent[1] == Sent::Yes {
            let unopened = errno(client.readdir(ROOT, NOTHING, 0));
            ensure!(unopened == Some(Errno::BADF), "{arguments:?}: {unopened:?}");
        }
    }
    Ok(())
}

/// A guest that goes without OPEN has no other way to cut a file than SETATTR, which is refused.
#[test]
fn truncation_at_open_and_no_opens_are_never_agreed_on_together() -> Result<()> {
    for (arguments, agreed, refused) in [
        (
            &["--readonly", "--cache=always"][..],
            init::NO_OPEN_SUPPORT | init::NO_OPENDIR_SUPPORT,
            init::ATOMIC_O_TRUNC,
        ),
        (
            &["--cache=always"],
            init::ATOMIC_O_TRUNC,
            init::NO_OPEN_SUPPORT | init::NO_OPENDIR_SUPPORT,
        ),
    ] {
        let share = tempfile::tempdir()?;
        let daemon = start(share.path(), arguments)?;
        let mut session = Session::open(daemon.socket())?;
        let answer = session.client().init_with(abi::MINOR, u64::MAX)?;
        let flags = u64::from(answer.flags) | u64::from(answer.flags2) << 32;
        ensure!(flags & agreed == agreed, "{arguments:?}: {flags:#x}");
        ensure!(flags & refused == 0, "{arguments:?}: {flags:#x}");
    }
    Ok(())
}

#[test]
fn whoever_opens_nothing_is_served_from_the_node() -> Result<()> {
    let (share, daemon, mut session) = opened_with(&["--readonly", "--cache=always"], 0)?;
    let place = share.path();
    for number in 0..3000 {
        std::fs::write(place.join(format!("directory/{number}")), b"")?;
    }
    mkfifoat(CWD, place.join("fifo"), Mode::RUSR)?;
    std::os::unix::fs::symlink("file", place.join("link"))?;
    let client = session.client();
    let mut look_up = |name: &str| Ok::<_, Failure>(client.lookup(ROOT, name)?.nodeid);
    let (file, directory) = (look_up("file")?, look_up("directory")?);
    let (fifo, link) = (look_up("fifo")?, look_up("link")?);
    ensure!(client.read(file, NOTHING, 3, 100)? == b"tents");
    ensure!(client.read(file, NOTHING, 100, 100)?.is_empty());
    ensure!(client.lseek(file, NOTHING, 0, SEEK_HOLE)? == 8);
    client.fsync(file, NOTHING)?;
    let flush = errno(client.flush(file, NOTHING, 1));
    ensure!(flush == Some(Errno::NOSYS), "asked once: {flush:?}");
    // Read to its end from position to position, each time anew.
    let (mut seen, mut at) = (std::collections::BTreeSet::new(), 0);
    loop {
        let piece = client.readdir(directory, NOTHING, at)?;
        let Some(last) = piece.last() else { break };
        at = last.dirent.off;
        for entry in piece {
            ensure!(seen.insert(entry.name.clone()), "{:?} twice", entry.name);
        }
    }
    ensure!(seen.len() == 3002, "{}", seen.len());
    for (node, want) in [
        (fifo, Errno::NXIO),
        (link, Errno::LOOP),
        (directory, Errno::ISDIR),
    ] {
        let read = errno(client.read(node, NOTHING, 0, 100));
        ensure!(read == Some(want), "{read:?}");
        let opened = errno(client.open(node, O_RDONLY));
        ensure!(opened == Some(want), "{opened:?}");
    }
    let listed = errno(client.readdir(file, NOTHING, 0));
    ensure!(listed == Some(Errno::NOTDIR), "{listed:?}");
    let written = errno(client.write(file, NOTHING, 0, b"x"));
    ensure!(written == Some(Errno::ROFS), "{written:?}");
    let opened = errno(client.open(file, O_WRONLY));
    ensure!(opened == Some(Errno::ROFS), "{opened:?}");
    ensure!(std::fs::read(place.join("file"))? == b"contents");
    // Nothing stays open for what was read.
    let target = place.canonicalize()?.join("file");
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))? {
        let entry = entry?.path();
        let is_file = std::fs::read_link(&entry).is_ok_and(|path| path == target);
        let info = entry.to_string_lossy().replace("/fd/", "/fdinfo/");
        let is_path = std::fs::read_to_string(info).is_ok_and(|info| info.contains("flags:\t01"));
        ensure!(!is_file || is_path, "{} is open", entry.display());
    }
    Ok(())
}
