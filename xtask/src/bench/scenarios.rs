//! What is measured: one row per kind of request.
//!
//! A row prepares what it needs and returns a closure that does one round, or
//! several rounds at once where requests are to be in flight together. What a
//! round leaves the guest owing (lookups to forget) is settled outside the
//! measured time.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{CreateIn, CreateOut, OpenOut, ReleaseIn, SetattrIn, fattr};
use virtiofs_testkit::fuse::{Failure, Request, dir_entries_plus};

use super::guest::{DEPTH_MAX, Guest, ROOT};

/// Does `depth` rounds, whose requests are in flight together.
type Round = Box<dyn FnMut(&mut Guest, u16) -> Result<()>>;

/// Makes what a visit's rounds use up.
type Refill = Box<dyn FnMut(&mut Guest) -> Result<()>>;

/// A scenario set up for one daemon.
pub(super) struct Work {
    refill: Option<Refill>,
    round: Round,
}

impl Work {
    fn new(round: impl FnMut(&mut Guest, u16) -> Result<()> + 'static) -> Self {
        Self {
            refill: None,
            round: Box::new(round),
        }
    }

    /// Gets ready for a visit, outside the measured time: a first round warms caches and memory.
    pub(super) fn begin(&mut self, guest: &mut Guest, depth: u16) -> Result<()> {
        match &mut self.refill {
            // What it looked up is what the rounds need: it stays known.
            Some(refill) => {
                refill(guest)?;
                self.round(guest, depth)
            }
            None => {
                self.round(guest, depth)?;
                guest.settle()
            }
        }
    }

    /// Does `depth` rounds.
    pub(super) fn round(&mut self, guest: &mut Guest, depth: u16) -> Result<()> {
        (self.round)(guest, depth)
    }
}

/// One row.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Rounds between two settlements.
    pub(super) rounds: u32,
    /// What one round is counted as: entries of a listing, for example.
    pub(super) units: u32,
    /// Whether rounds can be in flight together.
    pub(super) parallel: bool,
    /// System calls of ours per unit, at most.
    pub(super) calls_max: Option<f64>,
    pub(super) set_up: fn(&mut Guest) -> Result<Work>,
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Files of a directory whose entries the guest does not know.
const MANY_FILES: u32 = 1024;

/// Entries of the directory that is listed.
const LISTED_FILES: u32 = 1000;

/// Permission and type bits of a new file, and who may make one in the work directory.
const FILE_MODE: u32 = 0o100_644;

/// All rows, with what ours may cost; testkit's test of system calls holds it to that.
const SCENARIOS: &[Scenario] = &[
    row("GETATTR", 1000, getattr).within(1.0),
    row("LOOKUP, known", 1000, lookup_known).within(1.0),
    row("LOOKUP, new", MANY_FILES / 2, lookup_new).within(2.0),
    row("LOOKUP, missing", 1000, lookup_missing).within(1.0),
    row("LOOKUP, known, + FORGET", 500, lookup_forget).within(1.0),
    row("OPEN + RELEASE", 500, open_release).within(2.0),
    row("READ 4 KiB", 1000, |guest| read(guest, 4 * KIB)).within(1.0),
    row("READ, short, inside a page", 1000, read_short).within(1.0),
    row("READ 128 KiB", 320, |guest| read(guest, 128 * KIB)).within(1.0),
    row("READ 1 MiB", 64, |guest| read(guest, MIB)).within(1.0),
    row("WRITE 4 KiB", 1000, |guest| write(guest, 4 * KIB)).within(1.0),
    row("WRITE 128 KiB", 320, |guest| write(guest, 128 * KIB)).within(1.0),
    row("WRITE 1 MiB", 64, |guest| write(guest, MIB)).within(1.0),
    row("CREATE + RELEASE + UNLINK, uid 0", 320, |guest| {
        create_unlink(guest, 0)
    }),
    row("CREATE + RELEASE + UNLINK, uid 1000", 320, |guest| {
        create_unlink(guest, 1000)
    }),
    row("UNLINK, looked up", MANY_FILES / 2, unlink).within(2.0),
    row("FLUSH", 1000, flush).within(0.0),
    row("SETATTR mode", 1000, |guest| setattr(guest, fattr::MODE)),
    row("SETATTR size", 1000, |guest| setattr(guest, fattr::SIZE)),
    // One call per entry, and the listing's own: open, a few buffers, close.
    row("READDIRPLUS, new, per entry", 1, list)
        .of_many(LISTED_FILES)
        .within(1.02),
];

const fn row(name: &'static str, rounds: u32, set_up: fn(&mut Guest) -> Result<Work>) -> Scenario {
    Scenario {
        name,
        rounds,
        units: 1,
        parallel: true,
        calls_max: None,
        set_up,
    }
}

impl Scenario {
    /// Ours makes at most so many system calls per request.
    const fn within(mut self, calls: f64) -> Self {
        self.calls_max = Some(calls);
        self
    }

    /// One round is one request with many results, and is counted per result.
    const fn of_many(mut self, results: u32) -> Self {
        self.units = results;
        self.parallel = false;
        self
    }
}

/// System calls that ours may make, by row.
pub(super) fn budgets() -> Vec<(&'static str, f64)> {
    SCENARIOS
        .iter()
        .filter_map(|row| Some((row.name, row.calls_max?)))
        .collect()
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
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::getattr(node, None))
    }))
}

fn lookup_known(guest: &mut Guest) -> Result<Work> {
    known_file(guest)?;
    Ok(Work::new(|guest, depth| {
        guest.look_up(depth, |_| Request::lookup(ROOT, b"known"))
    }))
}

fn lookup_new(guest: &mut Guest) -> Result<Work> {
    let names: Vec<String> = (0..MANY_FILES)
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

fn lookup_forget(guest: &mut Guest) -> Result<Work> {
    known_file(guest)?;
    Ok(Work::new(|guest, depth| {
        guest.look_up(depth, |_| Request::lookup(ROOT, b"known"))?;
        guest.settle()
    }))
}

fn lookup_missing(_: &mut Guest) -> Result<Work> {
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

fn open_release(guest: &mut Guest) -> Result<Work> {
    let node = known_file(guest)?;
    Ok(Work::new(move |guest, depth| {
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
fn read_short(guest: &mut Guest) -> Result<Work> {
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

fn write(guest: &mut Guest, size: u32) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    let bytes = vec![3; usize::try_from(size)?];
    Ok(Work::new(move |guest, depth| {
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
fn unlink(guest: &mut Guest) -> Result<Work> {
    let names: Rc<[String]> = (0..MANY_FILES)
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

fn flush(guest: &mut Guest) -> Result<Work> {
    let (node, fh) = open_file(guest)?;
    Ok(Work::new(move |guest, depth| {
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
    Ok(Work::new(move |guest, depth| {
        guest.all(depth, |_| Request::setattr(node, &arguments))
    }))
}

fn list(guest: &mut Guest) -> Result<Work> {
    let names: Vec<String> = (0..LISTED_FILES)
        .map(|number| format!("entry-{number}"))
        .collect();
    let node = directory(guest, "listed", &names)?;
    Ok(Work::new(move |guest, _| {
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
