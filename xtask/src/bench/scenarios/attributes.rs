//! What only looks: names, attributes.

use anyhow::{Result, bail};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::SetattrIn;
use virtiofs_testkit::fuse::{Failure, Request};

use super::super::guest::{Guest, ROOT};
use super::files::{FILE_MODE, KNOWN_BYTES, MANY, directory, known_file};
use super::work::Work;

pub(super) fn getattr(guest: &mut Guest) -> Result<Work> {
    let node = known_file(guest)?;
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::getattr(node, None))
    }))
}

pub(super) fn lookup_known(guest: &mut Guest) -> Result<Work> {
    known_file(guest)?;
    Ok(Work::new(|guest, depth| {
        guest.look_up(depth, |_| Request::lookup(ROOT, b"known"))
    }))
}

pub(super) fn lookup_new(guest: &mut Guest) -> Result<Work> {
    let names: Vec<String> = (0..MANY)
        .map(|number| format!("unknown-{number}"))
        .collect();
    let parent = directory(guest, "unknown", &names)?;
    let mut next = 0;
    Ok(Work::new(move |guest, depth| {
        let first = next;
        next = (first + usize::from(depth)) % names.len();
        let name = |number: u16| &names[(first + usize::from(number)) % names.len()];
        guest.look_up(depth, |number| {
            Request::lookup(parent, name(number).as_bytes())
        })
    }))
}

pub(super) fn lookup_forget(guest: &mut Guest) -> Result<Work> {
    known_file(guest)?;
    Ok(Work::new(|guest, depth| {
        guest.look_up(depth, |_| Request::lookup(ROOT, b"known"))?;
        guest.settle()
    }))
}

pub(super) fn lookup_missing(_: &mut Guest) -> Result<Work> {
    Ok(Work::new(|guest, depth| {
        guest.together(
            depth,
            |_| Request::lookup(ROOT, b"missing"),
            |_, client, answer| match client.check(answer) {
                Err(Failure::Errno(Errno::NOENT)) => Ok(()),
                other => bail!("LOOKUP of a missing name: {other:?}"),
            },
        )
    }))
}

pub(super) fn setattr(guest: &mut Guest, valid: u32) -> Result<Work> {
    let node = known_file(guest)?;
    let arguments = SetattrIn {
        valid,
        mode: FILE_MODE,
        size: u64::from(KNOWN_BYTES),
        ..SetattrIn::default()
    };
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::setattr(node, &arguments))
    }))
}

/// An attribute of the known file.
pub(super) const XATTR: &str = "user.bench";

pub(super) fn getxattr(guest: &mut Guest) -> Result<Work> {
    let node = known_file(guest)?;
    let path = guest.host_path("known");
    rustix::fs::setxattr(path, XATTR, b"value", XattrFlags::empty())?;
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::getxattr(node, XATTR.as_bytes(), 64))
    }))
}
