//! A store that hangs does not hold the queue: what sleeps is parked, and
//! everything else is answered.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::{Daemon, Launch, Options};
use virtiofs_testkit::fuse::abi::{OutHeader, ROOT};
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request, Session};
use virtiofs_testkit::slowfs::{FILE, SlowFs, byte_at};

const PARKED: u64 = 32;
const LIMIT: Duration = Duration::from_secs(10);

/// A share on a fast store with a hung one mounted in it, and a client with
/// more slots than requests that are parked. Dropped in this order: what is
/// parked must end before the daemon can.
struct Hung {
    slow: SlowFs,
    session: Session,
    _daemon: Daemon,
    _share: Tmpfs,
    fast: u64,
    node: u64,
    fh: u64,
}

impl Hung {
    fn new() -> Result<Self> {
        let share = Tmpfs::new()?;
        std::fs::write(share.path().join("fast"), b"fast")?;
        std::fs::create_dir(share.path().join("slow"))?;
        let slow = SlowFs::mount(&share.path().join("slow"))?;
        let daemon = Launch::new(share.path()).start()?;
        let options = ClientOptions {
            depth: 48,
            data_bytes: 4096,
            limit: LIMIT,
            ..ClientOptions::default()
        };
        let mut session = Session::open_with(daemon.socket(), &Options::default(), &options)?;
        let client = session.client();
        let fast = client.lookup(ROOT, "fast")?.nodeid;
        let directory = client.lookup(ROOT, "slow")?.nodeid;
        let node = client.lookup(directory, FILE)?.nodeid;
        let fh = client.open(node, 0)?.fh;
        Ok(Self {
            slow,
            session,
            _daemon: daemon,
            _share: share,
            fast,
            node,
            fh,
        })
    }

    /// GETATTR of the fast file, among whatever else is in flight.
    fn getattr_is_answered(&mut self) -> Result<()> {
        let client = self.session.client();
        let unique = client.start(&Request::getattr(self.fast, None))?;
        client.publish();
        let answer = client.finish().context("GETATTR waits for a hung store")?;
        ensure!(answer.unique == unique, "a parked request was completed");
        client.check(&answer)?;
        Ok(())
    }
}

/// Waits for `count` requests and returns their replies' headers and data.
fn finish(client: &mut FuseClient, count: u64) -> Result<Vec<(OutHeader, u64, Vec<u8>)>> {
    (0..count)
        .map(|_| {
            let answer = client.finish()?;
            Ok((answer.header, answer.unique, client.data(&answer)))
        })
        .collect()
}

fn parked_requests(request: impl Fn(u64, u64, u64) -> Request<'static>) -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let mut hung = Hung::new()?;
    let mut offsets = std::collections::HashMap::new();
    for number in 0..PARKED {
        let offset = number * 4096;
        let unique = hung
            .session
            .client()
            .start(&request(hung.node, hung.fh, offset))?;
        offsets.insert(unique, offset);
    }
    hung.session.client().publish();
    hung.slow.wait_for_held(1, LIMIT)?;
    for _ in 0..100 {
        hung.getattr_is_answered()?;
    }
    hung.slow.release();
    for (header, unique, data) in finish(hung.session.client(), PARKED)? {
        let offset = offsets.remove(&unique).context("completed twice")?;
        ensure!(header.error == 0 && header.unique == unique, "{header:?}");
        ensure!(
            data.iter().all(|byte| *byte == byte_at(offset)),
            "bytes of another offset"
        );
    }
    hung.getattr_is_answered()
}

#[test]
fn getattr_is_answered_while_32_reads_are_parked() -> Result<()> {
    parked_requests(|node, fh, offset| Request::read(node, fh, offset, 4096))
}

#[test]
fn getattr_is_answered_while_32_fsyncs_are_parked() -> Result<()> {
    parked_requests(|node, fh, _| Request::fsync(node, fh, 0))
}

#[test]
fn a_front_end_may_leave_while_requests_are_parked() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let Hung {
        slow,
        mut session,
        _daemon: mut daemon,
        _share,
        node,
        fh,
        ..
    } = Hung::new()?;
    for number in 0..PARKED {
        session
            .client()
            .start(&Request::read(node, fh, number * 4096, 4096))?;
    }
    session.client().publish();
    slow.wait_for_held(1, LIMIT)?;
    let started = Instant::now();
    drop(session);
    // Draining is bounded: the store is still hung.
    daemon.expect_exit(0, Duration::from_secs(20))?;
    println!("ended {:?} after the front-end left", started.elapsed());
    Ok(())
}
