//! What the host's own kernel keeps of a share, by cache policy.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::io::Errno;
use rustix::process::Signal;
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::Launch;

/// Longer than `auto` lets anything hold.
const OVER_A_SECOND: Duration = Duration::from_millis(1100);

/// A directory on tmpfs, and the same as the share shows it; `None` after saying that it was skipped.
fn share(arguments: &[&str]) -> Result<Option<(Tmpfs, BridgedShare)>> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(None);
    }
    let shared = Tmpfs::new()?;
    let launch = arguments
        .iter()
        .fold(Launch::new(shared.path()), |launch, argument| {
            launch.arg(*argument)
        });
    let options = BridgeOptions {
        limit: Duration::from_secs(10),
        ..BridgeOptions::default()
    };
    let share = BridgedShare::start(launch, &options)?;
    Ok(Some((shared, share)))
}

fn points_to(path: &Path) -> Result<PathBuf> {
    Ok(fs::read_link(path)?)
}

#[test]
fn a_symlink_that_the_host_replaces_is_seen_as_soon_as_its_name_is_looked_up_again() -> Result<()> {
    let rows = [
        ("never", Duration::ZERO, "second"),
        ("auto", OVER_A_SECOND, "second"),
        ("adaptive", OVER_A_SECOND, "second"),
        // Whoever chose this said that nobody else changes the share.
        ("always", OVER_A_SECOND, "first"),
        ("metadata", OVER_A_SECOND, "first"),
    ];
    for (policy, pause, seen) in rows {
        let Some((shared, share)) = share(&["--cache", policy])? else {
            return Ok(());
        };
        let (here, there) = (share.path().join("link"), shared.path().join("link"));
        symlink("first", &there)?;
        ensure!(points_to(&here)? == Path::new("first"), "{policy}");
        fs::remove_file(&there)?;
        symlink("second", &there)?;
        std::thread::sleep(pause);
        ensure!(points_to(&here)? == Path::new(seen), "{policy}");
        share.finish()?;
    }
    Ok(())
}

/// A daemon that is stopped answers nothing: what is still answered is the guest's own.
fn without_the_daemon<T>(
    share: &mut BridgedShare,
    ask: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let path = share.path().to_owned();
    let daemon = share.daemon();
    daemon.signal(Signal::STOP)?;
    let asked = Instant::now();
    // A question that does reach the daemon waits until the bridge gives it up.
    let answer = ask(&path);
    let took = asked.elapsed();
    daemon.signal(Signal::CONT)?;
    ensure!(took < Duration::from_secs(5), "the daemon was asked");
    answer
}

#[test]
fn the_target_of_a_symlink_is_asked_for_once() -> Result<()> {
    let Some((shared, mut share)) = share(&["--cache", "always"])? else {
        return Ok(());
    };
    symlink("target", shared.path().join("link"))?;
    ensure!(points_to(&share.path().join("link"))? == Path::new("target"));
    let target = without_the_daemon(&mut share, |path| points_to(&path.join("link")))?;
    ensure!(target == Path::new("target"));
    share.finish()
}

#[test]
fn a_guest_that_waits_for_a_file_of_the_host_sees_it_unless_everything_is_cached() -> Result<()> {
    let rows = [
        ("never", Duration::ZERO, true),
        ("metadata", Duration::ZERO, true),
        ("auto", Duration::ZERO, true),
        ("adaptive", OVER_A_SECOND, true),
        ("always", OVER_A_SECOND, false),
    ];
    for (policy, pause, seen) in rows {
        let Some((shared, share)) = share(&["--cache", policy])? else {
            return Ok(());
        };
        let (here, there) = (share.path().join("file"), shared.path().join("file"));
        ensure!(!here.try_exists()?, "{policy}");
        fs::write(&there, b"content")?;
        std::thread::sleep(pause);
        ensure!(here.try_exists()? == seen, "{policy}");
        share.finish()?;
    }
    Ok(())
}

#[test]
fn a_name_that_is_free_is_asked_for_once_and_taken_by_who_makes_it() -> Result<()> {
    let Some((shared, mut share)) = share(&["--cache", "always"])? else {
        return Ok(());
    };
    ensure!(!share.path().join("name").try_exists()?);
    let there = without_the_daemon(&mut share, |path| Ok(path.join("name").try_exists()?))?;
    ensure!(!there);
    fs::write(share.path().join("name"), b"content")?;
    ensure!(fs::read(shared.path().join("name"))? == b"content");
    fs::rename(share.path().join("name"), share.path().join("other"))?;
    ensure!(!share.path().join("name").try_exists()?);
    ensure!(fs::read(share.path().join("other"))? == b"content");
    share.finish()
}

/// No system call sets ctime, so an old file takes some waiting: after 20 seconds, it holds for two.
#[test]
fn a_file_that_was_left_alone_is_asked_about_less_often() -> Result<()> {
    let Some((shared, mut share)) = share(&["--cache", "adaptive"])? else {
        return Ok(());
    };
    // In directories of their own, each of which is as old as its file or older.
    for directory in ["old", "young"] {
        fs::create_dir(shared.path().join(directory))?;
    }
    fs::write(shared.path().join("old/file"), b"1")?;
    std::thread::sleep(Duration::from_secs(20));
    fs::write(shared.path().join("young/file"), b"1")?;

    let size = |path: &Path| Ok::<_, anyhow::Error>(path.metadata()?.len());
    let (old, young) = (
        share.path().join("old/file"),
        share.path().join("young/file"),
    );
    ensure!(size(&young)? == 1 && size(&old)? == 1);
    std::thread::sleep(OVER_A_SECOND);
    ensure!(without_the_daemon(&mut share, |path| size(&path.join("old/file")))? == 1);
    fs::write(shared.path().join("young/file"), b"12")?;
    ensure!(size(&young)? == 2, "the host is asked about the young one");

    fs::write(&old, b"123")?;
    ensure!(size(&old)? == 3, "the guest knows what it does itself");
    fs::write(shared.path().join("old/file"), b"1234")?;
    std::thread::sleep(OVER_A_SECOND);
    ensure!(size(&old)? == 4, "now it is young");
    share.finish()
}

/// Linux's client opens nothing then: what it has read it keeps, and the daemon holds no file open.
#[test]
fn a_share_that_is_only_read_and_wholly_cached_is_read_without_opening() -> Result<()> {
    let Some((shared, share)) = share(&["--readonly", "--cache", "always"])? else {
        return Ok(());
    };
    fs::create_dir(shared.path().join("directory"))?;
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for name in ["one", "two", "three"] {
        fs::write(shared.path().join("directory").join(name), &bytes)?;
    }
    let place = share.path().join("directory");
    for _ in 0..3 {
        for name in ["one", "two", "three"] {
            let mut file = fs::File::open(place.join(name))?;
            let mut read = Vec::new();
            file.read_to_end(&mut read)?;
            ensure!(read == bytes, "{name}");
        }
        let mut names: Vec<_> = fs::read_dir(&place)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        ensure!(names == ["one", "three", "two"], "{names:?}");
    }
    // Opened for writing it opens, as nobody is asked, and what is written is refused.
    let opened = fs::File::options().write(true).open(place.join("one"))?;
    let written = opened.write_at(b"x", 0);
    drop(opened);
    let written = written.err().and_then(|why| why.raw_os_error());
    ensure!(written == Some(Errno::ROFS.raw_os_error()), "{written:?}");
    ensure!(fs::read(shared.path().join("directory/one"))? == bytes);
    share.finish()
}
