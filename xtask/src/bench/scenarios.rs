//! What is measured: one row per kind of request.
//!
//! A row prepares what it needs and returns a closure that does one round, or
//! several rounds at once where requests are to be in flight together. What a
//! round leaves the guest owing (lookups to forget) is settled outside the
//! measured time.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{CreateIn, CreateOut, OpenOut, ReleaseIn, SetattrIn, fattr};
use virtiofs_testkit::fuse::{Failure, Request, dir_entries_plus};

use super::guest::{DEPTH_MAX, Guest, ROOT};

/// Does `depth` rounds, whose requests are in flight together.
pub(super) type Work = Box<dyn FnMut(&mut Guest, u16) -> Result<()>>;

/// One row.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Rounds between two settlements.
    pub(super) rounds: u32,
    /// What one round is counted as: entries of a listing, for example.
    pub(super) units: u32,
    /// Whether rounds can be in flight together.
    pub(super) parallel: bool,
    pub(super) set_up: fn(&mut Guest) -> Result<Work>,
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Files of the directory whose entries the guest does not know.
const UNKNOWN_FILES: u32 = 1024;

/// Entries of the directory that is listed.
const LISTED_FILES: u32 = 1000;

/// Permission and type bits of a new file, and who may make one in the work directory.
const FILE_MODE: u32 = 0o100_644;

const SCENARIOS: &[Scenario] = &[
    row("GETATTR", 1000, getattr),
    row("LOOKUP, known", 1000, lookup_known),
    row("LOOKUP, new", UNKNOWN_FILES, lookup_new),
    row("LOOKUP, missing", 1000, lookup_missing),
    row("OPEN + RELEASE", 500, open_release),
    row("READ 4 KiB", 1000, |guest| read(guest, 4 * KIB)),
    row("READ 128 KiB", 320, |guest| read(guest, 128 * KIB)),
    row("READ 1 MiB", 64, |guest| read(guest, MIB)),
    row("WRITE 4 KiB", 1000, |guest| write(guest, 4 * KIB)),
    row("WRITE 128 KiB", 320, |guest| write(guest, 128 * KIB)),
    row("WRITE 1 MiB", 64, |guest| write(guest, MIB)),
    row("CREATE + RELEASE + UNLINK, uid 0", 320, |guest| {
        create_unlink(guest, 0)
    }),
    row("CREATE + RELEASE + UNLINK, uid 1000", 320, |guest| {
        create_unlink(guest, 1000)
    }),
    row("FLUSH", 1000, flush),
    row("SETATTR mode", 1000, |guest| setattr(guest, fattr::MODE)),
    row("SETATTR size", 1000, |guest| setattr(guest, fattr::SIZE)),
    Scenario {
        name: "READDIRPLUS, new, per entry",
        rounds: 1,
        units: LISTED_FILES,
        parallel: false,
        set_up: list,
    },
];

const fn row(name: &'static str, rounds: u32, set_up: fn(&mut Guest) -> Result<Work>) -> Scenario {
    Scenario {
        name,
        rounds,
        units: 1,
        parallel: true,
        set_up,
    }
}

/// The rows whose name contains a text, in any case.
pub(super) fn matching(filter: Option<&str>) -> Vec<&'static Scenario> {
    let filter = filter.unwrap_or("").to_lowercase();
    SCENARIOS
        .iter()
        .filter(|row| row.name.to_lowercase().contains(&filter))
        .collect()
}

/// A file of one mebibyte that the guest has looked up.
fn known_file(guest: &mut Guest) -> Result<u64> {
    let path = guest.host_path("known");
    if !path.exists() {
        fs::write(path, vec![7; usize::try_from(MIB)?])?;
    }
    Ok(guest.client().lookup(ROOT, "known")?.nodeid)
}

/// The known file, open.
fn open_file(guest: &mut Guest) -> Result<(u64, u64)> {
    let node = known_file(guest)?;
    let opened = guest.client().open(node, O_RDWR).context("OPEN")?;
    Ok((node, opened.fh))
}

/// Flags of OPEN and CREATE are Linux's, as on x86-64.
const O_RDWR: u32 = 0o2;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;

fn getattr(guest: &mut Guest) -> Result<Work> {
    let node = known_file(guest)?;
    Ok(Box::new(move |guest, depth| {
        guest.all(depth, |_| Request::getattr(node, None))
    }))
}

