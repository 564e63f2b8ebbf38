//! Every kind of store below a share, seen through a mount: names, bytes, space that comes back,
//! and what the host puts in the place of a file that the guest believes to know.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{OFlags, StatVfs, open, statvfs, syncfs};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::Launch;

#[path = "../../hostfs/tests/kit/store.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "stores of other tests, too")]
mod store;
use store::Store;

const MIB: u64 = 1 << 20;
const LISTED: usize = 2000;

fn share_of(store: &Path, arguments: &[&str]) -> Result<BridgedShare> {
    let launch = arguments
        .iter()
        .fold(Launch::new(store), |launch, argument| launch.arg(*argument));
    BridgedShare::start(launch, &BridgeOptions::default())
}

fn names(place: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(place)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// What is made, moved, linked and removed inside is so outside, and the other way round.
fn names_and_bytes(outside: &Path, inside: &Path) -> Result<()> {
    fs::create_dir_all(inside.join("deep/er"))?;
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(inside.join("deep/file"), &bytes)?;
    ensure!(fs::read(outside.join("deep/file"))? == bytes);
    fs::rename(inside.join("deep/file"), inside.join("deep/er/moved"))?;
    fs::hard_link(inside.join("deep/er/moved"), inside.join("linked"))?;
    std::os::unix::fs::symlink("deep/er/moved", inside.join("link"))?;
    ensure!(fs::read(inside.join("link"))? == bytes);
    let (one, other) = (inside.join("linked"), inside.join("deep/er/moved"));
    ensure!(one.metadata()?.ino() == other.metadata()?.ino());
    ensure!(one.metadata()?.nlink() == 2);
    // A hole, and bytes beyond 4 GiB where the store has files as large as this.
    let mut file = File::options().write(true).read(true).open(&one)?;
    file.write_all_at(b"far", 5 << 30)?;
    file.seek(SeekFrom::Start(5 << 30))?;
    let mut far = Vec::new();
    file.read_to_end(&mut far)?;
    ensure!(far == b"far", "{far:?}");
    ensure!(outside.join("linked").metadata()?.len() == (5 << 30) + 3);
    fs::write(outside.join("deep/er/of-the-host"), "theirs")?;
    ensure!(fs::read(inside.join("deep/er/of-the-host"))? == b"theirs");
    ensure!(names(&inside.join("deep/er"))? == ["moved", "of-the-host"]);
    drop(file);
    fs::remove_dir_all(inside.join("deep"))?;
    for name in ["linked", "link"] {
        fs::remove_file(inside.join(name))?;
    }
    Ok(())
}

/// A directory of several reading buffers, each name once; removed while it is listed, it is empty in the end.
fn a_long_listing(outside: &Path, inside: &Path) -> Result<()> {
    let (within, without) = (inside.join("many"), outside.join("many"));
    fs::create_dir(&within)?;
    let mut made = Vec::new();
    for number in 0..LISTED {
        let name = format!("{number:05}-with-a-name-of-some-length");
        File::create(without.join(&name))?;
        made.push(name);
    }
    ensure!(names(&within)? == made);
    for entry in fs::read_dir(&within)? {
        fs::remove_file(entry?.path())?;
    }
    ensure!(names(&without)?.is_empty(), "{:?}", names(&without)?);
    fs::remove_dir(&within)?;
    Ok(())
}

fn free_bytes(store: &Path) -> Result<u64> {
    // Some stores free what was removed when they commit.
    let root = open(store, OFlags::RDONLY, rustix::fs::Mode::empty())?;
    syncfs(&root)?;
    let StatVfs {
        f_bfree, f_frsize, ..
    } = statvfs(store)?;
    Ok(f_bfree * f_frsize)
}

/// An unlinked file is there for whoever has it open, and its space comes back when nobody has.
fn space_comes_back(outside: &Path, inside: &Path) -> Result<()> {
    let path = inside.join("large");
    let before = free_bytes(outside)?;
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    // Random bytes: a store that compresses needs as many blocks.
    let mut bytes = vec![0; usize::try_from(16 * MIB)?];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::remove_file(&path)?;
    let taken = before.saturating_sub(free_bytes(outside)?);
    ensure!(taken > 12 * MIB, "{taken} bytes are taken by what is open");
    let mut again = vec![0; bytes.len()];
    file.read_exact_at(&mut again, 0)?;
    ensure!(again == bytes, "what is open is still there");
    ensure!(file.metadata()?.nlink() == 0);
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let taken = before.saturating_sub(free_bytes(outside)?);
        if taken < 4 * MIB {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{taken} bytes never came back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A part of the test: the store, and the same as the share shows it.
type Part = fn(&Path, &Path) -> Result<()>;

fn everything(kind: &str, store: &Path) -> Result<()> {
    // Nothing is cached, so that what the host does shows at once.
    let share = share_of(store, &["--cache", "never"])?;
    let parts: [(&str, Part); 3] = [
        ("names and bytes", names_and_bytes),
        ("a long listing", a_long_listing),
        ("space", space_comes_back),
    ];
    for (what, part) in parts {
        part(store, share.path()).with_context(|| format!("{kind}: {what}"))?;
    }
    share.finish()
}

#[test]
fn a_share_on_ext4_is_what_ext4_is() -> Result<()> {
    Store::ext4().map_or(Ok(()), |store| everything("ext4", store.path()))
}

#[test]
fn a_share_on_xfs_is_what_xfs_is() -> Result<()> {
    Store::xfs().map_or(Ok(()), |store| everything("xfs", store.path()))
}

#[test]
fn a_share_on_btrfs_is_what_btrfs_is() -> Result<()> {
    Store::btrfs().map_or(Ok(()), |store| everything("btrfs", store.path()))
}

#[test]
fn a_share_on_tmpfs_is_what_tmpfs_is() -> Result<()> {
    Store::tmpfs().map_or(Ok(()), |store| everything("tmpfs", store.path()))
}

#[test]
fn a_share_on_overlayfs_is_what_overlayfs_is() -> Result<()> {
    let store = Store::overlay(|lower| {
        // Some of it lies below, and is covered as it goes.
        let _ = fs::write(lower.join("below"), "kept");
    });
    let Some(store) = store else { return Ok(()) };
    everything("overlayfs", store.path())?;
    let share = share_of(store.path(), &[])?;
    ensure!(fs::read(share.path().join("below"))? == b"kept");
    fs::remove_file(share.path().join("below"))?;
    ensure!(!share.path().join("below").exists());
    share.finish()
}

/// The store is itself a share, of another daemon.
#[test]
fn a_share_on_a_fuse_file_system_is_what_that_is() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let below = Tmpfs::new()?;
    let store = share_of(below.path(), &["--cache", "never"])?;
    everything("FUSE", store.path())?;
    store.finish()
}

/// The guest believes a name for a day; that it names another file now shows when the guest uses what it knows.
#[test]
fn a_file_that_is_another_one_by_now_is_stale_and_looked_up_again() -> Result<()> {
    let stores = [
        ("tmpfs", Store::tmpfs()),
        ("ext4", Store::ext4()),
        ("xfs", Store::xfs()),
        ("btrfs", Store::btrfs()),
    ];
    for (kind, store) in stores {
        let Some(store) = store else { continue };
        let path = store.path().join("file");
        fs::write(&path, "old")?;
        // Longer than a birth tells nothing: then a listing holds no descriptor of it.
        std::thread::sleep(Duration::from_millis(50));
        let share = share_of(store.path(), &["--cache", "metadata"])?;
        let seen = share.path().join("file");
        ensure!(names(share.path())?.contains(&"file".to_owned()));
        ensure!(seen.metadata()?.len() == 3, "{kind}");
        fs::remove_file(&path)?;
        fs::write(&path, "another one")?;
        ensure!(
            seen.metadata()?.len() == 3,
            "{kind}: believed without asking"
        );
        ensure!(
            fs::read(&seen)? == b"another one",
            "{kind}: opened, it was looked up again"
        );
        share.finish().context(kind)?;
    }
    Ok(())
}
