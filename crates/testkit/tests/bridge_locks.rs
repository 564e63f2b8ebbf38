//! Locks between processes in a share and on the host, as the host's own kernel sends them through the bridge.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, on_tmpfs, run_within};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::program;

const BOTH: [&str; 2] = ["--posix-lock", "--flock"];
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a process to be inside its call.
const PAUSE: Duration = Duration::from_millis(200);

/// What a process does about a lock of bytes 10 to 19, or of the whole file where it is a flock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// `fcntl(2)`.
    Posix,
    /// `fcntl(2)`, of the open file description.
    Ofd,
    /// `flock(2)`.
    Flock,
}

impl Call {
    fn word(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::Ofd => "ofd",
            Self::Flock => "flock",
        }
    }
}

/// Arguments: file, family, what to do. Says `begins`, then `held` and keeps the lock until its
/// standard input ends, or the error's name; `ask` says who is in the way.
const LOCKER: &str = r#"
import errno, fcntl, os, signal, struct, sys
path, family, what = sys.argv[1:]
file = os.open(path, os.O_RDWR)
layout = "hhqqi4x"
def lock(command):
    return struct.unpack(layout, fcntl.fcntl(file, command, struct.pack(layout, fcntl.F_WRLCK, 0, 10, 10, 0)))
def woken(*_):
    raise InterruptedError(errno.EINTR, "woken")
signal.signal(signal.SIGUSR1, woken)
print("begins", flush=True)
try:
    if what == "ask":
        kind, _, start, len, pid = lock(fcntl.F_GETLK)
        print("free" if kind == fcntl.F_UNLCK else f"{start} {len} {pid}")
        sys.exit()
    wait = what == "wait"
    if family == "flock":
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    elif family == "ofd":
        lock(38 if wait else 37)
    else:
        lock(fcntl.F_SETLKW if wait else fcntl.F_SETLK)
except OSError as error:
    print(errno.errorcode[error.errno])
    sys.exit()
print("held", flush=True)
sys.stdin.read()
"#;

