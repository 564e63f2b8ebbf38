//! What a request costs: the system calls of each, as the project's
//! performance table promises them. Reading kicks, writing calls and sleeping
//! do not count; what does is every call on a file.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::frontend::trace::{Call, Counted, Trace, now_secs, paid};
use virtiofs_testkit::fuse::abi::{ROOT, SetattrIn, WriteIn, fattr};
use virtiofs_testkit::fuse::{Caller, Request, Session};
use zerocopy::FromZeros;

#[path = "../../hostfs/tests/kit/store.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "stores of other tests, too")]
mod store;

const LISTED: usize = 20;
const PAGE: u32 = 4096;
/// `FUSE_WRITE_KILL_SUIDGID`.
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// Long enough for work that was put off to show, and for the queue to sleep.
const PAUSE: Duration = Duration::from_millis(30);

/// What was asked for, when, and what it may cost.
struct Step {
    what: &'static str,
    begin_secs: f64,
    end_secs: f64,
    counted: Counted,
    budget: RangeInclusive<usize>,
}

/// Performs requests and remembers when.
struct Recorder {
    session: Session,
    steps: Vec<Step>,
}

impl Recorder {
    fn step<T>(
        &mut self,
        what: &'static str,
        budget: RangeInclusive<usize>,
        request: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T> {
        std::thread::sleep(PAUSE);
        let begin_secs = now_secs();
        let result = request(&mut self.session).context(what)?;
        self.steps.push(Step {
            what,
            begin_secs,
            end_secs: now_secs(),
            counted: Counted::UntilAnswered,
            budget,
        });
        Ok(result)
    }

    /// The step before also pays for what it put off.
    fn including_what_follows(&mut self) {
        std::thread::sleep(PAUSE);
        if let Some(step) = self.steps.last_mut() {
            step.end_secs = now_secs();
            step.counted = Counted::WithWhatFollows;
        }
    }
}

fn share() -> Result<Tmpfs> {
    let share = Tmpfs::new()?;
    let file = |name: &str, len: usize| std::fs::write(share.path().join(name), vec![b'x'; len]);
    for name in ["warm", "known", "new", "victim"] {
        file(name, 10_000)?;
    }
    file("pages", 2 * 4096)?;
    std::fs::create_dir(share.path().join("directory"))?;
    for number in 0..LISTED {
        file(&format!("directory/{number}"), 1)?;
    }
    Ok(share)
}

/// Every request once before it counts: code paths and what is remembered of
/// a mount are warm.
fn warm_up(session: &mut Session) -> Result<()> {
    let client = session.client();
    let node = client.lookup(ROOT, "warm")?.nodeid;
    let fh = client.open(node, 2)?.fh;
    client.getattr(node)?;
    client.read(node, fh, 0, PAGE)?;
    client.read(node, fh, 8192, PAGE)?;
    client.write(node, fh, 0, b"x")?;
    client.flush(node, fh, 1)?;
    client.release(node, fh)?;
    ensure!(client.lookup(ROOT, "missing").is_err());
    client.lookup(ROOT, "known")?;
    client.unlink(ROOT, "warm")?;
    session.hiprio.forget(node, 1)?;
    Ok(())
}

fn names(recorder: &mut Recorder) -> Result<()> {
    recorder.step("LOOKUP, inode known", 1..=1, |s| {
        Ok(s.client().lookup(ROOT, "known")?)
    })?;
    recorder.step("LOOKUP, ENOENT", 1..=1, |s| {
        ensure!(s.client().lookup(ROOT, "missing").is_err());
        Ok(())
    })?;
    let new = recorder.step("LOOKUP, inode new", 2..=2, |s| {
        Ok(s.client().lookup(ROOT, "new")?)
    })?;
    recorder.step("GETATTR", 1..=1, |s| Ok(s.client().getattr(new.nodeid)?))?;
    // Linux looks a name up before it removes it.
    recorder.session.client().lookup(ROOT, "victim")?;
    recorder.step("UNLINK", 1..=1, |s| {
        Ok(s.client().unlink(ROOT, "victim")?)
    })?;
    // The one is the descriptor's close, which comes when the thread has nothing else to do: FORGET has no
    // reply that would end the time of the request before that.
    recorder.step("FORGET", 0..=1, |s| Ok(s.hiprio.forget(new.nodeid, 1)?))
}

fn contents(recorder: &mut Recorder) -> Result<()> {
    let node = recorder.session.client().lookup(ROOT, "known")?.nodeid;
    let pages = recorder.session.client().lookup(ROOT, "pages")?.nodeid;
    let fh = recorder.step("OPEN", 1..=1, |s| Ok(s.client().open(node, 2)?.fh))?;
    let cut = recorder.session.client().open(pages, 0)?.fh;
    let read = |node, fh, offset, want: usize| {
        move |s: &mut Session| {
            let bytes = s.client().read(node, fh, offset, 2 * PAGE)?;
            ensure!(bytes.len() == want, "{} bytes", bytes.len());
            Ok(())
        }
    };
    recorder.step("READ, full", 1..=1, read(node, fh, 0, 8192))?;
    recorder.step(
        "READ, short inside a page",
        1..=1,
        read(node, fh, 8192, 1808),
    )?;
    // A second call only where the first one was not allowed to sleep: its
    // short count may then be the cache's end and not the file's.
    recorder.step(
        "READ, short at a page boundary",
        1..=2,
        read(pages, cut, 4096, 4096),
    )?;
    recorder.step("WRITE", 1..=1, |s| {
        Ok(s.client().write(node, fh, 0, &[7; 4096])?)
    })?;
    recorder.step("FLUSH", 0..=0, |s| Ok(s.client().flush(node, fh, 1)?))?;
    recorder.step("RELEASE", 1..=1, |s| Ok(s.client().release(node, fh)?))?;
    recorder.including_what_follows();
    Ok(())
}

fn directory(recorder: &mut Recorder) -> Result<()> {
    let node = recorder.session.client().lookup(ROOT, "directory")?.nodeid;
    let fh = recorder.session.client().opendir(node)?.fh;
    // One for each entry, one or two to read the names of all.
    let budget = LISTED + 1..=LISTED + 2;
    let entries = recorder.step("READDIRPLUS of 20 entries", budget, |s| {
        Ok(s.client().readdirplus(node, fh, 0)?)
    })?;
    ensure!(entries.len() == LISTED + 2, "{} entries", entries.len());
    // Listed and not looked up, it holds no descriptor: it is held, looked at and opened.
    let listed = entries.iter().filter(|entry| entry.name == b"0");
    let listed = listed.filter_map(|entry| entry.entry).next();
    let file = listed.context("the entry of a file")?.nodeid;
    let open = recorder.step("OPEN, no descriptor yet", 3..=3, |s| {
        Ok(s.client().open(file, 0)?.fh)
    })?;
    recorder.step("OPEN again", 1..=1, |s| Ok(s.client().open(file, 0)?.fh))?;
    // What was read and closed rests for a moment, and is then had for nothing.
    recorder.step("RELEASE and OPEN, for reading", 0..=0, |s| {
        s.client().release(file, open)?;
        Ok(s.client().open(file, 0)?.fh)
    })?;
    recorder.session.client().releasedir(node, fh)?;
    recorder.step("OPENDIR", 1..=1, |s| Ok(s.client().opendir(node)?))?;
    Ok(())
}

/// Creation, by root and by somebody else.
fn creation(recorder: &mut Recorder) -> Result<()> {
    let create = |name: &'static str, mode: u32| {
        move |s: &mut Session| {
            let made = s.client().create(ROOT, name, 1, mode)?;
            Ok((made.entry.nodeid, made.open.fh))
        }
    };
    let (node, fh) = recorder.step("CREATE, uid 0", 2..=2, create("of-root", 0o644))?;
    recorder.session.client().release(node, fh)?;
    // Never opened but to be made, it is held before its name goes.
    recorder.step("UNLINK, no descriptor yet", 2..=2, |s| {
        Ok(s.client().unlink(ROOT, "of-root")?)
    })?;
    recorder.session.client().caller = Caller {
        uid: 1000,
        gid: 1000,
        pid: 1,
    };
    // Longer than a directory is believed to be as it was.
    std::thread::sleep(Duration::from_millis(150));
    recorder.step(
        "CREATE, uid 1000, first of some",
        4..=4,
        create("first", 0o644),
    )?;
    // Looked at right before, which is one of the four, the directory is believed.
    recorder.step("GETATTR and CREATE, uid 1000", 4..=4, |s| {
        s.client().getattr(ROOT)?;
        create("next", 0o644)(s)
    })?;
    recorder.including_what_follows();
    recorder.step("CREATE, uid 1000, set-id", 6..=6, create("setid", 0o4755))?;
    recorder.session.client().caller = Caller::default();
    Ok(())
}

