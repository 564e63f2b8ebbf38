//! Requests at random, very many of them: afterwards the daemon holds what it held before.
//!
//! 40,000 requests, always the same; ten million with `VIRTIOFSD_LONG=1`. `VIRTIOFSD_SEED` chooses others.

use std::fs;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::Options;
use virtiofs_testkit::frontend::hostile::{Holdings, Scribbler, Target};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{EntryOut, OpenOut, ROOT, opcode};

const SHORT: u64 = 40_000;
const LONG: u64 = 10_000_000;
/// Requests of one connection. What it leaves open, its end must close.
const CONNECTION: u64 = 20_000;
/// What an allocator may keep beyond what the first connection needed, in KiB.
const SLACK_KIB: u64 = 2 << 10;
/// Opcodes end below this; a few above are tried, too.
const CODES: u64 = 56;
/// More than any file of any store may have, and less than an offset may be.
const TOO_LARGE: u64 = 1 << 60;

/// Repeatable noise (an xorshift generator).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        let len = u64::try_from(choice.len()).unwrap_or(1);
        choice[usize::try_from(self.next() % len).unwrap_or(0)]
    }

    /// A number for any field: small, out of range, or nothing.
    ///
    /// None is a length that a store could really give to a file, and be full.
    fn number(&mut self) -> u64 {
        let any = self.next();
        self.of(&[any | TOO_LARGE, any % 8192, any % 8, 1, 0, 0, 0, u64::MAX])
    }
}

/// One connection, and what it has learned.
struct Guest {
    scribbler: Scribbler,
    nodes: Vec<u64>,
    handles: Vec<u64>,
    answered: u64,
    succeeded: u64,
}

impl Guest {
    const MOST_LEARNED: usize = 64;

    fn connect(target: &Target) -> Result<Self> {
        Ok(Self {
            scribbler: Scribbler::connect(target.socket(), &Options::default())?,
            nodes: vec![ROOT, 0, u64::MAX],
            handles: vec![0, u64::MAX],
            answered: 0,
            succeeded: 0,
        })
    }

    /// Sends a request that says anything; any answer will do that has an answer's form.
    fn ask(&mut self, noise: &mut Noise) -> Result<()> {
        let code = loop {
            let code = u32::try_from(noise.next() % CODES)?;
            // They would end what is to be filled, or wait for a lock that nobody gives back.
            if ![opcode::DESTROY, opcode::INIT, opcode::SETLKW].contains(&code) {
                break code;
            }
        };
        let node = noise.of(&self.nodes);
        let mut request = Request::new(code, node);
        let (mut words, mut names) = form(code);
        if noise.of(&[true, false, false, false]) {
            (words, names) = (noise.next() % 12, noise.next() % 3);
        }
        for word in 0..words {
            let value = match word {
                0 if names == 0 => noise.of(&self.handles),
                _ => noise.number(),
            };
            request = request.with(&value);
        }
        for _ in 0..names {
            request = request.name(noise.of(&[&b"a"[..], b"b", b"c", b"file", b"..", b""]));
        }
        let bytes = self.scribbler.bytes(&request);
        let reply = self
            .scribbler
            .any(&bytes, 8192)
            .with_context(|| format!("opcode {code}"))?;
        let silent = [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT].contains(&code);
        ensure!(reply.is_none() == silent, "opcode {code}: {reply:?}");
        self.answered += 1;
        if reply.is_some_and(|reply| reply.error == 0) {
            self.succeeded += 1;
            self.learn(code);
        }
        Ok(())
    }

    /// Keeps nodes and handles, so that later requests meet something.
    fn learn(&mut self, code: u32) {
        let entry = [
            opcode::LOOKUP,
            opcode::MKDIR,
            opcode::MKNOD,
            opcode::SYMLINK,
            opcode::LINK,
        ];
        if entry.contains(&code) || code == opcode::CREATE {
            let node = self.scribbler.body::<EntryOut>().nodeid;
            keep(&mut self.nodes, node);
        } else if [opcode::OPEN, opcode::OPENDIR].contains(&code) {
            let handle = self.scribbler.body::<OpenOut>().fh;
            keep(&mut self.handles, handle);
        }
    }
}

