//! Requests of many callers on many queues: what each makes is its own, and afterwards every thread of
//! the daemon is who it was.
//!
//! Some seconds; a million requests with `VIRTIOFSD_LONG=1`. `VIRTIOFSD_SEED` repeats a run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::skipped;
use virtiofs_testkit::frontend::{Launch, Options};
use virtiofs_testkit::fuse::abi::{EXT_GROUPS, EntryOut, ROOT};
use virtiofs_testkit::fuse::{Caller, ClientOptions, FuseClient, Request, Session};
use virtiofs_testkit::suites::fsx::seed;

const REQUESTS: u64 = 1_000_000;
const SHORT: Duration = Duration::from_secs(6);
const QUEUES: u16 = 4;
/// The group of the directory in which everything is made; it hands it down.
const STAFF: u32 = 50;
const SETGID: u32 = 0o2000;
const NOBODY: u32 = u32::MAX;

/// What must be the same before and after, of each thread of a process.
fn identities(pid: u32) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let kept = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"];
        let identity = |line: &&str| kept.iter().any(|field| line.starts_with(field));
        let lines: Vec<&str> = status.lines().filter(identity).collect();
        ensure!(lines.len() == kept.len(), "{status}");
        all.insert(lines.join("; "));
    }
    Ok(all)
}

/// Repeatable noise (an xorshift generator).
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(limit)).unwrap_or_default()
    }
}

/// One thread of the guest, on a queue of its own.
struct Worker {
    client: FuseClient,
    noise: Noise,
    number: u16,
    done: u64,
}

impl Worker {
    fn caller(&mut self) -> Caller {
        let ids = [0, 0, 1, 1000, 1001, 65534, 4_000_000_000, NOBODY];
        let mut id = || ids[self.noise.below(8) as usize % ids.len()];
        Caller {
            uid: id(),
            gid: id(),
            pid: 1,
        }
    }

    /// Makes something, looks whose it is, and removes it again.
    fn round(&mut self) -> Result<()> {
        let caller = self.caller();
        let is_member = self.noise.below(3) == 0;
        let name = format!("{}-{}", self.number, self.done);
        let name = name.as_bytes();
        let mode = [0o644, 0o755, SETGID | 0o755, SETGID | 0o710][self.noise.below(4) as usize];
        let mknod = abi_mknod(mode);
        let (kind, request) = match self.noise.below(3) {
            0 => (Kind::Directory, Request::mkdir(ROOT, name, mode, 0)),
            1 => (Kind::Symlink, Request::symlink(ROOT, name, b"target")),
            _ => (Kind::File, Request::mknod(ROOT, name, &mknod)),
        };
        let group = [16, EXT_GROUPS, 1, STAFF].map(u32::to_ne_bytes).concat();
        let mut request = request;
        if is_member {
            request.extension = &group;
        }
        self.client.caller = caller;
        let made = self.client.call_for::<EntryOut>(&request);
        self.done += 1;
        self.client.caller = Caller::default();
        if caller.uid == NOBODY || caller.gid == NOBODY {
            let refused = made.err().and_then(|failure| failure.errno());
            ensure!(refused == Some(Errno::INVAL), "{caller:?}: {refused:?}");
            return Ok(());
        }
        let made = made.with_context(|| format!("{caller:?}, {kind:?}, {is_member}"))?;
        is_the_callers(&made, (caller, is_member), (kind, mode))?;
        match kind {
            Kind::Directory => self.client.rmdir(ROOT, name)?,
            Kind::File | Kind::Symlink => self.client.unlink(ROOT, name)?,
        }
        self.client.forget(made.nodeid, 1)?;
        self.done += 2;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Symlink,
}

fn abi_mknod(mode: u32) -> virtiofs_testkit::fuse::abi::MknodIn {
    const REGULAR: u32 = 0o100_000;
    virtiofs_testkit::fuse::abi::MknodIn {
        mode: REGULAR | mode,
        ..Default::default()
    }
}

fn is_the_callers(
    made: &EntryOut,
    (caller, is_member): (Caller, bool),
    (kind, mode): (Kind, u32),
) -> Result<()> {
    let what = format!("{caller:?}, member {is_member}, {kind:?} {mode:o}: {made:?}");
    // The directory's group is handed down, whoever makes it.
    ensure!(
        (made.attr.uid, made.attr.gid) == (caller.uid, STAFF),
        "{what}"
    );
    let is_setgid = made.attr.mode & SETGID != 0;
    match kind {
        Kind::Directory => ensure!(is_setgid, "{what}"),
        Kind::Symlink => ensure!(!is_setgid, "{what}"),
        // A file of a group that runs for whoever is not in it: only its members and root make one.
        Kind::File if caller.uid != 0 && !is_member => ensure!(!is_setgid, "{what}"),
        Kind::File => ensure!(is_setgid == (mode & SETGID != 0), "{what}"),
    }
    Ok(())
}

#[test]
fn every_thread_is_itself_again_after_requests_of_many_callers() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root may act as others");
        return Ok(());
    }
    let seed = seed()?;
    println!("VIRTIOFSD_SEED={seed}");
    let share = tempfile::tempdir()?;
    chown(share.path(), None, Some(STAFF))?;
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o2777))?;
    let daemon = Launch::new(share.path()).start()?;
    let device = Options {
        request_queues: QUEUES,
        ..Options::default()
    };
    let client = ClientOptions {
        data_bytes: 4096,
        ..ClientOptions::default()
    };
    let session = Session::open_with(daemon.socket(), &device, &client)?;
    let server = daemon.server_pid()?;
    let before = identities(server)?;
    ensure!(before.len() == 1, "{before:#?}");
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let (total, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let enough = || {
        total.load(Ordering::Relaxed) >= REQUESTS
            || failed.load(Ordering::Relaxed)
            || (!long && begun.elapsed() > SHORT)
    };
    let work = |number: u16, client: FuseClient| -> Result<FuseClient> {
        let noise = Noise((seed ^ (u64::from(number) << 32)).max(1));
        let mut worker = Worker {
            client,
            noise,
            number,
            done: 0,
        };
        while !enough() {
            let before = worker.done;
            if let Err(error) = worker.round() {
                failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
            total.fetch_add(worker.done - before, Ordering::Relaxed);
        }
        Ok(worker.client)
    };
    let clients: Vec<FuseClient> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(session.clients)
            .map(|(number, client)| scope.spawn(move || work(number, client)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked"))?)
            .collect::<Result<_>>()
    })
    .with_context(|| daemon.log())?;
    println!("RESULT: {} requests", total.load(Ordering::Relaxed));
    ensure!(total.load(Ordering::Relaxed) > 2000);
    is_back(server, &before)?;
    drop(clients);
    ensure!(
        fs::read_dir(share.path())?.next().is_none(),
        "something stays"
    );
    Ok(())
}

/// Every thread, those of the pools included.
fn is_back(server: u32, before: &BTreeSet<String>) -> Result<()> {
    let now = identities(server)?;
    if now != *before {
        bail!("{before:#?} became {now:#?}");
    }
    Ok(())
}
