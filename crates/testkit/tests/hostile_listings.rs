//! Directories that are long, and change while they are listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::fuse::abi::{ForgetOne, ROOT};
use virtiofs_testkit::fuse::{DirEntry, FuseClient, Session};

/// Names that stay; a million with `VIRTIOFSD_LONG=1`.
const STAYING: u64 = 10_000;
/// What is listed with attributes: each counts a lookup, which has to be given back.
const PIECE: usize = 500;

fn is_long() -> bool {
    std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1")
}

/// Makes and removes other names, until told to stop.
fn change(directory: &Path, rounds: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        let name = directory.join(format!("passing-{}", round % 300));
        if round % 600 < 300 {
            fs::write(&name, b"")?;
        } else {
            fs::remove_file(&name)?;
        }
    }
    Ok(())
}

/// Lists a directory to its end, and counts how often each name was there.
fn counted(mut piece: impl FnMut(u64) -> Result<Vec<DirEntry>>) -> Result<BTreeMap<Vec<u8>, u64>> {
    let mut seen = BTreeMap::new();
    let mut at = 0;
    loop {
        let entries = piece(at)?;
        let Some(last) = entries.last() else {
            return Ok(seen);
        };
        at = last.dirent.off;
        for entry in entries {
            *seen.entry(entry.name).or_default() += 1;
        }
    }
}

/// Looks for what stays, each once, and nothing but that and what passes.
fn is_whole(seen: &BTreeMap<Vec<u8>, u64>, staying: u64) -> Result<()> {
    let stays = seen.iter().filter(|(name, _)| name.starts_with(b"stays-"));
    let (mut names, mut times) = (0, 0);
    for (_, count) in stays {
        names += 1;
        times += count;
    }
    ensure!(
        (names, times) == (staying, staying),
        "{names} names {times} times, of {staying}"
    );
    let strange = seen.keys().find(|name| {
        !(name.starts_with(b"stays-") || name.starts_with(b"passing-") || name.starts_with(b"."))
    });
    ensure!(strange.is_none(), "{strange:?}");
    Ok(())
}

/// Lists with attributes, and gives back what each piece has counted.
fn plus(session: &mut Session, node: u64, fh: u64, at: u64) -> Result<Vec<DirEntry>> {
    let entries = session.client().readdirplus(node, fh, at)?;
    let found = entries.iter().filter_map(|entry| entry.entry);
    let forgets: Vec<ForgetOne> = found
        .filter(|entry| entry.nodeid != 0)
        .map(|entry| ForgetOne {
            nodeid: entry.nodeid,
            nlookup: 1,
        })
        .collect();
    for some in forgets.chunks(PIECE) {
        session.hiprio.batch_forget(some)?;
    }
    Ok(entries)
}

fn open(client: &mut FuseClient) -> Result<(u64, u64)> {
    let node = client.lookup(ROOT, "many")?.nodeid;
    let fh = client.opendir(node)?.fh;
    Ok((node, fh))
}

#[test]
fn o_a_long_directory_that_changes_while_it_is_listed_shows_what_stays_once() -> Result<()> {
    let staying = if is_long() { 1_000_000 } else { STAYING };
    let (mut target, directory) = Target::start_on(&[], |share| {
        let directory = share.join("many");
        fs::create_dir(&directory)?;
        for number in 0..staying {
            fs::write(directory.join(format!("stays-{number}")), b"")?;
        }
        Ok(directory)
    })?;
    let mut session = Session::open(target.socket())?;
    let (node, fh) = open(session.client())?;
    let (rounds, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let listed = std::thread::scope(|scope| -> Result<_> {
        let changing = scope.spawn(|| change(&directory, &rounds, &stop));
        let names = counted(|at| Ok(session.client().readdir(node, fh, at)?));
        let with_attributes = counted(|at| plus(&mut session, node, fh, at));
        stop.store(true, Ordering::Relaxed);
        changing.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        Ok([names?, with_attributes?])
    })?;
    ensure!(rounds.load(Ordering::Relaxed) > 0, "nothing has changed");
    for seen in &listed {
        is_whole(seen, staying)?;
    }
    session
        .client()
        .releasedir(node, fh)
        .context("RELEASEDIR")?;
    session.hiprio.forget(node, 1)?;
    drop(session);
    target.is_unharmed()
}
