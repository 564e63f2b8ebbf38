//! The same without a daemon: the system calls that a request comes down to, made by the benchmark itself.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, StatxFlags, chmodat, ftruncate, openat, statx, unlinkat,
};
use rustix::io::Errno;

use super::files::KNOWN_BYTES;

/// Does one round.
pub(in crate::bench) type Direct = Box<dyn FnMut() -> Result<()>>;

const ATTRIBUTES: StatxFlags = StatxFlags::BASIC_STATS;
const KNOWN: &str = "known";

/// The directory, held as a daemon holds it, and the known file in it.
fn held(place: &Path) -> Result<OwnedFd> {
    let path = place.join(KNOWN);
    if !path.exists() {
        fs::write(path, vec![7; usize::try_from(KNOWN_BYTES)?])?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(place, flags, Mode::empty())?)
}

fn open_known(place: &Path) -> Result<File> {
    held(place)?;
    Ok(File::options()
        .read(true)
        .write(true)
        .open(place.join(KNOWN))?)
}

pub(super) fn getattr(place: &Path) -> Result<Direct> {
    let held = held(place)?;
    let file = openat(&held, KNOWN, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(Box::new(move || {
        statx(&file, "", AtFlags::EMPTY_PATH, ATTRIBUTES)?;
        Ok(())
    }))
}

pub(super) fn lookup(place: &Path) -> Result<Direct> {
    let held = held(place)?;
    Ok(Box::new(move || {
        statx(&held, KNOWN, AtFlags::SYMLINK_NOFOLLOW, ATTRIBUTES)?;
        Ok(())
    }))
}

pub(super) fn lookup_missing(place: &Path) -> Result<Direct> {
    let held = held(place)?;
    Ok(Box::new(move || {
        let missing = statx(&held, "missing", AtFlags::SYMLINK_NOFOLLOW, ATTRIBUTES);
        ensure!(missing.err() == Some(Errno::NOENT));
        Ok(())
    }))
}

pub(super) fn getxattr(place: &Path) -> Result<Direct> {
    let file = open_known(place)?;
    let name = super::attributes::XATTR;
    rustix::fs::fsetxattr(&file, name, b"value", rustix::fs::XattrFlags::empty())?;
    let mut value = [0_u8; 64];
    Ok(Box::new(move || {
        rustix::fs::fgetxattr(&file, name, &mut value)?;
        Ok(())
    }))
}

pub(super) fn open_release(place: &Path, access: OFlags) -> Result<Direct> {
    let held = held(place)?;
    Ok(Box::new(move || {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        drop(openat(&held, KNOWN, flags, Mode::empty())?);
        Ok(())
    }))
}

pub(super) fn read(place: &Path, size: u32) -> Result<Direct> {
    let file = open_known(place)?;
    let mut bytes = vec![0; usize::try_from(size)?];
    Ok(Box::new(move || Ok(file.read_exact_at(&mut bytes, 0)?)))
}

pub(super) fn write(place: &Path, size: u32) -> Result<Direct> {
    let file = open_known(place)?;
    let bytes = vec![3; usize::try_from(size)?];
    Ok(Box::new(move || Ok(file.write_all_at(&bytes, 0)?)))
}

pub(super) fn create_unlink(place: &Path) -> Result<Direct> {
    let held = held(place)?;
    Ok(Box::new(move || {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        drop(openat(&held, "created", flags, Mode::from_raw_mode(0o644))?);
        unlinkat(&held, "created", AtFlags::empty())?;
        Ok(())
    }))
}

pub(super) fn setattr_mode(place: &Path) -> Result<Direct> {
    let held = held(place)?;
    Ok(Box::new(move || {
        chmodat(&held, KNOWN, Mode::from_raw_mode(0o644), AtFlags::empty())?;
        statx(&held, KNOWN, AtFlags::SYMLINK_NOFOLLOW, ATTRIBUTES)?;
        Ok(())
    }))
}

pub(super) fn setattr_size(place: &Path) -> Result<Direct> {
    let file = open_known(place)?;
    Ok(Box::new(move || {
        ftruncate(&file, u64::from(KNOWN_BYTES))?;
        statx(&file, "", AtFlags::EMPTY_PATH, ATTRIBUTES)?;
        Ok(())
    }))
}

pub(super) fn list(place: &Path) -> Result<Direct> {
    let folder = place.join("listed");
    fs::create_dir_all(&folder)?;
    for number in 0..1000 {
        fs::write(folder.join(format!("entry-{number}")), [])?;
    }
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    Ok(Box::new(move || {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = rustix::fs::open(&folder, flags, Mode::empty())?;
        let mut entries = RawDir::new(&held, &mut buffer);
        while let Some(entry) = entries.next() {
            let name = entry?.file_name().to_owned();
            statx(&held, &name, AtFlags::SYMLINK_NOFOLLOW, ATTRIBUTES)?;
        }
        Ok(())
    }))
}