/// A process that wants a lock.
struct Locker {
    child: Child,
    input: Option<ChildStdin>,
    says: BufReader<std::process::ChildStdout>,
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Locker {
    fn start(file: &Path, call: Call, what: &str) -> Result<Self> {
        let mut python = Command::new("python3");
        python.arg("-c").arg(LOCKER).arg(file);
        python.args([call.word(), what]);
        let mut child = python
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3")?;
        let says = BufReader::new(child.stdout.take().context("its output")?);
        let mut locker = Self {
            input: child.stdin.take(),
            child,
            says,
        };
        ensure!(locker.says()? == "begins");
        Ok(locker)
    }

    fn says(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Tries once: `held`, or the error.
    fn tries(file: &Path, call: Call) -> Result<String> {
        Self::start(file, call, "try")?.says()
    }

    /// Takes a lock that is free.
    fn holds(file: &Path, call: Call) -> Result<Self> {
        let mut locker = Self::start(file, call, "try")?;
        let said = locker.says()?;
        ensure!(said == "held", "{call:?}: {said}");
        Ok(locker)
    }

    /// Begins to wait for a lock that is held.
    fn waits(file: &Path, call: Call) -> Result<Self> {
        let mut locker = Self::start(file, call, "wait")?;
        std::thread::sleep(PAUSE);
        ensure!(locker.child.try_wait()?.is_none(), "it does not wait");
        Ok(locker)
    }

    /// Ends in order, which closes its file.
    fn ends(mut self) -> Result<()> {
        drop(self.input.take());
        self.is_gone()
    }

    fn is_gone(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).context("a process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }
}

fn share(arguments: &[&str]) -> Result<Option<(Tmpfs, BridgedShare)>> {
    let made = on_tmpfs(arguments)?;
    if let Some((shared, _)) = &made {
        fs::write(shared.path().join("file"), [7; 100])?;
    }
    Ok(made)
}

/// A lock becomes free at once, or when the RELEASE that ends it has arrived: nobody waits for that one.
fn becomes_free(file: &Path, call: Call) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while Locker::tries(file, call)? != "held" {
        ensure!(Instant::now() < deadline, "{call:?}: still held");
    }
    Ok(())
}

#[test]
fn processes_in_the_share_and_on_the_host_exclude_one_another() -> Result<()> {
    let Some((shared, share)) = share(&BOTH)? else {
        return Ok(());
    };
    let (host, here) = (shared.path().join("file"), share.path().join("file"));
    for call in [Call::Posix, Call::Ofd, Call::Flock] {
        for (holder, other) in [(&host, &here), (&here, &host), (&here, &here)] {
            let held = Locker::holds(holder, call)?;
            let said = Locker::tries(other, call)?;
            ensure!(said == "EAGAIN", "{call:?} {holder:?} {other:?}: {said}");
            let mut waits = Locker::waits(other, call)?;
            held.ends()?;
            ensure!(waits.says()? == "held", "{call:?} {holder:?} {other:?}");
            waits.ends()?;
            becomes_free(holder, call)?;
            becomes_free(other, call)?;
        }
    }
    share.finish()
}

#[test]
fn without_the_options_locks_stay_in_the_guest() -> Result<()> {
    let Some((shared, share)) = share(&[])? else {
        return Ok(());
    };
    let (host, here) = (shared.path().join("file"), share.path().join("file"));
    for call in [Call::Posix, Call::Flock] {
        let held = Locker::holds(&here, call)?;
        ensure!(Locker::tries(&host, call)? == "held", "{call:?}");
        ensure!(Locker::tries(&here, call)? == "EAGAIN", "{call:?}");
        held.ends()?;
    }
    share.finish()
}

#[test]
fn the_flock_command_works_in_a_share_and_beside_it() -> Result<()> {
    let Some((shared, share)) = share(&BOTH)? else {
        return Ok(());
    };
    let (host, here) = (shared.path().join("file"), share.path().join("file"));
    let flock = |file: &Path, arguments: &[&str]| {
        let mut command = Command::new("flock");
        command.args(arguments).arg(file).arg("true");
        Ok::<_, anyhow::Error>(run_within(LIMIT, &mut command)?.status.code())
    };
    let held = Locker::holds(&host, Call::Flock)?;
    ensure!(flock(&here, &["--nonblock"])? == Some(1));
    ensure!(
        flock(&here, &["--shared", "--wait", "0.2"])? == Some(1),
        "the alarm ends its wait"
    );
    held.ends()?;
    ensure!(flock(&here, &[])? == Some(0));
    becomes_free(&host, Call::Flock)?;
    share.finish()
}

#[test]
fn who_is_in_the_way_is_named_where_it_is_a_process_of_the_share() -> Result<()> {
    let Some((shared, share)) = share(&BOTH)? else {
        return Ok(());
    };
    let (host, here) = (shared.path().join("file"), share.path().join("file"));
    let ask = || Locker::start(&here, Call::Posix, "ask")?.says();
    ensure!(ask()? == "free");
    let held = Locker::holds(&here, Call::Posix)?;
    let want = format!("10 10 {}", held.child.id());
    ensure!(ask()? == want, "{} {want}", ask()?);
    held.ends()?;
    let held = Locker::holds(&host, Call::Posix)?;
    ensure!(ask()? == "10 10 0", "{}", ask()?);
    held.ends()?;
    share.finish()
}

/// A signal that kills, and one that a program handles.
#[test]
fn a_signal_ends_a_wait_at_once_and_takes_no_lock() -> Result<()> {
    let Some((shared, share)) = share(&BOTH)? else {
        return Ok(());
    };
    let (host, here) = (shared.path().join("file"), share.path().join("file"));
    for call in [Call::Posix, Call::Flock] {
        for _ in 0..5 {
            let held = Locker::holds(&host, call)?;
            let mut killed = Locker::waits(&here, call)?;
            let mut woken = Locker::waits(&here, call)?;
            let stays = Locker::waits(&here, call)?;
            killed.signal(rustix::process::Signal::KILL)?;
            woken.signal(rustix::process::Signal::USR1)?;
            killed.is_gone().with_context(|| format!("{call:?}"))?;
            let said = woken.says()?;
            ensure!(said == "EINTR", "{call:?}: {said}");
            held.ends()?;
            let mut stays = stays;
            ensure!(stays.says()? == "held", "{call:?}");
            stays.ends()?;
            becomes_free(&host, call)?;
        }
    }
    share.finish()
}

#[test]
fn a_process_that_is_killed_leaves_no_lock() -> Result<()> {
    let Some((shared, share)) = share(&BOTH)? else {
        return Ok(());
    };
    let (host, here) = (shared.path().join("file"), share.path().join("file"));
    for call in [Call::Posix, Call::Ofd, Call::Flock] {
        let mut held = Locker::holds(&here, call)?;
        ensure!(Locker::tries(&host, call)? == "EAGAIN", "{call:?}");
        held.signal(rustix::process::Signal::KILL)?;
        held.is_gone()?;
        becomes_free(&host, call)?;
    }
    share.finish()
}

/// A share of a share: the store is a FUSE mount, whose calls sleep, and a wait there is interrupted through both.
#[test]
fn locks_reach_through_a_store_that_asks_somebody_else() -> Result<()> {
    let Some((shared, below)) = share(&BOTH)? else {
        return Ok(());
    };
    let launch = Launch::new(below.path()).sandbox("chroot");
    let launch = launch.arg(BOTH[0]).arg(BOTH[1]);
    let above = BridgedShare::start(launch, &BridgeOptions::default())?;
    let (host, here) = (shared.path().join("file"), above.path().join("file"));
    for call in [Call::Posix, Call::Flock] {
        let held = Locker::holds(&host, call)?;
        ensure!(Locker::tries(&here, call)? == "EAGAIN", "{call:?}");
        let mut killed = Locker::waits(&here, call)?;
        let mut waits = Locker::waits(&here, call)?;
        fs::metadata(above.path())?;
        killed.signal(rustix::process::Signal::KILL)?;
        killed.is_gone().with_context(|| format!("{call:?}"))?;
        held.ends()?;
        ensure!(waits.says()? == "held", "{call:?}");
        ensure!(Locker::tries(&host, call)? == "EAGAIN", "{call:?}");
        waits.ends()?;
        becomes_free(&host, call)?;
    }
    above.finish()?;
    below.finish()
}

/// Whatever the process in the share has opened it for: its owner may want to write through another descriptor.
#[test]
fn a_file_is_open_for_writing_on_the_host_while_a_range_is_locked() -> Result<()> {
    let Some((shared, share)) = share(&BOTH)? else {
        return Ok(());
    };
    let program = shared.path().join("program");
    program::copy("/bin/true", &program)?;
    let runs = || Command::new(&program).status();
    ensure!(runs()?.success());
    let script = "import fcntl, sys
file = open(sys.argv[1], 'rb')
fcntl.lockf(file, fcntl.LOCK_SH)
print('held', flush=True)
sys.stdin.read()";
    let here = share.path().join("program");
    let mut reads = python(script, &[here.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let output = reads.stdout.take().context("its output")?;
    BufReader::new(output).read_line(&mut said)?;
    ensure!(said.trim() == "held", "{said}");
    let busy = runs().err().and_then(|error| error.raw_os_error());
    drop(reads.stdin.take());
    ensure!(reads.wait()?.success());
    ensure!(
        busy == Some(rustix::io::Errno::TXTBSY.raw_os_error()),
        "{busy:?}"
    );
    // The kernel tells the daemon of a close once the process has gone on.
    let deadline = Instant::now() + LIMIT;
    while runs().is_err() {
        ensure!(Instant::now() < deadline, "still open for writing");
    }
    share.finish()
}

/// Arguments: database, name, rounds. Adds one to a counter and a line to a table in each transaction.
const WRITER: &str = r#"
import sqlite3, sys
path, name, rounds = sys.argv[1:]
db = sqlite3.connect(path, timeout=60, isolation_level=None)
for number in range(int(rounds)):
    db.execute("BEGIN IMMEDIATE")
    count, = db.execute("SELECT count FROM counter").fetchone()
    db.execute("INSERT INTO lines VALUES (?, ?, ?)", (name, number, "x" * 500))
    db.execute("UPDATE counter SET count = ?", (count + 1,))
    db.execute("COMMIT")
db.close()
"#;

/// Arguments: database. Makes it, or says what is in it.
const MAKE: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE counter (count INTEGER)")
db.execute("INSERT INTO counter VALUES (0)")
db.execute("CREATE TABLE lines (name TEXT, number INTEGER, filler TEXT, UNIQUE (name, number))")
db.commit()
"#;
const JUDGE: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("PRAGMA integrity_check").fetchone()[0],
      db.execute("SELECT count FROM counter").fetchone()[0],
      db.execute("SELECT count(*) FROM lines").fetchone()[0])
"#;

fn python(script: &str, arguments: &[&std::ffi::OsStr]) -> Command {
    let mut python = Command::new("python3");
    python.arg("-c").arg(script).args(arguments);
    python
}

/// Two daemons with a mount each, two processes in each and one on the host itself, one database.
#[test]
fn processes_in_two_guests_and_on_the_host_share_a_database() -> Result<()> {
    const ROUNDS: usize = 60;
    let arguments = ["--posix-lock", "--cache=never"];
    let Some((shared, one)) = on_tmpfs(&arguments)? else {
        return Ok(());
    };
    let launch = arguments.iter().fold(
        Launch::new(shared.path()).sandbox("chroot"),
        |launch, argument| launch.arg(*argument),
    );
    let two = BridgedShare::start(launch, &BridgeOptions::default())?;
    let database = shared.path().join("database");
    let made = run_within(LIMIT, &mut python(MAKE, &[database.as_os_str()]))?;
    ensure!(made.status.success(), "{}", made.output);
    let places = [
        one.path(),
        one.path(),
        two.path(),
        two.path(),
        shared.path(),
    ];
    let rounds = ROUNDS.to_string();
    std::thread::scope(|scope| {
        let writers: Vec<_> = places
            .iter()
            .enumerate()
            .map(|(number, place)| {
                let (database, name) = (place.join("database"), number.to_string());
                let rounds = &rounds;
                scope.spawn(move || {
                    let arguments = [database.as_os_str(), name.as_ref(), rounds.as_ref()];
                    run_within(Duration::from_secs(120), &mut python(WRITER, &arguments))
                })
            })
            .collect();
        for writer in writers {
            let Ok(ran) = writer.join() else {
                bail!("a writer's thread panicked");
            };
            let ran = ran?;
            ensure!(ran.status.success(), "{}", ran.output);
        }
        Ok(())
    })?;
    let want = ROUNDS * places.len();
    for place in [shared.path(), one.path(), two.path()] {
        let judged = run_within(
            LIMIT,
            &mut python(JUDGE, &[place.join("database").as_os_str()]),
        )?;
        ensure!(
            judged.output.trim() == format!("ok {want} {want}"),
            "{place:?}: {}",
            judged.output
        );
    }
    one.finish()?;
    two.finish()
}
