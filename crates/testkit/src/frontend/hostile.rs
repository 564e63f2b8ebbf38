//! What hostile tests share: a daemon that must outlive them, and rings
//! written by hand.

pub mod messages;
mod open_share;
mod ring_rig;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Completion, Daemon, Frontend, GuestMemory, Launch, Options, Queue, Waiting};
use crate::fuse::abi::{self, OutHeader, ROOT};
use crate::fuse::{Caller, Request, Session};

pub use open_share::OpenShare;
pub use ring_rig::RingRig;

/// Descriptor flags (virtio 1.3, 2.7.5).
pub const NEXT: u16 = 1;
/// The device writes to this buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Most that the daemon may be larger afterwards: what allocators keep.
const GROWTH_KIB: u64 = 24 << 10;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory of its own, in KiB.
    pub anonymous_kib: u64,
}

impl Holdings {
    /// Looks at a process.
    pub fn of(pid: u32) -> Result<Self> {
        let count = |what: &str| -> Result<usize> {
            Ok(fs::read_dir(format!("/proc/{pid}/{what}"))?.count())
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let anonymous = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .and_then(|rest| rest.split_whitespace().next());
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
            anonymous_kib: anonymous.context("RssAnon")?.parse()?,
        })
    }
}

/// A daemon with `--keep-listening` that serves a share of its own.
#[derive(Debug)]
pub struct Target {
    daemon: Daemon,
    share: tempfile::TempDir,
    before: Holdings,
}

