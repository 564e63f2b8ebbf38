//! What `docs/SEMANTICS.md` says of options, flags and limits, asked of the daemon itself.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::Errno;
use virtiofs_testkit::frontend::{Daemon, Descriptors, Launch, Options};
use virtiofs_testkit::fuse::abi::{self, ROOT, init};
use virtiofs_testkit::fuse::{ClientOptions, Session, Shape, errno};

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
const O_EXCL: u32 = 0o200;
const O_NOCTTY: u32 = 0o400;
const O_TRUNC: u32 = 0o1000;
const O_APPEND: u32 = 0o2000;
const O_NONBLOCK: u32 = 0o4000;
const O_DSYNC: u32 = 0o1_0000;
const O_DIRECT: u32 = 0o4_0000;
const O_SYNC: u32 = 0o401_0000;
const O_NOATIME: u32 = 0o100_0000;

fn start(share: &Path, arguments: &[&str]) -> Result<Daemon> {
    Launch::new(share).args(arguments).start()
}

/// What is never agreed on.
const NEVER: u64 = init::NO_OPEN_SUPPORT
    | init::NO_OPENDIR_SUPPORT
    | init::HAS_INODE_DAX
    // The second form is there.
    | init::HANDLE_KILLPRIV
    | init::MAP_ALIGNMENT
    | init::EXPLICIT_INVAL_DATA
    | init::HAS_IOCTL_DIR;

/// What a guest that offers everything agrees on with a daemon of these arguments.
fn agreed_with(arguments: &[&str]) -> Result<u64> {
    let share = tempfile::tempdir()?;
    let daemon = start(share.path(), arguments)?;
    let mut session = Session::open(daemon.socket())?;
    let init = session.client().init_with(abi::MINOR, u64::MAX)?;
    Ok(u64::from(init.flags) | u64::from(init.flags2) << 32)
}

/// Each row: arguments, flags that must be agreed on, and flags that must not.
#[test]
fn init_agrees_on_what_the_options_say() -> Result<()> {
    use init as flag;
    let always = flag::ASYNC_READ
        | flag::ATOMIC_O_TRUNC
        | flag::BIG_WRITES
        | flag::AUTO_INVAL_DATA
        | flag::ASYNC_DIO
        | flag::PARALLEL_DIROPS
        | flag::EXPORT_SUPPORT
        | flag::MAX_PAGES
        | flag::CREATE_SUPP_GROUP;
    let plus = flag::DO_READDIRPLUS | flag::READDIRPLUS_AUTO;
    let acls = flag::POSIX_ACL | flag::DONT_MASK | flag::SETXATTR_EXT;
    let rows: &[(&[&str], u64, u64)] = &[
        (
            &[],
            plus | flag::SUBMOUNTS | flag::HANDLE_KILLPRIV_V2 | flag::CACHE_SYMLINKS,
            acls | flag::WRITEBACK_CACHE
                | flag::POSIX_LOCKS
                | flag::FLOCK_LOCKS
                | flag::SECURITY_CTX
                | flag::ALLOW_IDMAP,
        ),
        (
            &["--cache=never"],
            0,
            plus | flag::CACHE_SYMLINKS | flag::DIRECT_IO_ALLOW_MMAP,
        ),
        (&["--cache=metadata"], plus | flag::CACHE_SYMLINKS, 0),
        (&["--cache=always"], plus | flag::CACHE_SYMLINKS, 0),
        (&["--cache=adaptive"], plus | flag::CACHE_SYMLINKS, 0),
        (&["--no-readdirplus"], 0, plus),
        (&["--writeback"], flag::WRITEBACK_CACHE, 0),
        (&["--no-announce-submounts"], 0, flag::SUBMOUNTS),
        (
            &["--no-killpriv-v2"],
            0,
            flag::HANDLE_KILLPRIV_V2 | flag::HANDLE_KILLPRIV | flag::ATOMIC_O_TRUNC,
        ),
        (&["--posix-acl=auto"], acls, flag::SECURITY_CTX),
        (
            &["--security-label=auto", "--xattrmap=:map::user.virtiofs.:"],
            flag::SECURITY_CTX,
            acls,
        ),
        (
            &["--security-label=auto", "--xattrmap=:bad:all:::"],
            0,
            flag::SECURITY_CTX,
        ),
        (&["--allow-mmap"], flag::DIRECT_IO_ALLOW_MMAP, 0),
        (&["--posix-lock"], flag::POSIX_LOCKS, flag::FLOCK_LOCKS),
        (&["--allow-idmap"], flag::ALLOW_IDMAP, 0),
        (&["--flock"], flag::FLOCK_LOCKS, flag::POSIX_LOCKS),
    ];
    for (arguments, agreed, refused) in rows {
        let flags = agreed_with(arguments)?;
        let (agreed, refused) = (agreed | (always & !refused), refused | NEVER);
        ensure!(
            flags & agreed == agreed,
            "{arguments:?}: {:#x} are missing",
            agreed & !flags
        );
        ensure!(
            flags & refused == 0,
            "{arguments:?}: {:#x} are too many",
            flags & refused
        );
    }
    Ok(())
}

