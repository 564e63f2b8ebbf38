//! Starts the daemon under test and ends it again.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How a daemon is to be started; `--sandbox` as `$VIRTIOFSD_SANDBOX` says, `none` unless something else is said.
#[derive(Debug)]
pub struct Launch {
    program: Option<PathBuf>,
    shared_dir: PathBuf,
    sandbox: Cow<'static, str>,
    arguments: Vec<OsString>,
    wrapper: Vec<OsString>,
    owner: Option<u32>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Launch {
    /// A daemon that serves `shared_dir`.
    #[must_use]
    pub fn new(shared_dir: &Path) -> Self {
        Self {
            program: None,
            shared_dir: shared_dir.to_path_buf(),
            sandbox: std::env::var("VIRTIOFSD_SANDBOX").map_or(Cow::Borrowed("none"), Cow::Owned),
            arguments: Vec::new(),
            wrapper: Vec::new(),
            owner: None,
            environment: Vec::new(),
        }
    }

    /// Chooses the daemon's binary; [`daemon_path`] by default.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_path_buf());
        self
    }

    /// Chooses the sandbox.
    #[must_use]
    pub fn sandbox(mut self, mode: &'static str) -> Self {
        self.sandbox = Cow::Borrowed(mode);
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Starts it through another program, which becomes it: `setpriv` with fewer rights, say.
    #[must_use]
    pub fn through(mut self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.wrapper.extend(command.into_iter().map(Into::into));
        self
    }

    /// Gives the directory of its socket to a user.
    #[must_use]
    pub fn owned_by(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Starts it and waits until its socket is there.
    pub fn start(self) -> Result<Daemon> {
        let place = TempDir::new()?;
        std::os::unix::fs::chown(place.path(), self.owner, self.owner)?;
        let socket = place.path().join("vhost.sock");
        let log = place.path().join("log");
        let output = File::create(&log)?;
        let program = self.program.map_or_else(daemon_path, Ok)?;
        let mut words = self.wrapper.iter().map(OsString::as_os_str);
        let mut command = match words.next() {
            None => Command::new(&program),
            Some(first) => Command::new(first),
        };
        if !self.wrapper.is_empty() {
            command.args(words).arg(&program);
        }
        let child = command
            .envs(self.environment.iter().copied())
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(&self.shared_dir)
            .args(["--sandbox", &self.sandbox])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut daemon = Daemon {
            child,
            place,
            socket,
            log,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !daemon.socket.exists() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("the daemon ended at once ({status}): {}", daemon.log());
            }
            ensure!(Instant::now() < deadline, "no socket: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(daemon)
    }
}

/// A running daemon; dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    place: TempDir,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Its vhost-user socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A directory of its own, outside the share, that goes with it.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.place.path()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves: in namespaces the child of the one that was started.
    pub fn server_pid(&self) -> Result<u32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.split_whitespace().next();
        child.map_or(Ok(pid), |child| Ok(child.parse()?))
    }

    /// What it has written to standard output and error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process")?;
        kill_process(pid, signal)?;
        Ok(())
    }

    /// Waits for it to end by itself.
    pub fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "still running: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for it to end and fails unless it was with that code.
    pub fn expect_exit(&mut self, code: i32, limit: Duration) -> Result<()> {
        let status = self.exit(limit)?;
        ensure!(
            status.code() == Some(code),
            "exit {code} expected, got {:?} (signal {:?}): {}",
            status.code(),
            status.signal(),
            self.log()
        );
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon's binary: `$VIRTIOFSD`, or the newer one of this workspace's
/// two builds.
pub fn daemon_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIRTIOFSD") {
        return Ok(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from);
    let builds = ["debug", "release"].map(|profile| target.join(profile).join("virtiofsd"));
    builds
        .into_iter()
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .context("no daemon: run `cargo build -p virtiofsd` or set VIRTIOFSD")
}