/// SETATTR, and what a write costs that takes privileges away.
fn changes(recorder: &mut Recorder) -> Result<()> {
    let node = recorder.session.client().lookup(ROOT, "known")?.nodeid;
    let fh = recorder.session.client().open(node, 2)?.fh;
    let set = |arguments: SetattrIn| {
        move |s: &mut Session| Ok(s.client().setattr(node, &arguments).map(drop)?)
    };
    let mode = SetattrIn {
        valid: fattr::MODE,
        mode: 0o600,
        ..SetattrIn::new_zeroed()
    };
    recorder.step("SETATTR mode", 2..=2, set(mode))?;
    let size = SetattrIn {
        valid: fattr::SIZE,
        size: 5000,
        ..SetattrIn::new_zeroed()
    };
    recorder.step("SETATTR size", 2..=2, set(size))?;
    let of_file = SetattrIn {
        valid: fattr::SIZE | fattr::FH,
        fh,
        size: 4000,
        ..SetattrIn::new_zeroed()
    };
    recorder.step("SETATTR size of an open file", 2..=2, set(of_file))?;
    // What capabilities the thread has is asked once in its life.
    let write = |s: &mut Session| {
        let arguments = WriteIn {
            fh,
            size: 1,
            write_flags: WRITE_KILL_SUIDGID,
            ..WriteIn::new_zeroed()
        };
        s.client()
            .call(&Request::write_with(node, &arguments, b"x"))?;
        Ok(())
    };
    write(&mut recorder.session)?;
    recorder.step("WRITE with kill-privileges", 3..=3, write)?;
    recorder.session.client().release(node, fh)?;
    Ok(())
}