impl Target {
    /// Starts one, and serves it once so that what is kept for good is there.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// [`Target::start`] with more arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let (target, ()) = Self::start_on(arguments, |_| Ok(()))?;
        Ok(target)
    }

    /// [`Target::start_with`], after something was done to the share: what is mounted in it must be there before the
    /// daemon enters its sandbox.
    pub fn start_on<T>(
        arguments: &[&str],
        prepare: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        Self::start_as(arguments, &[], prepare)
    }

    /// [`Target::start_with`] with an allocator that has one pool for all threads.
    ///
    /// With one for each, as the C library has them, what a connection's threads have given back stays with pools
    /// that later threads may not come to use, up to a pool for each of eight threads per processor: a daemon
    /// that keeps nothing seems to grow by that.
    pub fn start_with_one_pool(arguments: &[&str]) -> Result<Self> {
        let environment = &[("MALLOC_ARENA_MAX", "1")];
        let (target, ()) = Self::start_as(arguments, environment, |_| Ok(()))?;
        Ok(target)
    }

    fn start_as<T>(
        arguments: &[&str],
        environment: &[(&'static str, &'static str)],
        prepare: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<(Self, T)> {
        let share = tempfile::tempdir()?;
        fs::write(share.path().join("file"), b"contents")?;
        let prepared = prepare(share.path())?;
        let launch = Launch::new(share.path()).arg("--keep-listening");
        let launch = arguments
            .iter()
            .fold(launch, |launch, one| launch.arg(*one));
        let launch = environment
            .iter()
            .fold(launch, |launch, (name, value)| launch.env(name, value));
        let daemon = launch.start()?;
        let before = Holdings::of(daemon.server_pid()?)?;
        let mut target = Self {
            daemon,
            share,
            before,
        };
        target.serves()?;
        target.before = target.at_rest()?;
        Ok((target, prepared))
    }

    /// What it holds when nothing changes any more.
    fn at_rest(&self) -> Result<Holdings> {
        let deadline = Instant::now() + LIMIT;
        let look = || Holdings::of(self.daemon.server_pid()?);
        let (mut last, mut unchanged) = (look()?, 0);
        while unchanged < 20 {
            ensure!(Instant::now() < deadline, "never at rest: {last:?}");
            std::thread::sleep(Duration::from_millis(5));
            let now = look()?;
            let same = now.descriptors == last.descriptors && now.threads == last.threads;
            unchanged = if same { unchanged + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.daemon.socket()
    }

    /// What it serves.
    #[must_use]
    pub fn share(&self) -> &Path {
        self.share.path()
    }

    /// The daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// A new front-end gets its requests served.
    pub fn serves(&mut self) -> Result<()> {
        let mut session = Session::open(self.socket())
            .with_context(|| format!("the daemon serves no more: {}", self.daemon.log()))?;
        session.client().getattr(ROOT)?;
        Ok(())
    }

    /// It serves as before, and holds no more than before.
    pub fn is_unharmed(&mut self) -> Result<()> {
        ensure!(
            self.daemon.is_running(),
            "the daemon ended: {}",
            self.daemon.log()
        );
        self.serves()?;
        self.settle()?;
        let now = Holdings::of(self.daemon.server_pid()?)?;
        ensure!(
            now.anonymous_kib <= self.before.anonymous_kib + GROWTH_KIB,
            "grown from {:?} to {now:?}",
            self.before
        );
        Ok(())
    }

    /// Waits until descriptors and threads are what they were.
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = Holdings::of(self.daemon.server_pid()?)?;
            if now.descriptors <= self.before.descriptors && now.threads <= self.before.threads {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "left behind: {now:?}, before {:?}; {}",
                self.before,
                self.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// `struct virtq_desc`, with whatever a test wants in it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Descriptor {
    /// Guest address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

/// A descriptor that is read by the device.
#[must_use]
pub fn readable(address: u64, len: u32) -> Descriptor {
    Descriptor {
        address,
        len,
        flags: 0,
        next: 0,
    }
}

/// A descriptor that is written by the device.
#[must_use]
pub fn writable(address: u64, len: u32) -> Descriptor {
    Descriptor {
        flags: WRITE,
        ..readable(address, len)
    }
}

/// Links descriptors as they stand: each to the one at the next index.
#[must_use]
pub fn chained(descriptors: &[Descriptor]) -> Vec<Descriptor> {
    let mut chain = descriptors.to_vec();
    let last = chain.len().saturating_sub(1);
    for (index, one) in chain.iter_mut().enumerate().take(last) {
        one.flags |= NEXT;
        one.next = u16::try_from(index + 1).unwrap_or(u16::MAX);
    }
    chain
}

/// A request queue that is written by hand, after INIT.
#[derive(Debug)]
pub struct Scribbler {
    /// The device.
    pub frontend: Frontend,
    /// Its first request queue.
    pub queue: Queue,
    memory: Arc<GuestMemory>,
    /// 64 KiB for requests.
    pub request_at: u64,
    /// 64 KiB for replies.
    pub reply_at: u64,
    unique: u64,
}

/// Room for requests and for replies.
const ROOM: u64 = 64 << 10;

impl Scribbler {
    /// Connects and sends INIT.
    pub fn connect(socket: &Path, options: &Options) -> Result<Self> {
        let mut scribbler = Self::before_init(socket, options)?;
        let init = Request::init(abi::MINOR, u64::MAX);
        let reply = scribbler.call(&init, 16 + 64)?;
        ensure!(reply.error == 0, "INIT: {reply:?}");
        Ok(scribbler)
    }

    /// Connects.
    pub fn before_init(socket: &Path, options: &Options) -> Result<Self> {
        let mut frontend = Frontend::connect(socket, options)?;
        let queue = frontend.take_queue(1)?;
        let memory = Arc::clone(frontend.memory());
        Ok(Self {
            request_at: memory.allocate(ROOM, 4096)?,
            reply_at: memory.allocate(ROOM, 4096)?,
            frontend,
            queue,
            memory,
            unique: 100,
        })
    }

    /// Hangs up and connects again.
    pub fn connect_after(before: Self, socket: &Path, options: &Options) -> Result<Self> {
        drop(before);
        Self::connect(socket, options)
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Writes a request to where requests go; returns its length and number.
    pub fn write_request(&mut self, request: &Request<'_>) -> (u32, u64) {
        let mut bytes = vec![0; 64 << 10];
        self.unique += 2;
        let len = request.write_arguments(&mut bytes, self.unique, Caller::default());
        self.memory.write(self.request_at, &bytes[..len]);
        (u32::try_from(len).unwrap_or(0), self.unique)
    }

    /// Writes descriptors into the ring's table, from index 0.
    pub fn write_table(&self, descriptors: &[Descriptor]) {
        let at = self.queue.addresses().descriptors;
        self.memory.write(at, descriptors.as_bytes());
    }

    /// Clears the place of the reply's header.
    pub fn clear_reply(&self) {
        self.memory.write(self.reply_at, &[0; 4096]);
    }

    /// Offers the chain at a head and waits until it is given back.
    pub fn offer(&mut self, head: u16) -> Result<Completion> {
        self.queue.add_head(head);
        self.queue.publish();
        self.completion()
    }

    /// Waits for a chain to be given back.
    pub fn completion(&mut self) -> Result<Completion> {
        let completion = self.queue.wait(Waiting::Sleep, LIMIT);
        completion.context("a chain was not given back")
    }

    /// Writes a table and offers the chain at its start; returns the length written.
    pub fn chain(&mut self, descriptors: &[Descriptor]) -> Result<u32> {
        self.write_table(descriptors);
        Ok(self.offer(0)?.written_bytes)
    }

    /// The header of the reply.
    #[must_use]
    pub fn reply(&self) -> OutHeader {
        self.memory.load(self.reply_at)
    }

    /// Sends a request in the simplest form, with so many bytes for the reply.
    pub fn call(&mut self, request: &Request<'_>, reply_bytes: u32) -> Result<OutHeader> {
        let (len, unique) = self.write_request(request);
        self.clear_reply();
        let table = chained(&[
            readable(self.request_at, len),
            writable(self.reply_at, reply_bytes),
        ]);
        let written_bytes = self.chain(&table)?;
        let reply = self.reply();
        ensure!(
            reply.len == written_bytes && reply.unique == unique,
            "{written_bytes} bytes, {reply:?}"
        );
        Ok(reply)
    }

    /// Sends a request as it stands, with so much room for the reply, and
    /// expects what it gets to be a reply; `None` where there is none.
    pub fn any(&mut self, bytes: &[u8], reply_bytes: u32) -> Result<Option<OutHeader>> {
        self.memory.write(self.request_at, bytes);
        self.clear_reply();
        let table = chained(&[
            readable(self.request_at, u32::try_from(bytes.len())?),
            writable(self.reply_at, reply_bytes),
        ]);
        let written_bytes = self.chain(&table)?;
        let reply = self.reply();
        if written_bytes == 0 {
            ensure!(reply == OutHeader::default(), "written and not told");
            return Ok(None);
        }
        let unique = bytes.get(8..16).and_then(|raw| raw.try_into().ok());
        let unique = unique.map(u64::from_ne_bytes);
        ensure!(
            reply.len == written_bytes && Some(reply.unique) == unique,
            "{written_bytes} bytes, {reply:?}"
        );
        let is_bare = written_bytes == 16;
        ensure!(
            reply.error == 0 || (is_bare && (-511..0).contains(&reply.error)),
            "{reply:?}"
        );
        Ok(Some(reply))
    }

    /// The bytes of a request.
    #[must_use]
    pub fn bytes(&mut self, request: &Request<'_>) -> Vec<u8> {
        let (len, _) = self.write_request(request);
        let len = usize::try_from(len).unwrap_or(0);
        let mut bytes = self.memory.bytes(self.request_at, len);
        bytes.extend_from_slice(request.payload);
        bytes
    }

    /// [`Scribbler::any`] of a request; the reply's error, 0 for success.
    pub fn error_of(&mut self, request: &Request<'_>) -> Result<i32> {
        let bytes = self.bytes(request);
        let reply = self.any(&bytes, 16 << 10)?;
        Ok(-reply.context("no reply")?.error)
    }

    /// A value in the last reply's body.
    #[must_use]
    pub fn body<T: FromBytes + IntoBytes>(&self) -> T {
        self.memory.load(self.reply_at + 16)
    }

    /// GETATTR of the root is answered as always.
    pub fn is_served(&mut self) -> Result<()> {
        let reply = self.call(&Request::getattr(ROOT, None), 16 + 104)?;
        ensure!(reply.error == 0 && reply.len == 120, "{reply:?}");
        Ok(())
    }

    /// Whether the error eventfd of the ring is signalled within the limit.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        super::sleep_on(self.queue.error_fd(), LIMIT)
    }
}
