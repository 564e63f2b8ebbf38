//! Stores that hang: what a queue's thread is stuck in holds neither its
//! queue, nor the front-end that leaves, nor the next one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::{Daemon, Launch, MemoryMessages, Options};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request, Session};
use virtiofs_testkit::slowfs::{FILE, SlowFs};

const LIMIT: Duration = Duration::from_secs(10);
/// Draining takes five seconds at most; the rest is for a busy machine.
const DRAINED: Duration = Duration::from_secs(15);

/// A fast share with a store in it that hangs when it is looked at. Fields are
/// dropped in this order: what hangs must end before the daemon can.
struct Hung {
    slow: SlowFs,
    session: Session,
    daemon: Daemon,
    _share: Tmpfs,
    fast: u64,
}

impl Hung {
    fn new(arguments: &[&str]) -> Result<Self> {
        let share = Tmpfs::new()?;
        std::fs::write(share.path().join("fast"), b"fast")?;
        std::fs::create_dir(share.path().join("slow"))?;
        let slow = SlowFs::mount(&share.path().join("slow"))?;
        let launch = Launch::new(share.path());
        let launch = arguments
            .iter()
            .fold(launch, |launch, one| launch.arg(*one));
        let daemon = launch.start()?;
        let mut session = open(&daemon)?;
        let client = session.client();
        let fast = client.lookup(ROOT, "fast")?.nodeid;
        // Not looked up before: the daemon cannot know that a slow store begins there.
        slow.hold_attributes();
        Ok(Self {
            slow,
            session,
            daemon,
            _share: share,
            fast,
        })
    }

    /// Starts a request that is known to be fast and hangs; returns its number.
    fn hang(&mut self) -> Result<u64> {
        let unique = self.start_hanging()?;
        self.session.client().publish();
        self.slow.wait_for_held(1, LIMIT)?;
        Ok(unique)
    }

    fn start_hanging(&mut self) -> Result<u64> {
        let request = Request::lookup(ROOT, b"slow");
        Ok(self.session.client().start(&request)?)
    }
}

fn open(daemon: &Daemon) -> Result<Session> {
    let options = ClientOptions {
        depth: 24,
        data_bytes: 4096,
        limit: LIMIT,
        ..ClientOptions::default()
    };
    Session::open_with(daemon.socket(), &Options::default(), &options)
}

fn answered(client: &mut FuseClient, unique: u64) -> Result<()> {
    let answer = client.finish().context("held by a call that hangs")?;
    ensure!(answer.unique == unique, "another request was completed");
    client.check(&answer)?;
    Ok(())
}

fn cannot_mount() -> bool {
    let cannot = !can_mount();
    if cannot {
        skipped("needs root and /dev/fuse");
    }
    cannot
}

#[test]
fn x_a_call_that_hangs_on_a_store_not_known_as_slow_does_not_hold_its_queue() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&[])?;
    let late = hung.hang()?;
    let fast = hung.fast;
    let client = hung.session.client();
    for _ in 0..100 {
        let unique = client.start(&Request::getattr(fast, None))?;
        client.publish();
        answered(client, unique)?;
    }
    hung.slow.release();
    answered(hung.session.client(), late)
}

#[test]
fn requests_around_one_that_hangs_are_answered() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&[])?;
    let fast = hung.fast;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(hung.session.client().start(&Request::getattr(fast, None))?);
    }
    let late = hung.start_hanging()?;
    for _ in 0..5 {
        others.push(hung.session.client().start(&Request::getattr(fast, None))?);
    }
    // One kick for all: the first five stand in an unpublished batch.
    hung.session.client().publish();
    for unique in others {
        answered(hung.session.client(), unique)?;
    }
    hung.slow.wait_for_held(1, LIMIT)?;
    hung.slow.release();
    answered(hung.session.client(), late)
}

#[test]
fn sixteen_calls_that_hang_do_not_hold_the_queue() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&[])?;
    let mut late = Vec::new();
    for _ in 0..16 {
        late.push(hung.start_hanging()?);
        hung.session.client().publish();
    }
    let unique = hung
        .session
        .client()
        .start(&Request::getattr(hung.fast, None))?;
    hung.session.client().publish();
    answered(hung.session.client(), unique)?;
    hung.slow.release();
    for _ in 0..late.len() {
        let client = hung.session.client();
        let answer = client.finish()?;
        client.check(&answer)?;
        let place = late.iter().position(|unique| *unique == answer.unique);
        late.swap_remove(place.context("completed twice")?);
    }
    ensure!(late.is_empty());
    Ok(())
}

