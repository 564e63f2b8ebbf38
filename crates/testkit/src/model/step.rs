//! One step: what a program asks of a file system, and how that is answered.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, XattrFlags,
    chmodat, chownat, fallocate, fstat, ftruncate, lgetxattr, lgetxattr_query, linkat,
    lremovexattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, renameat_with, statat,
    symlinkat, unlinkat,
};
use rustix::io::{Errno, pread, pwrite};

use crate::random::Random;

const NAMES: &[&str] = &["a", "b", "c", "d", "a name that is longer than most are"];
const SLOTS: usize = 4;
/// Files stay below this, in bytes.
const MOST_BYTES: u64 = 40_000;

/// A path of at most three names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(PathBuf);

impl Place {
    fn random(random: &mut Random) -> Self {
        let depth = random.one_of(&[1, 1, 1, 2, 2, 3]);
        Self((0..depth).map(|_| random.one_of(NAMES)).collect())
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    offset: u64,
    len: usize,
}

impl Range {
    fn random(random: &mut Random) -> Self {
        let most = random.one_of(&[1, 100, 4096, 9000]);
        Self {
            offset: random.below(MOST_BYTES),
            len: usize::try_from(random.below(most) + 1).unwrap_or(1),
        }
    }
}

/// What is open, by slot.
pub(super) type Opened = [Option<OwnedFd>; SLOTS];

/// What a program asks.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create(Place, Mode),
    MakeFifo(Place),
    Write(Place, Range, u8),
    Append(Place, usize),
    Read(Place, Range),
    Truncate(Place, u64),
    Allocate(Place, FallocateFlags, Range),
    MakeDirectory(Place, Mode),
    RemoveDirectory(Place),
    Unlink(Place),
    Rename(Place, Place, RenameFlags),
    Link(Place, Place),
    Symlink(Place, &'static str),
    ReadLink(Place),
    ChangeMode(Place, Mode),
    ChangeOwner(Place, u32, u32),
    Look(Place),
    List(Place),
    SetAttribute(Place, &'static str, u8),
    GetAttribute(Place, &'static str),
    RemoveAttribute(Place, &'static str),
    Open(usize, Place),
    ReadOpen(usize, Range),
    WriteOpen(usize, Range, u8),
    LookOpen(usize),
    Close(usize),
}

/// How it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Bytes(Vec<u8>),
    Names(Vec<String>),
    /// Type and mode, links, owner, group, and the size of what is no directory.
    Look(u32, u64, u32, u32, i64),
}

impl Answer {
    fn look(stat: &Stat) -> Self {
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        let size = if is_directory { 0 } else { stat.st_size };
        Self::Look(stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, size)
    }
}

const ATTRIBUTES: &[&str] = &["user.one", "user.two"];

impl Step {
    /// The next step of a run.
    pub(super) fn random(random: &mut Random) -> Self {
        let place = Place::random(random);
        let mode = Mode::from_raw_mode(random.one_of(&[0o600, 0o644, 0o755, 0o7777, 0o2775, 0]));
        let slot = usize::try_from(random.below(4)).unwrap_or(0);
        let byte = u8::try_from(random.below(255)).unwrap_or(0);
        match random.below(40) {
            0..=3 => Self::Create(place, mode),
            4 => Self::MakeFifo(place),
            5..=7 => Self::Write(place, Range::random(random), byte),
            8 => Self::Append(place, Range::random(random).len),
            9..=11 => Self::Read(place, Range::random(random)),
            12 => Self::Truncate(place, random.below(MOST_BYTES)),
            13 => {
                let flags = random.one_of(&[
                    FallocateFlags::empty(),
                    FallocateFlags::KEEP_SIZE,
                    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
                ]);
                Self::Allocate(place, flags, Range::random(random))
            }
            14..=16 => Self::MakeDirectory(place, mode),
            17 => Self::RemoveDirectory(place),
            18..=19 => Self::Unlink(place),
            20..=22 => {
                let flags = random.one_of(&[
                    RenameFlags::empty(),
                    RenameFlags::empty(),
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                ]);
                Self::Rename(place, Place::random(random), flags)
            }
            23..=24 => Self::Link(place, Place::random(random)),
            25 => Self::Symlink(place, random.one_of(NAMES)),
            26 => Self::ReadLink(place),
            27 => Self::ChangeMode(place, mode),
            28 => Self::ChangeOwner(place, random.one_of(&[0, 1, 1234]), random.one_of(&[0, 1])),
            29..=30 => Self::Look(place),
            31 => Self::List(place),
            32 => Self::SetAttribute(place, random.one_of(ATTRIBUTES), byte),
            33 => Self::GetAttribute(place, random.one_of(ATTRIBUTES)),
            34 => Self::RemoveAttribute(place, random.one_of(ATTRIBUTES)),
            35 => Self::Open(slot, place),
            36 => Self::ReadOpen(slot, Range::random(random)),
            37 => Self::WriteOpen(slot, Range::random(random), byte),
            38 => Self::LookOpen(slot),
            _ => Self::Close(slot),
        }
    }

    /// Does it below `root`.
    pub(super) fn perform(&self, root: &Path, open: &mut Opened) -> Result<Answer, Errno> {
        let at = |place: &Place| place.below(root);
        match self {
            Self::Create(place, mode) => create(&at(place), *mode),
            Self::MakeFifo(place) => done(mknodat(CWD, at(place), FileType::Fifo, Mode::RUSR, 0)),
            Self::MakeDirectory(place, mode) => done(mkdirat(CWD, at(place), *mode)),
            Self::RemoveDirectory(place) => done(unlinkat(CWD, at(place), AtFlags::REMOVEDIR)),
            Self::Unlink(place) => done(unlinkat(CWD, at(place), AtFlags::empty())),
            Self::Rename(from, to, flags) => rename(&at(from), &at(to), *flags),
            Self::Link(from, to) => done(linkat(CWD, at(from), CWD, at(to), AtFlags::empty())),
            Self::Symlink(place, target) => done(symlinkat(*target, CWD, at(place))),
            Self::ReadLink(place) => {
                let target = readlinkat(CWD, at(place), Vec::new())?;
                Ok(Answer::Bytes(target.into_bytes()))
            }
            Self::Write(place, range, byte) => write(&writable(&at(place))?, *range, *byte),
            Self::Append(place, len) => append(&at(place), *len),
            Self::Read(place, range) => read(&opened(&at(place), OFlags::RDONLY)?, *range),
            Self::Truncate(place, size) => done(ftruncate(&writable(&at(place))?, *size)),
            Self::Allocate(place, flags, range) => {
                let len = u64::try_from(range.len).unwrap_or(1);
                done(fallocate(&writable(&at(place))?, *flags, range.offset, len))
            }
            Self::ChangeMode(place, mode) => done(chmodat(CWD, at(place), *mode, AtFlags::empty())),
            Self::ChangeOwner(place, uid, gid) => change_owner(&at(place), *uid, *gid),
            Self::Look(place) => {
                let stat = statat(CWD, at(place), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(Answer::look(&stat))
            }
            Self::List(place) => list(&at(place)),
            Self::SetAttribute(place, name, byte) => {
                let value = vec![*byte; usize::from(*byte)];
                done(lsetxattr(at(place), *name, &value, XattrFlags::empty()))
            }
            Self::GetAttribute(place, name) => attribute(&at(place), name),
            Self::RemoveAttribute(place, name) => done(lremovexattr(at(place), *name)),
            Self::Open(slot, place) => {
                open[*slot] = None;
                open[*slot] = Some(opened(&at(place), OFlags::RDWR)?);
                Ok(Answer::Done)
            }
            Self::ReadOpen(slot, range) => read(slot_of(open, *slot)?, *range),
            Self::WriteOpen(slot, range, byte) => write(slot_of(open, *slot)?, *range, *byte),
            Self::LookOpen(slot) => Ok(Answer::look(&fstat(slot_of(open, *slot)?)?)),
            Self::Close(slot) => {
                open[*slot] = None;
                Ok(Answer::Done)
            }
        }
    }
}

/// Opens anything but a FIFO: that of a guest and that of its host are two, under one name.
fn open_with(path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let is_fifo = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    if statat(CWD, path, AtFlags::empty()).is_ok_and(is_fifo) {
        return Err(Errno::NXIO);
    }
    openat(CWD, path, flags | OFlags::CLOEXEC, mode)
}

fn opened(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(path, flags, Mode::empty())
}

fn writable(path: &Path) -> Result<OwnedFd, Errno> {
    opened(path, OFlags::WRONLY)
}

fn create(path: &Path, mode: Mode) -> Result<Answer, Errno> {
    done(open_with(path, OFlags::WRONLY | OFlags::CREATE, mode).map(drop))
}

/// Linux cannot move what it knows of a directory while it renames something: one that the host has moved is ESTALE
/// then (`__d_unalias`, fs/dcache.c), unless it was looked up where it is now.
fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<Answer, Errno> {
    for path in [from, to] {
        let _ = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    }
    done(renameat_with(CWD, from, CWD, to, flags))
}

fn append(path: &Path, len: usize) -> Result<Answer, Errno> {
    let file = opened(path, OFlags::WRONLY | OFlags::APPEND)?;
    if u64::try_from(fstat(&file)?.st_size).unwrap_or(0) > MOST_BYTES {
        return Ok(Answer::Done);
    }
    done(rustix::io::write(&file, &vec![b'+'; len]).map(drop))
}

fn change_owner(path: &Path, uid: u32, gid: u32) -> Result<Answer, Errno> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    done(chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
}

fn attribute(path: &Path, name: &str) -> Result<Answer, Errno> {
    let mut value = vec![0; lgetxattr_query(path, name)?];
    let len = lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(Answer::Bytes(value))
}

fn done(result: Result<(), Errno>) -> Result<Answer, Errno> {
    result.map(|()| Answer::Done)
}

fn slot_of(open: &Opened, slot: usize) -> Result<&OwnedFd, Errno> {
    open[slot].as_ref().ok_or(Errno::BADF)
}

fn read(file: &OwnedFd, range: Range) -> Result<Answer, Errno> {
    let mut bytes = vec![0; range.len];
    let count = pread(file, &mut bytes, range.offset)?;
    bytes.truncate(count);
    Ok(Answer::Bytes(bytes))
}

fn write(file: &OwnedFd, range: Range, byte: u8) -> Result<Answer, Errno> {
    done(pwrite(file, &vec![byte; range.len], range.offset).map(drop))
}

fn list(path: &Path) -> Result<Answer, Errno> {
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        names.push(
            entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(Answer::Names(names))
}
