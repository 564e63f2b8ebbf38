//! What can be shared in each mode: a directory with what is mounted in it later, the whole host, a single file.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use common::{Privileges, ROOT_USER, USER, share_of, skipped};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::fuse::Session;
use virtiofs_testkit::fuse::abi::{self, ROOT, fattr};

const MODES: [&str; 3] = ["namespace", "chroot", "none"];
const O_RDONLY: u32 = 0;
const O_RDWR: u32 = 2;

/// Who can start which mode.
fn everyone() -> impl Iterator<Item = (Privileges, &'static str)> {
    let root = MODES.into_iter().map(|mode| (ROOT_USER, mode));
    root.chain([(USER, "namespace"), (USER, "none")])
        .filter(|(privileges, _)| privileges.available())
}

#[test]
fn the_root_of_the_host_is_a_share() -> Result<()> {
    for (privileges, mode) in everyone() {
        let known = Path::new("/etc/passwd");
        let daemon = privileges.launch(Path::new("/")).sandbox(mode).start()?;
        let mut session = Session::open(daemon.socket())?;
        let client = session.client();
        let etc = client.lookup(ROOT, "etc")?;
        let passwd = client.lookup(etc.nodeid, "passwd")?;
        ensure!(passwd.attr.ino == known.metadata()?.ino(), "{mode}");
        let opened = client.open(passwd.nodeid, O_RDONLY)?;
        let size = u32::try_from(known.metadata()?.len())?;
        ensure!(client.read(passwd.nodeid, opened.fh, 0, size)? == fs::read(known)?);
        client.release(passwd.nodeid, opened.fh)?;
        // Nothing of the sandbox's own shows in the share.
        let process = client.lookup(ROOT, "proc")?;
        let version = client.lookup(process.nodeid, "version")?;
        ensure!(version.attr.mode & 0o170_000 == 0o100_000, "{mode}");
    }
    Ok(())
}

#[test]
fn a_single_regular_file_is_a_share() -> Result<()> {
    for (privileges, mode) in everyone() {
        let place = share_of(privileges.uid)?;
        let file = place.path().join("disk");
        fs::write(&file, "contents")?;
        fs::write(place.path().join("beside"), "not shared")?;
        std::os::unix::fs::chown(&file, Some(privileges.uid), Some(privileges.uid))?;
        let daemon = privileges.launch(&file).sandbox(mode).start()?;
        let mut session = Session::open(daemon.socket())?;
        let client = session.client();
        let attributes = client.getattr(ROOT)?;
        ensure!(attributes.mode & 0o170_000 == 0o100_000 && attributes.size == 8);
        let opened = client.open(ROOT, O_RDWR)?;
        ensure!(
            client.read(ROOT, opened.fh, 0, 100)? == b"contents",
            "{mode}"
        );
        client.write(ROOT, opened.fh, 8, b" and more")?;
        client.fsync(ROOT, opened.fh)?;
        client.release(ROOT, opened.fh)?;
        ensure!(fs::read(&file)? == b"contents and more");
        let shorter = abi::SetattrIn {
            valid: fattr::SIZE,
            size: 3,
            ..Default::default()
        };
        client.setattr(ROOT, &shorter)?;
        ensure!(fs::read(&file)? == b"con", "{mode}");
        for name in ["beside", "disk"] {
            ensure!(client.lookup(ROOT, name).is_err(), "{mode}: {name}");
        }
    }
    Ok(())
}

/// A mount inside the share that goes away with the value.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// The share is on a mount that passes its events on, as those of a host with systemd do.
#[test]
fn what_the_host_mounts_later_appears_and_goes_again() -> Result<()> {
    for (privileges, mode) in everyone() {
        let share = share_of(privileges.uid)?;
        let path = share.path();
        let tmpfs = |place: &Path| mount("tmpfs", place, "tmpfs", MountFlags::empty(), None);
        if tmpfs(path).is_err() {
            skipped("mounting needs CAP_SYS_ADMIN");
            return Ok(());
        }
        let _share = Mounted(path);
        rustix::mount::mount_change(path, rustix::mount::MountPropagationFlags::SHARED)?;
        let inner = path.join("inner");
        fs::create_dir(&inner)?;
        let daemon = privileges
            .launch(path)
            .sandbox(mode)
            .arg("--cache=never")
            .start()?;
        let mut session = Session::open(daemon.socket())?;
        let client = session.client();
        let before = client.lookup(ROOT, "inner")?;
        ensure!(client.lookup(before.nodeid, "late").is_err());
        tmpfs(&inner)?;
        let late = Mounted(&inner);
        fs::write(inner.join("late"), "mounted later")?;
        let after = client.lookup(ROOT, "inner")?;
        let found = client.lookup(after.nodeid, "late")?;
        let opened = client.open(found.nodeid, O_RDONLY)?;
        ensure!(
            client.read(found.nodeid, opened.fh, 0, 100)? == b"mounted later",
            "{}, {mode}",
            privileges.name
        );
        client.release(found.nodeid, opened.fh)?;
        drop(late);
        let gone = client.lookup(ROOT, "inner")?;
        ensure!(
            client.lookup(gone.nodeid, "late").is_err(),
            "{}, {mode}",
            privileges.name
        );
    }
    Ok(())
}

/// A mount of the host is not kept busy by the process outside the sandbox.
#[test]
fn the_helper_pins_no_mount_of_the_host() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let share = share_of(0)?;
    let daemon = Launch::new(share.path()).sandbox("namespace").start()?;
    drop(Session::open(daemon.socket())?);
    let of = |process: String| fs::read_link(format!("/proc/{process}/ns/mnt"));
    ensure!(of(daemon.pid().to_string())? == of("self".into())?);
    Ok(())
}
