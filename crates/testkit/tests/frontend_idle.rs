//! What a daemon does that has nothing to do: nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::frontend::trace::Trace;
use virtiofs_testkit::frontend::{Daemon, Frontend, Launch, Options};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{ClientOptions, Session};

const FILES: usize = 50;

fn descriptors(daemon: &Daemon) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", daemon.server_pid()?))?.count())
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
    let trace = Trace::attach(daemon.server_pid()?, daemon.scratch())?;
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

/// Voluntary and involuntary context switches of all threads: of the process that serves and, in namespaces, of the
/// one that waits for it.
fn switches(daemon: &Daemon) -> Result<u64> {
    let (started, serves) = (daemon.pid(), daemon.server_pid()?);
    let other = if started == serves {
        0
    } else {
        switches_of(started)?
    };
    Ok(other + switches_of(serves)?)
}

fn switches_of(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended since it was listed is woken no more.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
            let count = line.split_whitespace().last().context("a count")?;
            sum += count.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// Nothing may run for three seconds. Before, what was begun may end: descriptors that nobody uses are closed within
/// two periods of five seconds.
fn is_idle(daemon: &Daemon, what: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(12);
    loop {
        let before = switches(daemon)?;
        std::thread::sleep(Duration::from_millis(5500));
        if switches(daemon)? == before || Instant::now() > deadline {
            break;
        }
    }
    let before = switches(daemon)?;
    std::thread::sleep(Duration::from_secs(3));
    let woken = switches(daemon)? - before;
    ensure!(
        woken == 0,
        "{what}: {woken} context switches in three seconds"
    );
    Ok(())
}

#[test]
fn an_idle_daemon_is_never_woken() -> Result<()> {
    let mut target = Target::start()?;
    is_idle(target.daemon(), "without a front-end")?;
    let options = Options {
        request_queues: 4,
        ..Options::default()
    };
    let client = ClientOptions {
        data_bytes: 64 << 10,
        ..ClientOptions::default()
    };
    let mut session = Session::open_with(target.socket(), &options, &client)?;
    is_idle(target.daemon(), "after INIT")?;
    for client in &mut session.clients {
        for _ in 0..2000 {
            client.getattr(ROOT)?;
        }
    }
    is_idle(target.daemon(), "after load")?;
    drop(session);
    is_idle(target.daemon(), "after the front-end has left")?;
    target.is_unharmed()
}

#[test]
fn a_front_end_without_rings_costs_nothing() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    is_idle(target.daemon(), "after the handshake")?;
    drop(frontend);
    target.is_unharmed()
}
