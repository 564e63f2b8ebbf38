//! What locks on the host cost in system calls, and what they do not cost those who have none.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::skipped;
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::frontend::trace::{Trace, now_secs};
use virtiofs_testkit::fuse::abi::lock::{LAST, READ, UNLOCK, WRITE};
use virtiofs_testkit::fuse::abi::{FileLock, LK_FLOCK, LkIn, ROOT};
use virtiofs_testkit::fuse::{Request, Session};

/// Long enough for a request that does not wait to be answered.
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn closing_a_file_costs_a_call_only_where_a_lock_goes() -> Result<()> {
    if !Trace::is_available() {
        skipped("needs strace");
        return Ok(());
    }
    let share = tempfile::tempdir()?;
    std::fs::write(share.path().join("locked"), b"x")?;
    let launch = Launch::new(share.path()).arg("--seccomp").arg("none");
    let daemon = launch.arg("--posix-lock").arg("--flock").start()?;
    let mut session = Session::open(daemon.socket())?;
    let node = session.client().lookup(ROOT, "locked")?.nodeid;
    let fh = session.client().open(node, 2)?.fh;
    let trace = Trace::attach(daemon.pid(), daemon.scratch())?;
    let posix = |owner, kind| lock(fh, owner, kind, 0);
    let flocks = |kind| lock(fh, 1, kind, LK_FLOCK);
    let steps: [(&str, Request<'_>, &[&str]); 10] = [
        ("FLUSH without locks", Request::flush(node, fh, 1), &[]),
        ("GETLK", Request::getlk(node, &posix(1, WRITE)), &["fcntl"]),
        (
            "first SETLK",
            Request::setlk(node, &posix(1, READ)),
            &["openat", "fcntl"],
        ),
        (
            "SETLK again",
            Request::setlk(node, &posix(1, WRITE)),
            &["fcntl"],
        ),
        ("FLUSH of another owner", Request::flush(node, fh, 2), &[]),
        (
            "FLUSH of its owner",
            Request::flush(node, fh, 1),
            &["close"],
        ),
        (
            "unlock of nothing",
            Request::setlk(node, &posix(1, UNLOCK)),
            &[],
        ),
        (
            "SETLKW of what is free",
            Request::setlkw(node, &posix(3, READ)),
            &["openat", "fcntl"],
        ),
        (
            "the last unlock",
            Request::setlk(node, &posix(3, UNLOCK)),
            &["fcntl", "close"],
        ),
        ("flock", Request::setlkw(node, &flocks(WRITE)), &["flock"]),
    ];
    let mut times = Vec::new();
    for (what, request, want) in &steps {
        std::thread::sleep(PAUSE);
        let begin = now_secs();
        session.client().call(request).context(*what)?;
        // What is put off until after the answer counts as well.
        std::thread::sleep(PAUSE);
        times.push((what, begin..now_secs(), want));
    }
    let calls = trace.finish()?;
    for (what, time, want) in times {
        let made: Vec<&str> = calls
            .iter()
            .filter(|call| time.contains(&call.at_secs) && !call.is_waiting())
            // The standard library asks in debug builds whether what it closes is open.
            .filter(|call| !call.line.contains("F_GETFD"))
            .map(|call| call.name.as_str())
            .collect();
        ensure!(made == **want, "{what}: {made:?}");
    }
    Ok(())
}

fn lock(fh: u64, owner: u64, kind: u32, lk_flags: u32) -> LkIn {
    LkIn {
        fh,
        owner,
        lk: FileLock {
            start: 0,
            end: LAST,
            kind,
            pid: 7,
        },
        lk_flags,
        padding: 0,
    }
}