/// Each row: arguments, and bytes and pages of the largest request; such a one is then written and read.
#[test]
fn a_request_is_as_large_as_the_option_says() -> Result<()> {
    let rows: &[(&[&str], u32, u16)] = &[
        (&[], 1 << 20, 256),
        (&["-o", "max_write=65536"], 1 << 16, 16),
        (&["-o", "max_write=4194304"], 4 << 20, 1024),
    ];
    for (arguments, bytes, pages) in rows {
        let share = tempfile::tempdir()?;
        let daemon = start(share.path(), arguments)?;
        let options = ClientOptions {
            data_bytes: *bytes,
            ..ClientOptions::default()
        };
        let mut session = Session::open_with(daemon.socket(), &Options::default(), &options)?;
        let (most, most_pages) = (session.init.max_write, session.init.max_pages);
        ensure!(
            (most, most_pages) == (*bytes, *pages),
            "{arguments:?}: {most} bytes, {most_pages} pages"
        );
        let content: Vec<u8> = (0..*bytes)
            .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect();
        let client = session.client();
        // One buffer, and as many pieces as this client cuts.
        let shapes = [Shape::Linux, Shape::Pieces(*bytes / 32)];
        for (name, shape) in ["whole", "pieces"].iter().zip(shapes) {
            client.set_shape(shape, Descriptors::Indirect);
            let made = client.create(ROOT, name, O_RDWR, 0o600)?;
            let (node, file) = (made.entry.nodeid, made.open.fh);
            let written = client.write(node, file, 0, &content)?;
            ensure!(written == *bytes, "{arguments:?}: {written} were written");
            let read = client.read(node, file, 0, *bytes)?;
            ensure!(read == content, "{arguments:?}: {} were read", read.len());
            ensure!(std::fs::read(share.path().join(name))? == content);
        }
    }
    Ok(())
}

/// Each row: arguments, and how long a name and its attributes hold, in seconds and nanoseconds.
#[test]
fn names_and_attributes_hold_as_long_as_the_options_say() -> Result<()> {
    let rows: &[(&[&str], (u64, u32))] = &[
        (&[], (1, 0)),
        (&["--cache=never"], (0, 0)),
        (&["--cache=metadata"], (86_400, 0)),
        (&["--cache=always"], (86_400, 0)),
        (&["-o", "timeout=2.5"], (2, 500_000_000)),
        (&["--cache=never", "-o", "timeout=7"], (7, 0)),
    ];
    for (arguments, (secs, nanos)) in rows {
        let share = tempfile::tempdir()?;
        std::fs::write(share.path().join("file"), b"")?;
        let daemon = start(share.path(), arguments)?;
        let mut session = Session::open(daemon.socket())?;
        let entry = session.client().lookup(ROOT, "file")?;
        ensure!(
            (entry.entry_valid, entry.entry_valid_nsec) == (*secs, *nanos),
            "{arguments:?}"
        );
        ensure!(
            (entry.attr_valid, entry.attr_valid_nsec) == (*secs, *nanos),
            "{arguments:?}"
        );
    }
    Ok(())
}

/// Flags of every descriptor that the daemon has of a file and that was opened for its contents.
fn host_flags(daemon: &Daemon, file: &Path) -> Result<Vec<u32>> {
    const O_PATH: u32 = 0o1000_0000;
    let process = PathBuf::from(format!("/proc/{}", daemon.pid()));
    let mut all = Vec::new();
    for entry in std::fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        if std::fs::read_link(entry.path()).ok().as_deref() != Some(file) {
            continue;
        }
        let told = std::fs::read_to_string(process.join("fdinfo").join(entry.file_name()))?;
        let line = told.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(line.context("no flags")?.trim(), 8)?;
        if flags & O_PATH == 0 {
            all.push(flags);
        }
    }
    Ok(all)
}