#[test]
fn a_front_end_may_leave_while_a_queue_is_stuck() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&[])?;
    hung.hang()?;
    let Hung {
        slow,
        session,
        mut daemon,
        _share,
        ..
    } = hung;
    drop(session);
    daemon.expect_exit(0, DRAINED)?;
    let late = "1 requests are still inside a call";
    ensure!(daemon.log().matches(late).count() == 1, "{}", daemon.log());
    drop(slow);
    Ok(())
}

#[test]
fn the_next_front_end_is_served_while_the_store_still_hangs() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&["--keep-listening"])?;
    hung.hang()?;
    let Hung {
        slow,
        session,
        daemon,
        _share,
        ..
    } = hung;
    drop(session);
    let mut next = open(&daemon)?;
    let client = next.client();
    for _ in 0..10 {
        client.lookup(ROOT, "fast")?;
    }
    slow.release();
    client.lookup(ROOT, "slow")?;
    Ok(())
}

#[test]
fn sigterm_ends_a_daemon_with_a_stuck_queue_and_its_request_is_answered() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&[])?;
    let late = hung.hang()?;
    hung.daemon.terminate()?;
    hung.daemon.expect_exit(0, DRAINED)?;
    let client = hung.session.client();
    let answer = client.finish()?;
    ensure!(answer.unique == late, "another request was completed");
    let errno = client.check(&answer).err().and_then(|why| why.errno());
    ensure!(errno == Some(Errno::IO), "{answer:?}");
    Ok(())
}

#[test]
fn stopping_a_ring_is_bounded_and_late_replies_reach_nobody() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&["--keep-listening"])?;
    let directory = hung.session.client().lookup(ROOT, "fast")?.nodeid;
    hung.session.client().getattr(directory)?;
    let late = hung.hang()?;
    let started = Instant::now();
    // The front-end's own limit for a reply is longer than the daemon's for draining.
    hung.session.frontend.stop_ring(1)?;
    ensure!(started.elapsed() < LIMIT);
    let client = hung.session.client();
    let answer = client.finish()?;
    let errno = client.check(&answer).err().and_then(|why| why.errno());
    ensure!(
        answer.unique == late && errno == Some(Errno::IO),
        "{answer:?}"
    );
    ensure!(
        hung.session.frontend.connection().is_closed_by_peer()?,
        "the connection has to end"
    );
    let client = hung.session.client();
    let addresses = client.queue().addresses();
    let memory = std::sync::Arc::clone(client.queue().memory());
    let before = memory.bytes(addresses.used, 64);
    hung.slow.release();
    // The late call ends now; what it writes must not be seen here.
    let mut next = open(&hung.daemon)?;
    next.client().lookup(ROOT, "slow")?;
    ensure!(memory.bytes(addresses.used, 64) == before);
    ensure!(hung.session.client().queue().pop().is_none());
    Ok(())
}

#[test]
fn a_new_memory_table_does_not_wait_for_a_hung_store() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let mut hung = Hung::new(&[])?;
    let slow = hung
        .session
        .client()
        .start(&Request::lookup(ROOT, b"slow"))?;
    hung.session.client().publish();
    hung.slow.wait_for_held(1, LIMIT)?;
    let started = Instant::now();
    for _ in 0..20 {
        hung.session.frontend.share_memory(MemoryMessages::Table)?;
    }
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(2), "{took:?} for 20 tables");
    let unique = hung
        .session
        .client()
        .start(&Request::getattr(hung.fast, None))?;
    hung.session.client().publish();
    answered(hung.session.client(), unique)?;
    hung.slow.release();
    answered(hung.session.client(), slow)
}

#[test]
fn parked_requests_are_completed_in_the_new_memory_table() -> Result<()> {
    if cannot_mount() {
        return Ok(());
    }
    let share = Tmpfs::new()?;
    std::fs::create_dir(share.path().join("slow"))?;
    let slow = SlowFs::mount(&share.path().join("slow"))?;
    let daemon = Launch::new(share.path()).start()?;
    let mut session = open(&daemon)?;
    let client = session.client();
    let directory = client.lookup(ROOT, "slow")?.nodeid;
    let node = client.lookup(directory, FILE)?.nodeid;
    let fh = client.open(node, 0)?.fh;
    let mut parked = Vec::new();
    for number in 0..16 {
        parked.push(client.start(&Request::read(node, fh, number * 4096, 4096))?);
    }
    client.publish();
    slow.wait_for_held(1, LIMIT)?;
    let started = Instant::now();
    session.frontend.share_memory(MemoryMessages::Table)?;
    ensure!(started.elapsed() < Duration::from_secs(2), "it waited");
    slow.release();
    for _ in 0..parked.len() {
        let client = session.client();
        let answer = client.finish()?;
        client.check(&answer)?;
        let place = parked.iter().position(|unique| *unique == answer.unique);
        parked.swap_remove(place.context("completed twice")?);
    }
    session.client().getattr(ROOT)?;
    Ok(())
}
