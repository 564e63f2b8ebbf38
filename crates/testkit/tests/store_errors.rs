//! What goes wrong in a store reaches the request that met it, as the store said it; what was
//! acknowledged before stays.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use virtiofs_testkit::bridge::share::{can_mount, run_within, skipped};
use virtiofs_testkit::frontend::{Daemon, Launch};
use virtiofs_testkit::fuse::abi::{self, ROOT};
use virtiofs_testkit::fuse::{Failure, FuseClient, Session};

const LIMIT: Duration = Duration::from_secs(60);
const O_RDWR: u32 = 2;
const MIB: usize = 1 << 20;

fn must(program: &str, arguments: &[&str]) -> Result<()> {
    let ran = run_within(LIMIT, Command::new(program).args(arguments))?;
    ensure!(
        ran.status.success(),
        "{program} {arguments:?}: {}",
        ran.output
    );
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("UTF-8")
}

/// A tmpfs of a size with an image of another file system in it, which thinks that it is larger.
struct Rig {
    place: TempDir,
    image: PathBuf,
}

impl Rig {
    /// The tmpfs alone, as `path()`.
    fn tmpfs(options: &str) -> Result<Self> {
        let place = TempDir::new()?;
        must(
            "mount",
            &["-t", "tmpfs", "-o", options, "tmpfs", text(place.path())?],
        )?;
        let image = place.path().join("image");
        Ok(Self { place, image })
    }

    /// A file system of `size` on a loop device over the tmpfs.
    fn looped(backing: &str, mkfs: &[&str], size: &str) -> Result<Self> {
        let rig = Self::tmpfs(backing)?;
        fs::create_dir(rig.place.path().join("mounted"))?;
        let image = text(&rig.image)?;
        must("truncate", &["-s", size, image])?;
        must(mkfs[0], &[&mkfs[1..], &[image]].concat())?;
        let mounted = rig.mounted();
        must("mount", &["-o", "loop", image, text(&mounted)?])?;
        Ok(rig)
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn mounted(&self) -> PathBuf {
        self.place.path().join("mounted")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = unmount(self.mounted(), UnmountFlags::DETACH);
        let _ = unmount(self.place.path(), UnmountFlags::DETACH);
    }
}

fn cannot() -> bool {
    let cannot = !can_mount();
    if cannot {
        skipped("needs root and loop devices");
    }
    cannot
}

/// A daemon on a store. Fields are dropped in this order.
struct Served {
    session: Session,
    daemon: Daemon,
}

impl Served {
    fn on(share: &Path) -> Result<Self> {
        let daemon = Launch::new(share).start()?;
        let session = Session::open(daemon.socket())?;
        Ok(Self { session, daemon })
    }

    fn client(&mut self) -> &mut FuseClient {
        self.session.client()
    }

    fn make(&mut self, name: &str) -> Result<(u64, u64)> {
        let made = self.client().create(ROOT, name, O_RDWR, 0o640)?;
        Ok((made.entry.nodeid, made.open.fh))
    }

