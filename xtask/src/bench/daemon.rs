//! One running daemon and the directory that it shares.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use virtiofs_testkit::slowfs::SlowFs;

use super::peers::{Kernel, Peer};
use super::processes::Tree;

/// Where memory is a file system; metadata is measured there, not the disk.
pub(super) const TMPFS: &str = "/dev/shm";

/// How long a daemon may take to listen.
const START_LIMIT: Duration = Duration::from_secs(5);

/// A daemon that serves until it is dropped.
pub(super) struct Daemon {
    pub(super) label: &'static str,
    pub(super) what: &'static str,
    pub(super) socket: PathBuf,
    pub(super) share: PathBuf,
    child: Child,
    _folder: TempDir,
    _store: Option<SlowFs>,
}

impl Daemon {
    /// Starts it on an empty directory and waits until it listens.
    pub(super) fn start(peer: &Peer) -> Result<Self> {
        Self::start_on(peer, |_| Ok(None))
    }

    /// The same, with more arguments.
    pub(super) fn start_with(peer: &Peer, more: &[&str]) -> Result<Self> {
        Self::start_as(peer, more, |_| Ok(None))
    }

    /// The same, on what is mounted on that directory first.
    pub(super) fn start_on(
        peer: &Peer,
        mount: impl FnOnce(&Path) -> Result<Option<SlowFs>>,
    ) -> Result<Self> {
        Self::start_as(peer, &[], mount)
    }

    fn start_as(
        peer: &Peer,
        more: &[&str],
        mount: impl FnOnce(&Path) -> Result<Option<SlowFs>>,
    ) -> Result<Self> {
        let folder = TempDir::with_prefix_in("virtiofsd-bench-", TMPFS)?;
        let socket = folder.path().join("socket");
        let share = folder.path().join("share");
        fs::create_dir(&share)?;
        let store = mount(&share)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = program(peer);
        for argument in peer.arguments {
            command.arg(
                argument
                    .replace("SOCKET", &socket.to_string_lossy())
                    .replace("SHARE", &share.to_string_lossy()),
            );
        }
        let child = command
            .args(more)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", peer.program.display()))?;
        let (label, what) = (peer.label, peer.what);
        let mut daemon = Self {
            label,
            what,
            socket,
            share,
            child,
            _folder: folder,
            _store: store,
        };
        daemon.await_socket()?;
        if peer.kernel == Kernel::WithoutLandlock {
            let_go(daemon.child.id())?;
        }
        Ok(daemon)
    }

    fn await_socket(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.socket.exists() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "it does not listen on {}: {}",
                    self.socket.display(),
                    self.last_words()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = self.socket.with_file_name("log");
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// Its processes.
    pub(super) fn tree(&self) -> Tree {
        Tree::new(self.child.id())
    }
}

/// What is started: the daemon, or what starts it.
fn program(peer: &Peer) -> Command {
    match peer.kernel {
        Kernel::AsItIs => Command::new(&peer.program),
        Kernel::WithoutLandlock => {
            let mut strace = Command::new("strace");
            // The tracer is no parent of the daemon, which stays the child that was started.
            // It lets go when it is told to; by default it would not, as its output is a file.
            strace.args(["-D", "-I2", "-f", "-qq", "--output=/dev/null"]);
            strace.arg("--trace=landlock_create_ruleset");
            strace.arg("--inject=landlock_create_ruleset:error=ENOSYS");
            strace.arg(&peer.program);
            strace
        }
    }
}

/// Ends what traces a process, which goes on by itself.
fn let_go(pid: u32) -> Result<()> {
    let tracer = || -> Result<String> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = |line: &str| Some(line.strip_prefix("TracerPid:")?.trim().to_owned());
        status.lines().find_map(line).context("no TracerPid")
    };
    let by = tracer()?;
    ensure!(by != "0", "nothing traces it, so it has found Landlock");
    Command::new("kill").args(["-TERM", &by]).status()?;
    let deadline = Instant::now() + START_LIMIT;
    while tracer()? != "0" {
        ensure!(Instant::now() < deadline, "strace does not let go");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The whole group: a sandbox may have forked.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
