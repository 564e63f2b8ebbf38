//! What a daemon does that has nothing to do: nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::trace::Trace;
use virtiofs_testkit::frontend::{Daemon, Launch};
use virtiofs_testkit::fuse::Session;
use virtiofs_testkit::fuse::abi::ROOT;

const FILES: usize = 50;

fn descriptors(daemon: &Daemon) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count())
}

#[test]
fn an_idle_daemon_closes_its_descriptors_and_sleeps_from_then_on() -> Result<()> {
    if !can_mount() || !Trace::is_available() {
        skipped("needs root and strace");
        return Ok(());
    }
    let share = Tmpfs::new()?;
    for number in 0..FILES {
        std::fs::write(share.path().join(number.to_string()), b"x")?;
    }
    let daemon = Launch::new(share.path()).start()?;
    let mut session = Session::open(daemon.socket())?;
    let before = descriptors(&daemon)?;
    let mut nodes = Vec::new();
    for number in 0..FILES {
        nodes.push(session.client().lookup(ROOT, number.to_string())?.nodeid);
    }
    ensure!(
        descriptors(&daemon)? >= before + FILES,
        "one for each at first"
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    while descriptors(&daemon)? > before {
        ensure!(Instant::now() < deadline, "they stay open");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The sweep that found nothing more to do has set no alarm.
    std::thread::sleep(Duration::from_secs(1));
    let trace = Trace::attach(daemon.pid(), daemon.scratch())?;
    std::thread::sleep(Duration::from_secs(6));
    let calls = trace.finish()?;
    let woken: Vec<&str> = calls
        .iter()
        .map(|call| call.line.as_str())
        .filter(|line| !line.contains("<unfinished") && !line.contains("<detached"))
        .collect();
    ensure!(woken.is_empty(), "{woken:?}");
    // All of them are found again.
    for node in nodes {
        ensure!(session.client().getattr(node)?.size == 1);
    }
    Ok(())
}
