//! Making and removing.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;

use anyhow::Result;
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{CreateIn, CreateOut};

use super::super::guest::{DEPTH_MAX, Guest};
use super::contents::release;
use super::files::{FILE_MODE, MANY, O_CREAT, O_EXCL, O_RDWR, directory};
use super::work::Work;

pub(super) fn create_unlink(guest: &mut Guest, uid: u32) -> Result<Work> {
    let parent = directory(guest, "work", &[])?;
    let arguments = CreateIn {
        flags: O_RDWR | O_CREAT | O_EXCL,
        mode: FILE_MODE,
        umask: 0o022,
        open_flags: 0,
    };
    let names: Vec<String> = (0..DEPTH_MAX)
        .map(|number| format!("created-{number}"))
        .collect();
    Ok(Work::new(move |guest, depth| {
        let name = |number: u16| names[usize::from(number)].as_bytes();
        let mut made = [(0, 0); DEPTH_MAX as usize];
        guest.act_as(uid);
        guest.together(
            depth,
            |number| Request::create(parent, name(number), &arguments),
            |number, client, answer| {
                client.check(answer)?;
                let out: CreateOut = client.body(answer)?;
                made[usize::from(number)] = (out.entry.nodeid, out.open.fh);
                Ok(())
            },
        )?;
        guest.all(depth, |number| {
            let (node, fh) = made[usize::from(number)];
            release(node, fh)
        })?;
        guest.all(depth, |number| Request::unlink(parent, name(number)))?;
        guest.act_as(0);
        made[..usize::from(depth)]
            .iter()
            .for_each(|(node, _)| guest.owe(*node));
        Ok(())
    }))
}

/// Removes files that the guest has looked up; each visit finds all of them there.
pub(super) fn unlink(guest: &mut Guest) -> Result<Work> {
    let names: Rc<[String]> = (0..MANY)
        .map(|number| format!("removed-{number}"))
        .collect();
    let parent = directory(guest, "removed", &names)?;
    let next = Rc::new(Cell::new(0));
    let (refilled, first) = (Rc::clone(&names), Rc::clone(&next));
    let refill = move |guest: &mut Guest| {
        let folder = guest.host_path("removed");
        first.set(0);
        for name in refilled.iter() {
            fs::write(folder.join(name), [])?;
            guest.look_up(1, |_| Request::lookup(parent, name.as_bytes()))?;
        }
        Ok(())
    };
    let round = move |guest: &mut Guest, depth| {
        let first = next.replace(next.get() + usize::from(depth));
        let name = |number: u16| names[first + usize::from(number)].as_bytes();
        guest.all(depth, |number| Request::unlink(parent, name(number)))
    };
    Ok(Work {
        refill: Some(Box::new(refill)),
        round: Box::new(round),
    })
}
