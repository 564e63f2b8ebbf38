//! A real directory to share, what lies beside it, and what somebody on the host does to it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with};
use virtiofs_hostfs::SharedRoot;

use crate::input::Input;

/// Names in the share and names to be.
pub const NAMES: [&str; 8] = [
    "file", "dir", "link", "pipe", "new", "other", "abs", "inner",
];

/// A directory with a share in it and a secret beside it.
#[derive(Debug)]
pub struct Share {
    folder: tempfile::TempDir,
    secret: State,
}

/// What must not change about the secret; any change moves its ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    ino: u64,
    links: u64,
    ctime: (i64, i64),
}

impl Share {
    /// Makes it, in memory where the machine has such a file system.
    pub fn new() -> io::Result<Self> {
        let in_memory = Path::new("/dev/shm");
        let folder = if in_memory.is_dir() {
            tempfile::tempdir_in(in_memory)?
        } else {
            tempfile::tempdir()?
        };
        let outer = folder.path();
        fs::write(outer.join("secret"), "secret")?;
        let share = outer.join("share");
        fs::create_dir(&share)?;
        fs::create_dir(share.join("dir"))?;
        fs::write(share.join("file"), "0123456789")?;
        fs::write(share.join("dir/inner"), "abc")?;
        symlink("../secret", share.join("link"))?;
        symlink(outer.join("secret"), share.join("abs"))?;
        rustix::fs::mkfifoat(CWD, share.join("pipe"), Mode::from_raw_mode(0o666))?;
        let secret = state(outer)?;
        Ok(Self { folder, secret })
    }

    /// The right to serve it.
    pub fn root(&self) -> io::Result<SharedRoot> {
        let open_path = |path: &Path| -> io::Result<OwnedFd> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(open(path, flags, Mode::empty())?)
        };
        let share = open_path(&self.path())?;
        Ok(SharedRoot::new(
            share,
            open_path(Path::new("/proc/self/fd"))?,
        ))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// Somebody on the host changes something; what cannot be done is left undone.
    pub fn change(&self, input: &mut Input<'_>) {
        let share = self.path();
        let mut name = || share.join(input.choose(&NAMES));
        let (one, other) = (name(), name());
        // Each may fail: the names are whatever they are by now.
        let _done: io::Result<()> = match input.u8() % 8 {
            0 => fs::rename(one, other),
            1 => renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(Into::into),
            2 => fs::remove_file(one),
            3 => fs::remove_dir_all(one),
            4 => symlink("../secret", one),
            5 => fs::write(share.join("written"), "x")
                .and_then(|()| fs::rename(share.join("written"), one)),
            6 => fs::create_dir(one),
            // Out of the share, where the guest may follow what it holds, and no further.
            _ => fs::rename(one, self.folder.path().join("moved")),
        };
    }

    /// Checks that nothing beside the share has changed.
    ///
    /// # Panics
    ///
    /// When something has.
    pub fn assert_untouched(&self) {
        let outer = self.folder.path();
        assert_eq!(
            state(outer).ok(),
            Some(self.secret),
            "the secret was touched"
        );
        for entry in fs::read_dir(outer).expect("a folder of ours") {
            let name = entry.expect("an entry").file_name();
            let known = ["secret", "share", "moved"]
                .iter()
                .any(|known| name == *known);
            assert!(known, "{name:?} was made outside the share");
        }
    }
}

fn state(outer: &Path) -> io::Result<State> {
    let stat = fs::symlink_metadata(outer.join("secret"))?;
    Ok(State {
        ino: stat.ino(),
        links: stat.nlink(),
        ctime: (stat.ctime(), stat.ctime_nsec()),
    })
}