fn lookup_known(guest: &mut Guest) -> Result<Work> {
    known_file(guest)?;
    Ok(Box::new(|guest, depth| {
        guest.look_up(depth, |_| Request::lookup(ROOT, b"known"))
    }))
}

fn lookup_new(guest: &mut Guest) -> Result<Work> {
    let names: Vec<String> = (0..UNKNOWN_FILES)
        .map(|number| format!("unknown-{number}"))
        .collect();
    let parent = directory(guest, "unknown", &names)?;
    let mut next = 0;
    Ok(Box::new(move |guest, depth| {
        let first = next;
        next = (first + usize::from(depth)) % names.len();
        let name = |number: u16| &names[(first + usize::from(number)) % names.len()];
        guest.look_up(depth, |number| {
            Request::lookup(parent, name(number).as_bytes())
        })
    }))
}

fn lookup_missing(_: &mut Guest) -> Result<Work> {
    Ok(Box::new(|guest, depth| {
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

fn open_release(guest: &mut Guest) -> Result<Work> {
    let node = known_file(guest)?;
    Ok(Box::new(move |guest, depth| {
        let mut handles = [0; DEPTH_MAX as usize];
        guest.together(
            depth,
            |_| Request::open(node, O_RDWR),
            |number, client, answer| {
                client.check(answer)?;
                handles[usize::from(number)] = client.body::<OpenOut>(answer)?.fh;
                Ok(())
            },
        )?;
        guest.all(depth, |number| release(node, handles[usize::from(number)]))
    }))
}

fn release<'a>(node: u64, fh: u64) -> Request<'a> {
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

fn read(guest: &mut Guest, size: u32) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    Ok(Box::new(move |guest, depth| {
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

fn write(guest: &mut Guest, size: u32) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    let bytes = vec![3; usize::try_from(size)?];
    Ok(Box::new(move |guest, depth| {
        guest.all(depth, |_| Request::write(node, fh, 0, &bytes))
    }))
}

fn create_unlink(guest: &mut Guest, uid: u32) -> Result<Work> {
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
    Ok(Box::new(move |guest, depth| {
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

fn flush(guest: &mut Guest) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    Ok(Box::new(move |guest, depth| {
        guest.all(depth, |_| Request::flush(node, fh, 1))
    }))
}

fn setattr(guest: &mut Guest, valid: u32) -> Result<Work> {
    let node = known_file(guest)?;
    let arguments = SetattrIn {
        valid,
        mode: FILE_MODE,
        size: u64::from(MIB),
        ..SetattrIn::default()
    };
    Ok(Box::new(move |guest, depth| {
        guest.all(depth, |_| Request::setattr(node, &arguments))
    }))
}

fn list(guest: &mut Guest) -> Result<Work> {
    let names: Vec<String> = (0..LISTED_FILES)
        .map(|number| format!("entry-{number}"))
        .collect();
    let node = directory(guest, "listed", &names)?;
    Ok(Box::new(move |guest, _| {
        let fh = guest.client().opendir(node)?.fh;
        let mut offset = 0;
        let mut found = 0;
        loop {
            let client = guest.client();
            let answer = client.call(&Request::readdirplus(node, fh, offset, 128 * KIB))?;
            let bytes = client.data(&answer);
            let Some(last) = dir_entries_plus(&bytes).pop() else {
                break;
            };
            offset = last.dirent.off;
            for entry in dir_entries_plus(&bytes)
                .iter()
                .filter_map(|found| found.entry)
            {
                if entry.nodeid != 0 {
                    guest.owe(entry.nodeid);
                    found += 1;
                }
            }
        }
        ensure!(
            found == LISTED_FILES,
            "{found} entries listed, {LISTED_FILES} made"
        );
        Ok(guest.client().releasedir(node, fh)?)
    }))
}

/// A directory in the share that everyone may write, with these empty files; looked up once.
fn directory(guest: &mut Guest, name: &str, files: &[String]) -> Result<u64> {
    use std::os::unix::fs::PermissionsExt;
    let path = guest.host_path(name);
    fs::create_dir_all(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    for file in files {
        fs::write(path.join(file), [])?;
    }
    Ok(guest.client().lookup(ROOT, name)?.nodeid)
}
