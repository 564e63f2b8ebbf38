//! Guest memory that the front-end takes away while it is in use: what a
//! system call meets is EFAULT, what the daemon's own loads and stores meet
//! ends the connection and nothing else.

use anyhow::{Context, Result, ensure};
use rustix::fs::ftruncate;
use virtiofs_testkit::frontend::hostile::{
    Descriptor, Scribbler, Target, chained, readable, writable,
};
use virtiofs_testkit::frontend::{Options, RegionSpec};
use virtiofs_testkit::fuse::abi::{EntryOut, OpenOut, ROOT};
use virtiofs_testkit::fuse::{Request, Session};

const EFAULT: i32 = 14;
const MIB: u64 = 1 << 20;
/// Rings lie in the first region; the second one goes.
const LOST: u64 = 8192 * MIB;

struct Rig {
    target: Target,
    scribbler: Scribbler,
    node: u64,
    fh: u64,
}

impl Rig {
    fn new() -> Result<Self> {
        let target = Target::start()?;
        let region = |guest_address| RegionSpec {
            guest_address,
            len_bytes: 64 * MIB,
        };
        let options = Options {
            memory: vec![region(4096 * MIB), region(LOST)],
            ..Options::default()
        };
        let mut scribbler = Scribbler::connect(target.socket(), &options)?;
        ensure!(scribbler.error_of(&Request::lookup(ROOT, b"file"))? == 0);
        let node = scribbler.body::<EntryOut>().nodeid;
        ensure!(scribbler.error_of(&Request::open(node, 2))? == 0);
        let fh = scribbler.body::<OpenOut>().fh;
        ensure!(scribbler.memory().regions().len() == 2);
        Ok(Self {
            target,
            scribbler,
            node,
            fh,
        })
    }

    fn truncate(&self) -> Result<()> {
        Ok(ftruncate(self.scribbler.memory().regions()[1].file(), 0)?)
    }

    /// The chain ends the connection; the daemon says so once and serves on.
    fn ends_with(mut self, what: &str, table: &[Descriptor]) -> Result<()> {
        self.scribbler.write_request(&Request::getattr(ROOT, None));
        self.truncate()?;
        self.scribbler.write_table(&chained(table));
        self.scribbler.queue.add_head(0);
        self.scribbler.queue.publish();
        let connection = self.scribbler.frontend.connection();
        ensure!(connection.is_closed_by_peer()?, "{what}");
        let log = self.target.log();
        let lines = log.matches("truncated the memory it shares").count();
        ensure!(lines == 1 && !log.contains("broken"), "{what}: {log}");
        drop(self.scribbler);
        self.target.is_unharmed()
    }
}

#[test]
fn v_a_system_call_on_truncated_memory_is_efault_and_all_else_is_served() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.truncate()?;
    let (node, fh) = (rig.node, rig.fh);
    let scribbler = &mut rig.scribbler;
    let (ask, reply) = (scribbler.request_at, scribbler.reply_at);
    let (len, _) = scribbler.write_request(&Request::read(node, fh, 0, 4096));
    let read = [
        readable(ask, len),
        writable(reply, 16),
        writable(LOST, 4096),
    ];
    ensure!(scribbler.chain(&chained(&read))? == 16);
    ensure!(
        scribbler.reply().error == -EFAULT,
        "{:?}",
        scribbler.reply()
    );
    let (len, _) = scribbler.write_request(&Request::write(node, fh, 0, b"contents"));
    let write = [
        readable(ask, len),
        readable(LOST, 8),
        writable(reply, 16 + 8),
    ];
    ensure!(scribbler.chain(&chained(&write))? == 16);
    ensure!(
        scribbler.reply().error == -EFAULT,
        "{:?}",
        scribbler.reply()
    );
    scribbler.is_served().context("after EFAULT")?;
    ensure!(std::fs::read(rig.target.share().join("file"))? == b"contents");
    drop(rig.scribbler);
    rig.target.is_unharmed()
}

#[test]
fn v_a_request_in_truncated_memory_ends_its_connection_alone() -> Result<()> {
    let rig = Rig::new()?;
    let reply = rig.scribbler.reply_at;
    let table = [readable(LOST + 8, 56), writable(reply, 120)];
    rig.ends_with("request", &table)
}

#[test]
fn v_a_reply_into_truncated_memory_ends_its_connection_alone() -> Result<()> {
    let rig = Rig::new()?;
    let ask = rig.scribbler.request_at;
    let table = [readable(ask, 56), writable(LOST + MIB, 120)];
    rig.ends_with("reply", &table)
}

#[test]
fn v_an_indirect_table_in_truncated_memory_ends_its_connection_alone() -> Result<()> {
    use virtiofs_testkit::frontend::hostile::INDIRECT;
    let rig = Rig::new()?;
    let table = [Descriptor {
        flags: INDIRECT,
        ..readable(LOST, 32)
    }];
    rig.ends_with("table", &table)
}

#[test]
fn v_truncated_guest_memory_ends_its_connection_alone() -> Result<()> {
    let mut target = Target::start()?;
    let mut session = Session::open(target.socket())?;
    session.client().getattr(ROOT)?;
    let file = session.frontend.memory().regions()[0].file();
    ftruncate(file, 0)?;
    // Only the daemon may touch what is gone now.
    rustix::io::write(session.clients[0].queue().kick_fd(), &1_u64.to_ne_bytes())?;
    ensure!(session.frontend.connection().is_closed_by_peer()?);
    let lines = target
        .log()
        .matches("truncated the memory it shares")
        .count();
    ensure!(lines == 1, "{}", target.log());
    ensure!(
        !target.log().contains("a queue is broken"),
        "{}",
        target.log()
    );
    // Its queues look at the memory when they are dropped: not these.
    std::mem::forget(session);
    target.daemon();
    target.serves()
}