    /// Writes pieces until one is refused; how many bytes were acknowledged, and why no more.
    fn fill(&mut self, (node, fh): (u64, u64)) -> Result<(usize, Errno)> {
        let piece = vec![b'x'; 64 << 10];
        let mut done = 0;
        while done < 512 * MIB {
            match self.client().write(node, fh, done.try_into()?, &piece) {
                Ok(count) => done += usize::try_from(count)?,
                Err(failure) => return Ok((done, failure.errno().context("an errno")?)),
            }
        }
        anyhow::bail!("it is never full");
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Failure>, errno: Errno) -> Result<()> {
    ensure!(
        result.as_ref().err().and_then(|failure| failure.errno()) == Some(errno),
        "{errno} expected, got {result:?}"
    );
    Ok(())
}

#[test]
fn a_full_store_is_enospc_and_keeps_what_was_acknowledged() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let rig = Rig::tmpfs("size=4m,nr_inodes=20")?;
    let mut served = Served::on(rig.path())?;
    let file = served.make("file")?;
    let (done, errno) = served.fill(file)?;
    ensure!(errno == Errno::NOSPC, "{errno}");
    ensure!(done > 3 * MIB && done <= 4 * MIB, "{done}");
    let kept = fs::read(rig.path().join("file"))?;
    ensure!(kept.len() >= done && kept[..done].iter().all(|byte| *byte == b'x'));
    let more = abi::FallocateIn {
        fh: file.1,
        offset: 0,
        length: 8 << 20,
        ..Default::default()
    };
    refused(served.client().fallocate(file.0, &more), Errno::NOSPC)?;
    // Inodes end, too; nothing half-made stays, and nothing that worked stops to.
    let mut made = 0;
    let errno = loop {
        match served
            .client()
            .mkdir(ROOT, format!("directory-{made}"), 0o755)
        {
            Ok(_) => made += 1,
            Err(failure) => break failure.errno(),
        }
        ensure!(made < 100, "it never ends");
    };
    ensure!(errno == Some(Errno::NOSPC), "{errno:?}");
    for result in [
        served
            .client()
            .create(ROOT, "late", O_RDWR, 0o600)
            .map(drop),
        served.client().symlink(ROOT, "late", "target").map(drop),
    ] {
        refused(result, Errno::NOSPC)?;
    }
    ensure!(!rig.path().join("late").exists());
    served.client().unlink(ROOT, "file")?;
    served.client().release(file.0, file.1)?;
    served.session.hiprio.forget(file.0, 1)?;
    // FORGET has no reply.
    let deadline = Instant::now() + LIMIT;
    let again = loop {
        match served.make("again") {
            Ok(made) => break made,
            Err(error) => ensure!(Instant::now() < deadline, "{error}"),
        }
    };
    served
        .client()
        .write(again.0, again.1, 0, &vec![b'y'; MIB])?;
    ensure!(fs::read(rig.path().join("again"))?.len() == MIB);
    Ok(())
}

/// The store takes the bytes and loses them later: each open file hears of it once, at its next fsync.
#[test]
fn bytes_that_were_taken_and_lost_are_told_once_per_open_file() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    // Without a journal an error of the device stays with the file that it hit.
    let mkfs = [
        "mkfs.ext4",
        "-q",
        "-F",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=0",
    ];
    let rig = Rig::looped("size=12m", &mkfs, "128M")?;
    // Its blocks are set apart now, and what says so is in the image: only contents can be lost later.
    let host = File::create(rig.mounted().join("file"))?;
    let everywhere = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&host, everywhere, 0, 40 << 20)?;
    must("sync", &["-f", text(&rig.mounted())?])?;
    let mut filler = File::create(rig.path().join("filler"))?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    let mut served = Served::on(&rig.mounted())?;
    let node = served.client().lookup(ROOT, "file")?.nodeid;
    let first = served.client().open(node, O_RDWR)?.fh;
    let second = served.client().open(node, O_RDWR)?.fh;
    let block = vec![b'z'; MIB];
    for number in 0..40_u64 {
        let at = number * (1 << 20);
        served
            .client()
            .write(node, first, at, &block)
            .context("accepted")?;
    }
    // The host is told on a descriptor of its own: of the contents, then of metadata, until all is lost.
    let mut told = Vec::new();
    while let Err(error) = host.sync_all() {
        told.push(Errno::from_io_error(&error).context("an errno")?);
        ensure!(told.len() < 10, "it is told again and again: {told:?}");
    }
    let of_the_contents = *told.first().context("the rig lost nothing")?;
    for fh in [first, second] {
        refused(served.client().fsync(node, fh), of_the_contents)?;
    }
    for fh in [first, second] {
        served
            .client()
            .fsync(node, fh)
            .context("told a second time")?;
    }
    ensure!(served.daemon.is_running());
    Ok(())
}

