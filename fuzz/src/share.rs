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
    fremovexattr, fstat, llistxattr, mkdirat, mknodat, open, openat, renameat_with, statat,
    symlinkat, unlinkat,
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

/// What tells whether an inode is the same and unchanged.
///
/// Any change moves its ctime, but that tmpfs gives a directory the ctime of what is linked into it or unlinked there,
/// and then takes the next change for the same one. What else there is to a directory is therefore part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    ino: u64,
    mode: RawMode,
    owner: (u32, u32),
    len: i64,
    links: u64,
    ctime: (i64, u64),
}

/// A thing's state, that of what is in it, and the length of the list of a directory's attributes.
type Whole = (Option<State>, Option<State>, usize);

/// A directory with a share in it and a secret beside it.
#[derive(Debug)]
pub struct Share {
    folder: tempfile::TempDir,
    /// The share itself.
    root: OwnedFd,
    secret: State,
    /// As each thing was left last.
    left: [Whole; THINGS.len()],
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
            left: [(None, None, 0); THINGS.len()],
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
        self.restore_root()?;
        for name in names(&self.path())? {
            if THINGS.iter().all(|(there, _)| name != *there) {
                remove(&self.path().join(name))?;
            }
        }
        for (place, (name, thing)) in THINGS.into_iter().enumerate() {
            let is_same = self.tells_changes
                && self.left[place].0.is_some()
                && self.left[place] == self.whole(name, thing)?;
            if !is_same {
                remove(&self.path().join(name))?;
                self.make(name, thing)?;
                self.left[place] = self.whole(name, thing)?;
            }
        }
        Ok(())
    }

    /// The root's own attributes.
    fn restore_root(&self) -> io::Result<()> {
        let stat = fstat(&self.root)?;
        let us = (geteuid(), getegid());
        if (stat.st_uid, stat.st_gid) != (us.0.as_raw(), us.1.as_raw()) {
            fchown(&self.root, Some(us.0), Some(us.1))?;
        }
        if stat.st_mode & 0o7777 != DIRECTORY_MODE {
            fchmod(&self.root, Mode::from_raw_mode(DIRECTORY_MODE))?;
        }
        let mut list = [0; 4096];
        let len = flistxattr(&self.root, &mut list)?;
        for name in list[..len].split(|byte| *byte == 0) {
            if !name.is_empty() {
                fremovexattr(&self.root, name)?;
            }
        }
        Ok(())
    }

    fn whole(&self, name: &str, thing: Thing) -> io::Result<Whole> {
        let there = |path: &Path| match State::of(&self.root, path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            state => state.map(Some),
        };
        let state = there(Path::new(name))?;
        match (thing, state) {
            (Thing::Directory(_), Some(_)) => {
                let inner = there(&Path::new(name).join(INNER))?;
                let mut none: [u8; 0] = [];
                let len = llistxattr(self.path().join(name), &mut none)?;
                Ok((state, inner, len))
            }
            _ => Ok((state, None, 0)),
        }
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

    fn read(stat: rustix::fs::Stat) -> Self {
        Self {
            ino: stat.st_ino,
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            len: stat.st_size,
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
    use rustix::fs::{Gid, Uid, XattrFlags, setxattr};

    use super::*;

    fn unsupported(errno: Errno) -> Result<(), Errno> {
        [Errno::OPNOTSUPP]
            .contains(&errno)
            .then_some(())
            .ok_or(errno)
    }

    /// The whole share as text.
    fn picture(share: &Share) -> Vec<String> {
        let mut list = [0; 256];
        let mut lines = vec![format!("{}", llistxattr(share.path(), &mut list).unwrap())];
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
                    FileType::Directory => {
                        let mut list = vec![0; 256];
                        let len = llistxattr(&path, &mut list).unwrap();
                        list.truncate(len);
                        list
                    }
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
        assert_eq!(before.len(), 7, "{before:?}");
        let path = share.path();
        type Deed = fn(&Path) -> io::Result<()>;
        let deeds: &[Deed] = &[
            |_| Ok(()),
            |path| fs::write(path.join("file"), "9876543210"),
            |path| {
                // The last of these moves no ctime within a clock's tick.
                fs::hard_link(path.join("file"), path.join("new"))?;
                fs::remove_file(path.join("new"))?;
                for folder in [path.to_owned(), path.join("dir")] {
                    setxattr(folder, "user.a", b"1", XattrFlags::empty()).or_else(unsupported)?;
                }
                Ok(())
            },
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