fn report(steps: &[Step], calls: &[Call]) -> Vec<String> {
    let mut excesses = Vec::new();
    for step in steps {
        let counted = paid(calls, step.begin_secs..step.end_secs, step.counted);
        println!("{:32} {}", step.what, counted.len());
        if !step.budget.contains(&counted.len()) {
            let lines: Vec<&str> = counted.iter().map(|call| call.line.as_str()).collect();
            excesses.push(format!(
                "{}: {} calls\n{}",
                step.what,
                counted.len(),
                lines.join("\n")
            ));
        }
    }
    excesses
}

/// The queue's thread tries, refuses to sleep, and another thread reads.
#[test]
fn a_read_of_what_is_not_in_memory_is_tried_once_and_then_made_by_another_thread() -> Result<()> {
    if !Trace::is_available() {
        skipped("needs strace");
        return Ok(());
    }
    let Some(store) = store::Store::ext4() else {
        return Ok(());
    };
    let path = store.path().join("file");
    std::fs::write(&path, vec![7; 64 << 10])?;
    let daemon = Launch::new(store.path())
        .arg("--seccomp")
        .arg("none")
        .start()?;
    let mut session = Session::open(daemon.socket())?;
    let node = session.client().lookup(ROOT, "file")?.nodeid;
    let fh = session.client().open(node, 0)?.fh;
    let file = std::fs::File::open(&path)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let trace = Trace::attach(daemon.pid(), daemon.scratch())?;
    std::thread::sleep(PAUSE);
    let bytes = session.client().read(node, fh, 0, PAGE)?;
    ensure!(bytes == [7; 4096]);
    std::thread::sleep(PAUSE);
    let calls = trace.finish()?;
    let reads: Vec<&Call> = calls
        .iter()
        .filter(|call| call.name.starts_with("pread") && !call.line.contains("[eventfd]"))
        .collect();
    let lines: Vec<&str> = reads.iter().map(|call| call.line.as_str()).collect();
    ensure!(reads.len() == 2, "{lines:?}");
    ensure!(
        lines[0].contains("RWF_NOWAIT") && lines[0].contains("EAGAIN"),
        "{lines:?}"
    );
    ensure!(!lines[1].contains("RWF_NOWAIT"), "{lines:?}");
    let thread = |line: &str| line.split_whitespace().next().map(str::to_owned);
    ensure!(thread(lines[0]) != thread(lines[1]), "{lines:?}");
    Ok(())
}