#[test]
fn what_cannot_be_read_is_eio_and_the_rest_is_served() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let mkfs = ["mkfs.ext4", "-q", "-F", "-O", "^has_journal"];
    let rig = Rig::looped("size=64m", &mkfs, "48M")?;
    let path = rig.mounted().join("file");
    File::create(&path)?.write_all(&vec![b'a'; 16 * MIB])?;
    fs::write(rig.mounted().join("small"), "kept")?;
    must("sync", &["-f", text(&path)?])?;
    let mut served = Served::on(&rig.mounted())?;
    let small = served.client().lookup(ROOT, "small")?.nodeid;
    let node = served.client().lookup(ROOT, "file")?.nodeid;
    let fh = served.client().open(node, O_RDWR)?.fh;
    let small_fh = served.client().open(small, 0)?.fh;
    ensure!(served.client().read(small, small_fh, 0, 10)? == b"kept");
    // The store's own end is cut off beneath it; the page cache forgets this file's contents.
    File::options()
        .write(true)
        .open(&rig.image)?
        .set_len(1 << 20)?;
    let host = File::open(&path)?;
    rustix::fs::fadvise(&host, 0, None, rustix::fs::Advice::DontNeed)?;
    let offset = 12 << 20;
    let read = host.read_at(&mut [0; 4096], offset);
    let error = read.err().context("the host reads what is not there")?;
    ensure!(Errno::from_io_error(&error) == Some(Errno::IO), "{error}");
    refused(served.client().read(node, fh, offset, 4096), Errno::IO)?;
    ensure!(served.client().read(small, small_fh, 0, 10)? == b"kept");
    served.client().getattr(node)?;
    Ok(())
}

#[test]
fn a_store_that_becomes_read_only_is_erofs_for_what_changes_it() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let rig = Rig::tmpfs("size=4m")?;
    fs::write(rig.path().join("file"), "before")?;
    fs::create_dir(rig.path().join("directory"))?;
    let mut served = Served::on(rig.path())?;
    let node = served.client().lookup(ROOT, "file")?.nodeid;
    let fh = served.client().open(node, 0)?.fh;
    must("mount", &["-o", "remount,ro", text(rig.path())?])?;
    let size = abi::SetattrIn {
        valid: abi::fattr::SIZE,
        ..Default::default()
    };
    let client = served.client();
    refused(client.create(ROOT, "new", O_RDWR, 0o600), Errno::ROFS)?;
    refused(client.mkdir(ROOT, "new", 0o700), Errno::ROFS)?;
    refused(client.symlink(ROOT, "new", "target"), Errno::ROFS)?;
    refused(client.unlink(ROOT, "file"), Errno::ROFS)?;
    refused(client.rmdir(ROOT, "directory"), Errno::ROFS)?;
    refused(
        client.rename((ROOT, b"file"), (ROOT, b"moved"), 0),
        Errno::ROFS,
    )?;
    refused(client.link(node, ROOT, "second"), Errno::ROFS)?;
    refused(client.setattr(node, &size), Errno::ROFS)?;
    refused(client.open(node, O_RDWR), Errno::ROFS)?;
    ensure!(client.read(node, fh, 0, 10)? == b"before");
    must("mount", &["-o", "remount,rw", text(rig.path())?])?;
    let client = served.client();
    let writing = client.open(node, O_RDWR)?.fh;
    client.write(node, writing, 0, b"AFTER")?;
    ensure!(client.read(node, fh, 0, 10)? == b"AFTERe");
    Ok(())
}

#[test]
fn a_quota_that_is_used_up_is_edquot() -> Result<()> {
    if cannot() {
        return Ok(());
    }
    let rig = Rig::looped("size=300m", &["mkfs.btrfs", "-q", "-f"], "256M")?;
    let mounted = rig.mounted();
    let volume = mounted.join("volume");
    must("btrfs", &["-q", "subvolume", "create", text(&volume)?])?;
    must("btrfs", &["quota", "enable", text(&mounted)?])?;
    must("btrfs", &["qgroup", "limit", "8M", text(&volume)?])?;
    let mut served = Served::on(&volume)?;
    let file = served.make("file")?;
    let (done, errno) = served.fill(file)?;
    ensure!(errno == Errno::DQUOT, "{errno} after {done} bytes");
    served.client().fsync(file.0, file.1)?;
    let mut kept = Vec::new();
    File::open(volume.join("file"))?.read_to_end(&mut kept)?;
    ensure!(kept.len() >= done && kept[..done].iter().all(|byte| *byte == b'x'));
    Ok(())
}
