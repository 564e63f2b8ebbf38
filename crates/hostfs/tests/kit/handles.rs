//! Handles that need no privilege: whoever makes one keeps a descriptor of the inode, and finds it by that.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::path::DecInt;
use virtiofs_hostfs::{FileHandle, FileHandles};
use virtiofs_protocol::Errno;

/// The maker, of which a test keeps a second reference.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Arc<Maker>);

#[derive(Debug)]
struct Maker {
    root: PathBuf,
    inodes: Mutex<Vec<OwnedFd>>,
    opened: AtomicUsize,
    works: AtomicBool,
}

impl Kept {
    pub(crate) fn below(root: &Path) -> Self {
        Self(Arc::new(Maker {
            root: root.to_owned(),
            inodes: Mutex::default(),
            opened: AtomicUsize::new(0),
            works: AtomicBool::new(true),
        }))
    }

    pub(crate) fn made(&self) -> usize {
        self.0.inodes.lock().unwrap().len()
    }

    pub(crate) fn opened(&self) -> usize {
        self.0.opened.load(Ordering::Relaxed)
    }

    /// From here on nothing is made or opened.
    pub(crate) fn fail(&self) {
        self.0.works.store(false, Ordering::Relaxed);
    }
}

impl FileHandles for Kept {
    fn make(&self, path: &[u8]) -> Option<FileHandle> {
        if !self.work() {
            return None;
        }
        let path = self.0.root.join(OsStr::from_bytes(path));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = openat(CWD, path, flags, Mode::empty()).ok()?;
        let mut inodes = self.0.inodes.lock().unwrap();
        inodes.push(held);
        Some(FileHandle::new(&(inodes.len() - 1).to_le_bytes()))
    }

    fn open(&self, handle: &FileHandle, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        if !self.work() {
            return Err(Errno::STALE);
        }
        let index = usize::from_le_bytes(handle.bytes().try_into().unwrap());
        let inodes = self.0.inodes.lock().unwrap();
        let held = inodes[index].as_fd();
        if fstat(held)?.st_nlink == 0 {
            return Err(Errno::STALE);
        }
        if flags.contains(OFlags::PATH) {
            return held.try_clone_to_owned().map_err(|_| Errno::MFILE);
        }
        let path = Path::new("/proc/self/fd").join(DecInt::from_fd(held));
        openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    fn work(&self) -> bool {
        self.0.works.load(Ordering::Relaxed)
    }
}
