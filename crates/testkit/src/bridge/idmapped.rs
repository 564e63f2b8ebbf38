//! A mount on which users and groups have other numbers than in its file system.
#![expect(unsafe_code, reason = "mount_setattr, which rustix lacks")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use tempfile::TempDir;

/// An idmapped mount of a directory (man 2 mount_setattr), unmounted when dropped.
#[derive(Debug)]
pub struct IdMapped(TempDir);

impl IdMapped {
    /// Mounts it: `count` ids from `stored` on appear as those from `shown` on, and no other has an owner.
    pub fn of(directory: &Path, stored: u32, shown: u32, count: u32) -> Result<Self> {
        let place = TempDir::new()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, directory, flags).context("open_tree")?;
        let namespace = Namespace::new(&format!("{stored} {shown} {count}\n"))?;
        map_ids(tree.as_fd(), namespace.file()?.as_fd()).context("mount_setattr")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, c"", CWD, place.path(), flags).context("move_mount")?;
        Ok(Self(place))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for IdMapped {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// A process in a user namespace of its own, as a name for that namespace.
struct Namespace(Child);

impl Namespace {
    fn new(map: &str) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--user", "sleep", "60"]).stdin(Stdio::null());
        let namespace = Self(command.spawn().context("unshare")?);
        let ours = std::fs::read_link("/proc/self/ns/user")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_link(namespace.of_process("ns/user"))? == ours {
            ensure!(Instant::now() < deadline, "unshare does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        for file in ["uid_map", "gid_map"] {
            std::fs::write(namespace.of_process(file), map).context(file)?;
        }
        Ok(namespace)
    }

    fn of_process(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0.id())
    }

    fn file(&self) -> Result<File> {
        Ok(File::open(self.of_process("ns/user"))?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: both descriptors are open, the path is a C string, and the kernel reads as many bytes
    // of `attributes` as it has.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