/// Keeps what was learned last, and what was there from the start.
fn keep(learned: &mut Vec<u64>, number: u64) {
    if learned.contains(&number) {
        return;
    }
    if learned.len() >= Guest::MOST_LEARNED {
        learned.remove(3);
    }
    learned.push(number);
}

/// Fixed arguments in words of eight bytes, and names, as the guest's kernel would send them.
fn form(code: u32) -> (u64, u64) {
    match code {
        opcode::LOOKUP | opcode::UNLINK | opcode::RMDIR | opcode::REMOVEXATTR => (0, 1),
        opcode::SYMLINK => (0, 2),
        opcode::MKDIR | opcode::LINK | opcode::GETXATTR => (1, 1),
        opcode::MKNOD | opcode::CREATE => (2, 1),
        opcode::RENAME => (1, 2),
        opcode::RENAME2 => (2, 2),
        opcode::OPEN | opcode::OPENDIR | opcode::ACCESS | opcode::SYNCFS | opcode::LISTXATTR => {
            (1, 0)
        }
        opcode::GETATTR | opcode::FSYNC | opcode::FSYNCDIR => (2, 0),
        opcode::RELEASE | opcode::RELEASEDIR | opcode::FLUSH | opcode::LSEEK => (3, 0),
        opcode::FALLOCATE => (4, 0),
        opcode::READ | opcode::WRITE | opcode::READDIR | opcode::READDIRPLUS => (5, 0),
        opcode::GETLK | opcode::SETLK => (6, 0),
        opcode::COPY_FILE_RANGE => (7, 0),
        opcode::SETATTR => (11, 0),
        _ => (0, 0),
    }
}

/// The share as it was, whatever a connection has made of it.
fn tidy(target: &Target) -> Result<()> {
    for entry in fs::read_dir(target.share())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::create_dir(target.share().join("a"))?;
    fs::write(target.share().join("file"), b"contents")?;
    Ok(())
}

#[test]
fn x_random_requests_leave_the_daemon_as_it_was() -> Result<()> {
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let seed: u64 = std::env::var("VIRTIOFSD_SEED").map_or(Ok(1), |seed| seed.parse())?;
    println!("VIRTIOFSD_SEED={seed}");
    let mut noise = Noise(seed.max(1));
    let mut target = Target::start_with_one_pool(&["--xattr", "--posix-lock", "--flock"])?;
    let total = if long { LONG } else { SHORT };
    let (mut answered, mut succeeded) = (0, 0);
    let mut first = None;
    while answered < total {
        tidy(&target)?;
        let mut guest = Guest::connect(&target)?;
        for _ in 0..CONNECTION {
            guest.ask(&mut noise).with_context(|| {
                format!(
                    "VIRTIOFSD_SEED={seed}, request {}",
                    answered + guest.answered
                )
            })?;
        }
        guest.scribbler.is_served()?;
        answered += guest.answered;
        succeeded += guest.succeeded;
        drop(guest);
        // Descriptors and threads are what they were before any of it.
        target.is_unharmed()?;
        if first.is_none() {
            first = Some(Holdings::of(target.daemon().server_pid()?)?);
        }
    }
    let first = first.context("too few requests to compare")?;
    let last = Holdings::of(target.daemon().server_pid()?)?;
    println!("RESULT: {answered} random requests, {succeeded} of them successful");
    println!("RESULT: {first:?} after the first {CONNECTION}, {last:?} after all");
    ensure!(
        succeeded > answered / 20,
        "nearly nothing succeeds: {succeeded} of {answered}"
    );
    ensure!(
        last.anonymous_kib <= first.anonymous_kib + SLACK_KIB,
        "{first:?} has become {last:?}"
    );
    Ok(())
}
