//! Without `--keep-listening` a daemon ends with its first front-end. Whatever that one, or its guest, has done,
//! the end is an orderly one: exit code 0, or 1 and a line that says why.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::ftruncate;
use tempfile::TempDir;
use virtiofs_testkit::frontend::hostile::messages::{event, header};
use virtiofs_testkit::frontend::hostile::{
    Descriptor, NEXT, RingRig, Scribbler, chained, readable, writable,
};
use virtiofs_testkit::frontend::message::VERSION;
use virtiofs_testkit::frontend::{Connection, Daemon, Launch, Options};
use virtiofs_testkit::fuse::abi::{self, ROOT};
use virtiofs_testkit::fuse::{ClientOptions, Request, Session};

use std::os::fd::AsFd;

const LIMIT: Duration = Duration::from_secs(20);

/// A daemon that serves one front-end.
fn once() -> Result<(TempDir, Daemon)> {
    let share = tempfile::tempdir()?;
    std::fs::write(share.path().join("file"), b"contents")?;
    let daemon = Launch::new(share.path()).start()?;
    Ok((share, daemon))
}

/// One front-end does this and leaves; the daemon ends with that code, and complains only if it is 1.
fn ends(what: &str, code: i32, front_end: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (_share, mut daemon) = once()?;
    front_end(daemon.socket()).with_context(|| format!("{what}: {}", daemon.log()))?;
    daemon.expect_exit(code, LIMIT).context(what.to_owned())?;
    let log = daemon.log();
    ensure!(!log.contains("panicked"), "{what}: {log}");
    let left = "Client disconnected, shutting down";
    ensure!(log.contains(left) == (code == 0), "{what}: {log}");
    Ok(())
}

#[test]
fn v_once_a_front_end_that_breaks_the_protocol_or_leaves_ends_the_daemon_in_order() -> Result<()> {
    let (event, other) = (event()?, event()?);
    let cases = [
        ("nothing", 0, vec![], 0),
        ("half a header", 1, header(1, VERSION, 0)[..5].to_vec(), 0),
        ("half a message", 1, header(2, VERSION, 8), 0),
        ("another version", 1, header(1, 0, 0), 0),
        ("4097 bytes", 1, header(1, VERSION, 4097), 0),
        (
            "a message that nobody knows",
            1,
            header(1000, VERSION, 0),
            0,
        ),
        ("too many descriptors", 1, header(5, VERSION, 0), 40),
        ("random bytes", 1, vec![0xa5; 4096], 0),
    ];
    for (what, code, bytes, descriptors) in cases {
        ends(what, code, |socket| {
            let connection = Connection::open(socket, LIMIT)?;
            let passed: Vec<_> = [event.as_fd(), other.as_fd()]
                .into_iter()
                .cycle()
                .take(descriptors)
                .collect();
            if !bytes.is_empty() {
                connection.send_raw(&bytes, &passed)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn v_once_memory_that_is_taken_away_ends_the_daemon_in_order() -> Result<()> {
    let (_share, mut daemon) = once()?;
    let mut session = Session::open(daemon.socket())?;
    session.client().getattr(ROOT)?;
    ftruncate(session.frontend.memory().regions()[0].file(), 0)?;
    // Only the daemon may touch what is gone now.
    rustix::io::write(session.clients[0].queue().kick_fd(), &1_u64.to_ne_bytes())?;
    daemon.expect_exit(1, LIMIT)?;
    let log = daemon.log();
    ensure!(log.contains("truncated the memory it shares"), "{log}");
    // Its queues look at the memory when they are dropped: not these.
    std::mem::forget(session);
    Ok(())
}

#[test]
fn q_once_bad_chains_and_a_broken_ring_end_with_their_front_end() -> Result<()> {
    ends("bad chains", 0, |socket| {
        let mut scribbler = Scribbler::connect(socket, &RingRig::options())?;
        let ask = scribbler.request_at;
        let bad = [
            vec![Descriptor {
                flags: NEXT,
                next: u16::MAX,
                ..readable(8, 8)
            }],
            chained(&[readable(u64::MAX, 56), writable(ask, 120)]),
            chained(&[writable(ask, 120), readable(ask, 56)]),
        ];
        for table in bad {
            ensure!(scribbler.chain(&table)? == 0);
        }
        scribbler.is_served()
    })?;
    ends("a broken ring", 0, |socket| {
        let mut scribbler = Scribbler::connect(socket, &RingRig::options())?;
        let base = scribbler.queue.base();
        scribbler.queue.jump_to(base.wrapping_sub(1));
        ensure!(scribbler.is_broken());
        Ok(())
    })
}

#[test]
fn f_once_a_session_out_of_order_ends_with_its_front_end() -> Result<()> {
    ends("before INIT", 0, |socket| {
        let mut scribbler = Scribbler::before_init(socket, &Options::default())?;
        ensure!(scribbler.error_of(&Request::getattr(ROOT, None))? != 0);
        Ok(())
    })?;
    ends("an INIT of long ago", 0, |socket| {
        let mut scribbler = Scribbler::before_init(socket, &Options::default())?;
        ensure!(scribbler.error_of(&Request::init(8, 0))? != 0);
        Ok(())
    })?;
    ends("after DESTROY", 0, |socket| {
        let mut scribbler = Scribbler::connect(socket, &Options::default())?;
        ensure!(scribbler.error_of(&Request::destroy())? == 0);
        ensure!(scribbler.error_of(&Request::getattr(ROOT, None))? != 0);
        Ok(())
    })
}

#[test]
fn o_once_requests_that_make_no_sense_end_with_their_front_end() -> Result<()> {
    ends("every opcode, cut off and whole", 0, |socket| {
        let mut scribbler = Scribbler::connect(socket, &Options::default())?;
        for code in (1..60).filter(|code| *code != abi::opcode::DESTROY) {
            for words in 0..12 {
                let mut request = Request::new(code, ROOT);
                for _ in 0..words {
                    request = request.with(&u64::MAX);
                }
                let bytes = scribbler.bytes(&request);
                scribbler.any(&bytes, 8192)?;
            }
        }
        Ok(())
    })
}

#[test]
fn k_once_a_front_end_that_hangs_up_with_requests_queued_ends_the_daemon_in_order() -> Result<()> {
    let deep = ClientOptions {
        depth: 128,
        data_bytes: 4096,
        ..ClientOptions::default()
    };
    for round in 0..10_u64 {
        ends("128 queued", 0, |socket| {
            let mut session = Session::open_with(socket, &Options::default(), &deep)?;
            let client = session.client();
            for _ in 0..128 {
                client.start(&Request::getattr(ROOT, None))?;
            }
            client.publish();
            // Some rounds hang up at once, some in the middle.
            std::thread::sleep(Duration::from_micros(round * 50));
            Ok(())
        })?;
    }
    Ok(())
}