#[test]
fn each_request_costs_the_system_calls_of_the_table() -> Result<()> {
    if !can_mount() || !Trace::is_available() {
        skipped("needs root and strace");
        return Ok(());
    }
    let share = share()?;
    let daemon = Launch::new(share.path())
        .arg("--seccomp")
        .arg("none")
        .start()?;
    let mut session = Session::open(daemon.socket())?;
    warm_up(&mut session)?;
    let trace = Trace::attach(daemon.pid(), daemon.scratch())?;
    let mut recorder = Recorder {
        session,
        steps: Vec::new(),
    };
    names(&mut recorder)?;
    contents(&mut recorder)?;
    directory(&mut recorder)?;
    creation(&mut recorder)?;
    changes(&mut recorder)?;
    std::thread::sleep(PAUSE);
    let calls = trace.finish()?;
    // A kick at least was read: the trace saw the daemon.
    ensure!(calls.iter().any(Call::is_waiting), "strace saw nothing");
    let excesses = report(&recorder.steps, &calls);
    ensure!(excesses.is_empty(), "{}", excesses.join("\n"));
    Ok(())
}

/// Names of which a directory is read once, and not for each.
const MANY: usize = 20_000;

/// `--casefold`: another spelling is found in what was read of the directory before, however large it is.
fn spellings(recorder: &mut Recorder) -> Result<()> {
    recorder.step("LOOKUP in its own case", 1..=1, |s| {
        Ok(s.client().lookup(ROOT, "Name-1")?)
    })?;
    recorder.step("LOOKUP in another case", 4..=4, |s| {
        Ok(s.client().lookup(ROOT, "NAME-1")?)
    })?;
    recorder.step("LOOKUP, ENOENT in every case", 2..=2, |s| {
        ensure!(s.client().lookup(ROOT, "missing").is_err());
        Ok(())
    })?;
    let (node, fh) = recorder.step("CREATE of a name that is new", 5..=5, |s| {
        let made = s.client().create(ROOT, "New", 1, 0o644)?;
        Ok((made.entry.nodeid, made.open.fh))
    })?;
    recorder.session.client().release(node, fh)?;
    recorder.step("LOOKUP of what was made", 4..=5, |s| {
        Ok(s.client().lookup(ROOT, "NEW")?)
    })?;
    recorder.session.client().lookup(ROOT, "NAME-2")?;
    recorder.step("UNLINK in another case", 5..=5, |s| {
        Ok(s.client().unlink(ROOT, "NAME-2")?)
    })?;
    Ok(())
}

#[test]
fn a_name_in_another_case_costs_the_same_in_a_large_directory() -> Result<()> {
    if !can_mount() || !Trace::is_available() {
        skipped("needs root and strace");
        return Ok(());
    }
    let share = Tmpfs::new()?;
    for number in 0..MANY {
        std::fs::write(share.path().join(format!("Name-{number}")), b"")?;
    }
    let daemon = Launch::new(share.path())
        .arg("--seccomp")
        .arg("none")
        .arg("--casefold")
        .arg("unicode")
        .start()?;
    let mut session = Session::open(daemon.socket())?;
    session.client().lookup(ROOT, "Name-1")?;
    // What was read as it changed is read once more.
    std::thread::sleep(PAUSE);
    session.client().lookup(ROOT, "NAME-1")?;
    let trace = Trace::attach(daemon.pid(), daemon.scratch())?;
    let mut recorder = Recorder {
        session,
        steps: Vec::new(),
    };
    spellings(&mut recorder)?;
    std::thread::sleep(PAUSE);
    let calls = trace.finish()?;
    ensure!(calls.iter().any(Call::is_waiting), "strace saw nothing");
    let excesses = report(&recorder.steps, &calls);
    ensure!(excesses.is_empty(), "{}", excesses.join("\n"));
    Ok(())
}
