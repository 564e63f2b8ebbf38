//! Opening, reading, writing, closing.

use std::fs;

use anyhow::{Result, ensure};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{OpenOut, ReleaseIn};

use super::super::guest::{DEPTH_MAX, Guest, ROOT};
use super::KIB;
use super::files::{O_RDWR, known_file, open_file};
use super::work::Work;

pub(super) fn open_release(guest: &mut Guest, flags: u32) -> Result<Work> {
    let node = known_file(guest)?;
    Ok(Work::new(move |guest, depth| {
        let mut handles = [0; DEPTH_MAX as usize];
        guest.together(
            depth,
            |_| Request::open(node, flags),
            |number, client, answer| {
                client.check(answer)?;
                handles[usize::from(number)] = client.body::<OpenOut>(answer)?.fh;
                Ok(())
            },
        )?;
        guest.all(depth, |number| release(node, handles[usize::from(number)]))
    }))
}

pub(super) fn release<'a>(node: u64, fh: u64) -> Request<'a> {
    Request::release(
        node,
        &ReleaseIn {
            fh,
            flags: O_RDWR,
            release_flags: 0,
            lock_owner: 0,
        },
    )
}

pub(super) fn read(guest: &mut Guest, size: u32) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    Ok(Work::new(move |guest, depth| {
        guest.together(
            depth,
            |_| Request::read(node, fh, 0, size),
            |_, client, answer| {
                client.check(answer)?;
                ensure!(
                    client.data_len(answer) == usize::try_from(size)?,
                    "a short READ"
                );
                Ok(())
            },
        )
    }))
}

/// A READ for more than the file has; its end lies inside a page, so no second look is needed.
pub(super) fn read_short(guest: &mut Guest) -> Result<Work> {
    const LEN: usize = 6000;
    fs::write(guest.host_path("short"), vec![7; LEN])?;
    let node = guest.client().lookup(ROOT, "short")?.nodeid;
    let fh = guest.client().open(node, O_RDWR)?.fh;
    Ok(Work::new(move |guest, depth| {
        guest.together(
            depth,
            |_| Request::read(node, fh, 0, 8 * KIB),
            |_, client, answer| {
                client.check(answer)?;
                ensure!(client.data_len(answer) == LEN, "not the whole file");
                Ok(())
            },
        )
    }))
}

pub(super) fn write(guest: &mut Guest, size: u32) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    let bytes = vec![3; usize::try_from(size)?];
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::write(node, fh, 0, &bytes))
    }))
}

pub(super) fn flush(guest: &mut Guest) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::flush(node, fh, 1))
    }))
}
