//! What programs make a guest ask, in their order.

use std::fs;

use anyhow::{Result, ensure};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{CreateIn, EntryOut, OpenOut, SetattrIn, fattr};

use super::super::guest::{DEPTH_MAX, Guest, ROOT};
use super::KIB;
use super::contents::release;
use super::files::{FILE_MODE, MANY, O_CREAT, O_EXCL, O_RDWR, directory};
use super::listing::listed;
use super::work::Work;

/// Directories of the tree that is looked through, and files of each.
const TREE: (u32, u32) = (32, 32);

/// Files of that tree.
pub(super) const TREE_FILES: u32 = TREE.0 * TREE.1;

/// Files that are unpacked at once.
pub(super) const UNPACKED: u32 = 64;

/// Bytes of a small file.
const SMALL: u32 = 4 * KIB;

fn small_bytes() -> Vec<u8> {
    vec![5; SMALL as usize]
}

/// Files of a page each, read whole: as a compiler reads headers.
pub(super) fn small_files(guest: &mut Guest) -> Result<Work> {
    let names: Vec<String> = (0..MANY).map(|number| format!("small-{number}")).collect();
    let parent = directory(guest, "small", &names)?;
    for name in &names {
        fs::write(guest.host_path("small").join(name), small_bytes())?;
    }
    let mut next = 0;
    Ok(Work::new(move |guest, depth| {
        let first = next;
        next = (first + usize::from(depth)) % names.len();
        let name = |number: u16| names[(first + usize::from(number)) % names.len()].as_bytes();
        let mut nodes = [0; DEPTH_MAX as usize];
        guest.together(
            depth,
            |number| Request::lookup(parent, name(number)),
            |number, client, answer| {
                client.check(answer)?;
                nodes[usize::from(number)] = client.body::<EntryOut>(answer)?.nodeid;
                Ok(())
            },
        )?;
        let node = |number: u16| nodes[usize::from(number)];
        guest.all(depth, |number| Request::getattr(node(number), None))?;
        let handles = opened(guest, depth, node)?;
        let handle = |number: u16| handles[usize::from(number)];
        guest.all(depth, |number| {
            Request::read(node(number), handle(number), 0, SMALL)
        })?;
        guest.all(depth, |number| {
            Request::flush(node(number), handle(number), 1)
        })?;
        guest.all(depth, |number| release(node(number), handle(number)))?;
        (0..depth).for_each(|number| guest.owe(node(number)));
        Ok(())
    }))
}

fn opened(
    guest: &mut Guest,
    depth: u16,
    node: impl Fn(u16) -> u64,
) -> Result<[u64; DEPTH_MAX as usize]> {
    let mut handles = [0; DEPTH_MAX as usize];
    guest.together(
        depth,
        |number| Request::open(node(number), 0),
        |number, client, answer| {
            client.check(answer)?;
            handles[usize::from(number)] = client.body::<OpenOut>(answer)?.fh;
            Ok(())
        },
    )?;
    Ok(handles)
}

/// Every directory listed, every file looked at: a tree that the guest knows, whose attributes have aged.
pub(super) fn git_status(guest: &mut Guest) -> Result<Work> {
    let (directories, files) = TREE;
    let names: Vec<String> = (0..files).map(|number| format!("file-{number}")).collect();
    let mut folders = Vec::new();
    for number in 0..directories {
        let folder = format!("tree-{number}");
        folders.push((directory(guest, &folder, &names)?, folder));
    }
    for (folder, _) in &folders {
        for name in &names {
            guest.client().lookup(*folder, name)?;
        }
    }
    Ok(Work::new(move |guest, _| {
        for (folder, called) in &folders {
            guest.look_up(1, |_| Request::lookup(ROOT, called.as_bytes()))?;
            for name in &names {
                guest.look_up(1, |_| Request::lookup(*folder, name.as_bytes()))?;
            }
            let found = listed(guest, *folder)?;
            ensure!(found == files, "{found} entries listed, {files} made");
        }
        Ok(())
    }))
}

/// Files of a page each, made in a new directory with their times set: as tar unpacks them.
pub(super) fn untar(guest: &mut Guest) -> Result<Work> {
    let parent = directory(guest, "unpacked", &[])?;
    let names: Vec<String> = (0..UNPACKED)
        .map(|number| format!("file-{number}"))
        .collect();
    let bytes = small_bytes();
    let mut round = 0_u32;
    Ok(Work::new(move |guest, _| {
        round += 1;
        let folder = format!("round-{round}");
        let made = guest.client().mkdir(parent, &folder, 0o755)?.nodeid;
        guest.owe(made);
        for name in &names {
            unpack(guest, made, name, &bytes)?;
        }
        Ok(())
    }))
}

fn unpack(guest: &mut Guest, parent: u64, name: &str, bytes: &[u8]) -> Result<()> {
    const TIMES: u32 = fattr::MTIME | fattr::ATIME | fattr::FH;
    let client = guest.client();
    // A kernel asks first whether the name is taken.
    ensure!(client.lookup(parent, name).is_err(), "{name} is there");
    let arguments = CreateIn {
        flags: O_RDWR | O_CREAT | O_EXCL,
        mode: FILE_MODE,
        umask: 0o022,
        open_flags: 0,
    };
    let created: virtiofs_testkit::fuse::abi::CreateOut =
        client.call_for(&Request::create(parent, name.as_bytes(), &arguments))?;
    let (node, fh) = (created.entry.nodeid, created.open.fh);
    client.call(&Request::write(node, fh, 0, bytes))?;
    client.setattr(
        node,
        &SetattrIn {
            valid: TIMES,
            fh,
            mtime: 1_000_000_000,
            atime: 1_000_000_000,
            ..SetattrIn::default()
        },
    )?;
    client.call(&Request::flush(node, fh, 1))?;
    client.call(&release(node, fh))?;
    guest.owe(node);
    Ok(())
}
