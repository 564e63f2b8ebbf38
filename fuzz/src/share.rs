//! A real directory to share, what lies beside it, and what somebody on the host does to it.
//!
//! One directory serves all runs. After each it is made again what it was: only what has changed, which the kernel tells
//! by the time of an inode's last change.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, RenameFlags, fchmod, fchown, flistxattr,
    fremovexattr, fstat, mkdirat, mknodat, open, openat, renameat_with, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use virtiofs_hostfs::SharedRoot;

use crate::input::Input;

/// Names in the share and names to be.
pub const NAMES: [&str; 8] = [
    "file", "dir", "link", "pipe", "new", "other", "abs", "inner",
];

/// What stands under a name when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A file of these bytes.
    File(&'static [u8]),
    /// A directory with a file `inner` of these bytes.
    Directory(&'static [u8]),
    /// A link to what lies beside the share.
    Link,
    /// The same by a path from the root of all.
    LinkFromRoot,
    /// A FIFO.
    Pipe,
}

/// What is in the share.
pub const THINGS: [(&str, Thing); 5] = [
    ("file", Thing::File(b"0123456789")),
    ("dir", Thing::Directory(b"abc")),
    ("link", Thing::Link),
    ("abs", Thing::LinkFromRoot),
    ("pipe", Thing::Pipe),
];
/// Name of the file in the directory.
pub const INNER: &str = "inner";
/// Where the link leads.
pub const BESIDE: &str = "../secret";

const FILE_MODE: RawMode = 0o644;
const DIRECTORY_MODE: RawMode = 0o755;

/// What tells whether an inode is the same and unchanged: any change moves its ctime, but that tmpfs gives a directory
/// the ctime of what is linked into it or unlinked there. Its length tells then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    ino: u64,
    len: i64,
    mode: RawMode,
    links: u64,
    ctime: (i64, u64),
}

/// A directory with a share in it and a secret beside it.
#[derive(Debug)]
pub struct Share {
    folder: tempfile::TempDir,
    /// The share itself.
    root: OwnedFd,
    secret: State,
    /// As the root and each thing were left last, the directory's file behind it.
    left: Option<(State, [[Option<State>; 2]; THINGS.len()])>,
    /// Whether each change can be told.
    tells_changes: bool,
    /// Whether something was moved out of the share.
    has_moved: Cell<bool>,
}

impl Share {
    /// Makes it in the folder for temporary files, which had better be in memory.
    ///
    /// # Errors
    ///
    /// The host's.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let outer = folder.path();
        fs::write(outer.join("secret"), "secret")?;
        fs::create_dir(outer.join("share"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(outer.join("share"), flags, Mode::empty())?;
        let tells_changes = tells_changes(&outer.join("secret"))?;
        let secret = State::of(CWD, &outer.join("secret"))?;
        let mut share = Self {
            folder,
            root,
            secret,
            left: None,
            tells_changes,
            has_moved: Cell::new(false),
        };
        share.restore()?;
        Ok(share)
    }

    /// The right to serve it.
    ///
    /// # Errors
    ///
    /// The host's.
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

    /// Path of what must not be touched: where one link leads.
    pub fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
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
            4 => symlink(BESIDE, one),
            5 => fs::write(share.join("written"), "x")
                .and_then(|()| fs::rename(share.join("written"), one)),
            6 => fs::create_dir(one),
            // Out of the share, where the guest may follow what it holds, and no further.
            _ => {
                self.has_moved.set(true);
                fs::rename(one, self.folder.path().join("moved"))
            }
        };
    }

    /// Checks that nothing beside the share has changed.
    ///
    /// # Panics
    ///
    /// When something has.
    pub fn assert_untouched(&self) {
        assert_eq!(
            State::of(CWD, &self.secret()).ok(),
            Some(self.secret),
            "the secret was touched"
        );
        for name in names(self.folder.path()).expect("a folder of ours") {
            let known = ["secret", "share", "moved"]
                .iter()
                .any(|known| name == *known);
            assert!(known, "{name:?} was made outside the share");
        }
    }

    /// Makes everything again what it was.
    ///
    /// # Errors
    ///
    /// The host's: the share is good for nothing then.
    pub fn restore(&mut self) -> io::Result<()> {
        if self.has_moved.take() {
            remove(&self.folder.path().join("moved"))?;
        }
        let root = State::of_open(&self.root)?;
        let left = self.left.take().filter(|_| self.tells_changes);
        let is_same = left.is_some_and(|(left, _)| left == root);
        if !is_same {
            self.restore_root()?;
        }
        for name in names(&self.path())? {
            if THINGS.iter().all(|(there, _)| name != *there) {
                remove(&self.path().join(name))?;
            }
        }
        let mut states = left.map_or_else(Default::default, |(_, states)| states);
        for ((name, thing), states) in THINGS.into_iter().zip(&mut states) {
            if states[0].is_none() || self.states(name, thing)? != *states {
                remove(&self.path().join(name))?;
                self.make(name, thing)?;
                *states = self.states(name, thing)?;
            }
        }
        self.left = Some((State::of_open(&self.root)?, states));
        Ok(())
    }

    /// The root's own attributes.
    fn restore_root(&self) -> io::Result<()> {
        fchown(&self.root, Some(geteuid()), Some(getegid()))?;
        fchmod(&self.root, Mode::from_raw_mode(DIRECTORY_MODE))?;
        let mut list = [0; 4096];
        let len = flistxattr(&self.root, &mut list)?;
        for name in list[..len].split(|byte| *byte == 0) {
            if !name.is_empty() {
                fremovexattr(&self.root, name)?;
            }
        }
        Ok(())
    }

    /// A thing's state now, and that of what is in it.
    fn states(&self, name: &str, thing: Thing) -> io::Result<[Option<State>; 2]> {
        let there = |path: &Path| match State::of(&self.root, path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            state => state.map(Some),
        };
        let inner = match thing {
            Thing::Directory(_) => there(&Path::new(name).join(INNER))?,
            Thing::File(_) | Thing::Link | Thing::LinkFromRoot | Thing::Pipe => None,
        };
        Ok([there(Path::new(name))?, inner])
    }

    fn make(&self, name: &str, thing: Thing) -> io::Result<()> {
        match thing {
            Thing::File(content) => self.make_file(Path::new(name), content)?,
            Thing::Directory(content) => {
                mkdirat(&self.root, name, Mode::from_raw_mode(DIRECTORY_MODE))?;
                self.make_file(&Path::new(name).join(INNER), content)?;
            }
            Thing::Link => symlinkat(BESIDE, &self.root, name)?,
            Thing::LinkFromRoot => symlinkat(self.secret(), &self.root, name)?,
            Thing::Pipe => {
                let mode = Mode::from_raw_mode(FILE_MODE);
                mknodat(&self.root, name, FileType::Fifo, mode, 0)?;
            }
        }
        Ok(())
    }

    fn make_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.root, path, flags, Mode::from_raw_mode(FILE_MODE))?;
        rustix::io::write(&file, content)?;
        Ok(())
    }
}