/// Each row: arguments, flags of the guest's OPEN, and those that the host's file has of them.
#[test]
fn of_the_flags_of_open_only_some_reach_the_host() -> Result<()> {
    let harmless = O_EXCL | O_NOCTTY | O_APPEND | O_NONBLOCK | O_NOATIME | O_DIRECT;
    let rows: &[(&[&str], u32, u32)] = &[
        (&[], O_RDONLY, O_RDONLY),
        (&[], O_WRONLY | harmless, O_WRONLY),
        (&[], O_RDWR | O_DSYNC, O_RDWR | O_DSYNC),
        (&[], O_RDWR | O_SYNC, O_RDWR | O_SYNC),
        (&["--allow-direct-io"], O_RDWR | O_DIRECT, O_RDWR | O_DIRECT),
        (&["--writeback"], O_WRONLY, O_RDWR),
        (
            &["--preserve-noatime"],
            O_RDONLY | O_NOATIME,
            O_RDONLY | O_NOATIME,
        ),
        (&["--preserve-noatime"], O_RDWR, O_RDWR),
        (
            &["--preserve-noatime", "--allow-direct-io"],
            O_RDWR | O_NOATIME | O_DIRECT,
            O_RDWR | O_NOATIME | O_DIRECT,
        ),
    ];
    for (arguments, asked, want) in rows {
        // Not in memory: tmpfs takes no O_DIRECT on older kernels.
        let share = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let file = share.path().canonicalize()?.join("file");
        std::fs::write(&file, b"contents")?;
        let daemon = start(share.path(), arguments)?;
        let mut session = Session::open(daemon.socket())?;
        let client = session.client();
        let node = client.lookup(ROOT, "file")?.nodeid;
        client.open(node, *asked)?;
        let flags = host_flags(&daemon, &file)?;
        let looked_at = O_RDWR | O_WRONLY | O_SYNC | harmless;
        let told: Vec<u32> = flags.iter().map(|flags| flags & looked_at).collect();
        ensure!(told == [*want], "{arguments:?}, {asked:o}: {told:?}");
        client.open(node, O_WRONLY | O_TRUNC)?;
        ensure!(
            std::fs::metadata(&file)?.len() == 0,
            "{arguments:?}: not cut"
        );
    }
    Ok(())
}

#[test]
fn only_regular_files_are_opened() -> Result<()> {
    let share = tempfile::tempdir()?;
    std::fs::create_dir(share.path().join("directory"))?;
    symlink("directory", share.path().join("symlink"))?;
    mkfifoat(CWD, share.path().join("fifo"), Mode::from_raw_mode(0o600))?;
    let _socket = std::os::unix::net::UnixListener::bind(share.path().join("socket"))?;
    let daemon = start(share.path(), &[])?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let rows = [
        ("directory", Errno::ISDIR),
        ("symlink", Errno::LOOP),
        ("fifo", Errno::NXIO),
        ("socket", Errno::NXIO),
    ];
    for (name, want) in rows {
        let node = client.lookup(ROOT, name)?.nodeid;
        for flags in [O_RDONLY, O_RDWR, O_WRONLY | O_NONBLOCK] {
            let refused = errno(client.open(node, flags));
            ensure!(refused == Some(want), "{name}, {flags:o}: {refused:?}");
        }
    }
    Ok(())
}

#[test]
fn what_was_closed_is_not_open() -> Result<()> {
    let share = tempfile::tempdir()?;
    let daemon = start(share.path(), &[])?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let made = client.create(ROOT, "file", O_RDWR, 0o600)?;
    let (node, fh) = (made.entry.nodeid, made.open.fh);
    client.release(node, fh)?;
    ensure!(errno(client.read(node, fh, 0, 1)) == Some(Errno::BADF));
    ensure!(errno(client.write(node, fh, 0, b"x")) == Some(Errno::BADF));
    ensure!(errno(client.release(node, fh)) == Some(Errno::BADF));
    let directory = client.opendir(ROOT)?.fh;
    ensure!(
        errno(client.read(node, directory, 0, 1)) == Some(Errno::BADF),
        "of another kind"
    );
    client.releasedir(ROOT, directory)?;
    ensure!(errno(client.readdir(ROOT, directory, 0)) == Some(Errno::BADF));
    ensure!(errno(client.releasedir(ROOT, directory)) == Some(Errno::BADF));
    Ok(())
}

#[test]
fn inodes_beyond_the_limit_are_refused_until_others_are_forgotten() -> Result<()> {
    let share = tempfile::tempdir()?;
    for name in ["one", "two", "three"] {
        std::fs::write(share.path().join(name), b"")?;
    }
    let daemon = start(share.path(), &["--max-inodes=2"])?;
    let mut session = Session::open(daemon.socket())?;
    let one = session.client().lookup(ROOT, "one")?.nodeid;
    session.client().lookup(ROOT, "two")?;
    ensure!(errno(session.client().lookup(ROOT, "three")) == Some(Errno::NOMEM));
    ensure!(
        session.client().lookup(ROOT, "one")?.nodeid == one,
        "a known one is no new one"
    );
    session.client().forget(one, 2)?;
    session.client().lookup(ROOT, "three")?;
    Ok(())
}

#[test]
fn open_files_end_where_the_limit_ends() -> Result<()> {
    let share = tempfile::tempdir()?;
    std::fs::write(share.path().join("file"), b"contents")?;
    let daemon = start(share.path(), &["--rlimit-nofile=64"])?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let node = client.lookup(ROOT, "file")?.nodeid;
    let mut open = Vec::new();
    let refused = loop {
        match client.open(node, O_RDONLY) {
            Ok(opened) => open.push(opened.fh),
            failed => break errno(failed),
        }
        ensure!(open.len() < 64, "more files than descriptors");
    };
    ensure!(refused == Some(Errno::MFILE), "{refused:?}");
    ensure!(
        client.read(node, open[0], 0, 8)? == b"contents",
        "what is open stays so"
    );
    client.release(node, open[0])?;
    client.open(node, O_RDONLY)?;
    Ok(())
}