impl State {
    fn of(folder: impl AsFd, path: &Path) -> Result<Self, Errno> {
        statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).map(Self::read)
    }

    fn of_open(file: &OwnedFd) -> Result<Self, Errno> {
        fstat(file).map(Self::read)
    }

    fn read(stat: rustix::fs::Stat) -> Self {
        Self {
            ino: stat.st_ino,
            len: stat.st_size,
            mode: stat.st_mode,
            links: stat.st_nlink,
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Whether two changes of a file, with a look between them, have different times: since Linux 6.13 they do.
fn tells_changes(path: &Path) -> io::Result<bool> {
    let file = fs::File::open(path)?;
    let mut last = State::of(CWD, path)?;
    for mode in [0o600, 0o644].into_iter().cycle().take(64) {
        fchmod(&file, Mode::from_raw_mode(mode))?;
        let state = State::of(CWD, path)?;
        if state.ctime == last.ctime {
            return Ok(false);
        }
        last = state;
    }
    Ok(true)
}

/// Names in a folder, but for its own and the one above.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::new(open(folder, flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Removes what stands under a name, if anything does.
fn remove(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Err(Errno::ISDIR) => fs::remove_dir_all(path),
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Gid, Uid};

    use super::*;

    /// The whole share as text.
    fn picture(share: &Share) -> Vec<String> {
        let mut lines = Vec::new();
        let mut folders = vec![share.path()];
        while let Some(folder) = folders.pop() {
            for name in names(&folder).unwrap() {
                let path = folder.join(name);
                let stat = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
                let (mode, links) = (stat.st_mode, stat.st_nlink);
                let content = match FileType::from_raw_mode(mode) {
                    FileType::RegularFile => fs::read(&path).unwrap(),
                    FileType::Symlink => fs::read_link(&path)
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                    _ => Vec::new(),
                };
                if stat.st_mode & 0o17_0000 == 0o4_0000 {
                    folders.push(path.clone());
                }
                lines.push(format!("{} {mode:o} {links} {content:?}", path.display()));
            }
        }
        lines.sort();
        lines
    }

    #[test]
    fn whatever_is_done_to_the_share_is_undone() {
        let mut share = Share::new().unwrap();
        let before = picture(&share);
        assert_eq!(before.len(), 6, "{before:?}");
        let path = share.path();
        type Deed = fn(&Path) -> io::Result<()>;
        let deeds: &[Deed] = &[
            |_| Ok(()),
            |path| fs::write(path.join("file"), "9876543210"),
            |path| fs::write(path.join("dir/inner"), "cba"),
            |path| fs::rename(path.join("file"), path.join("dir/file")),
            |path| fs::remove_dir_all(path.join("dir")),
            |path| fs::hard_link(path.join("file"), path.join("new")),
            |path| fs::create_dir_all(path.join("new/deep/deeper")),
            |path| fs::rename(path.join("dir"), path.join("file.d")),
            |path| {
                fs::remove_file(path.join("link")).and_then(|()| fs::create_dir(path.join("link")))
            },
            |path| Ok(fchmod(fs::File::open(path)?, Mode::from_raw_mode(0o1777))?),
            |path| {
                Ok(fchown(
                    fs::File::open(path.join("dir"))?,
                    Some(Uid::from_raw(7)),
                    Some(Gid::from_raw(7)),
                )?)
            },
        ];
        for (number, deed) in deeds.iter().enumerate() {
            for tells_changes in [true, false] {
                share.tells_changes &= tells_changes;
                deed(&path).unwrap();
                share.restore().unwrap();
                assert_eq!(picture(&share), before, "deed {number}");
                let root = fstat(&share.root).unwrap();
                assert_eq!(root.st_mode & 0o7777, DIRECTORY_MODE, "deed {number}");
            }
            share.tells_changes = super::tells_changes(&share.secret()).unwrap();
            share.secret = State::of(CWD, &share.secret()).unwrap();
        }
        share.assert_untouched();
    }
}
