//! The daemon as the only program of a container, made by a real runtime (`runc`).
//!
//! A container here is what an orchestrator makes of a pod: a root file system that is only read, with
//! the static daemon and nothing else in it, the share and the socket's directory mounted into it, and
//! no more capabilities than stated. Nothing else is started to prepare it.

mod bundle;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::bridge::share::run_within;

/// The user who runs the runtime where root does not.
pub const ORDINARY: u32 = 1000;

/// What the host calls root of a container whose ids are mapped.
pub const MAPPED_ROOT: u32 = 100_000;

/// How long the runtime may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// Who runs the runtime, and what the container's ids are on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Root; ids are those of the host.
    Root,
    /// Root; 65536 ids from [`MAPPED_ROOT`] on, in a user namespace.
    Mapped,
    /// [`ORDINARY`], who is root inside a user namespace and knows nobody else.
    Rootless,
}

/// Most that a container may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of memory, in bytes.
    pub memory_bytes: u64,
    /// Of a processor, in percent.
    pub cpu_percent: u32,
}

/// A container that is to be made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Who runs the runtime.
    pub engine: Engine,
    /// The container's user and group.
    pub uid: u32,
    /// The capabilities it has: effective, permitted and bounding, without `CAP_`.
    pub capabilities: &'static [&'static str],
    /// What it may use, if that is limited.
    pub limits: Option<Limits>,
    /// What follows `--socket-path` and `--shared-dir`.
    pub arguments: Vec<String>,
}

impl Recipe {
    /// No capability, no limit.
    #[must_use]
    pub fn new(engine: Engine, uid: u32, arguments: &[&str]) -> Self {
        Self {
            engine,
            uid,
            capabilities: &[],
            limits: None,
            arguments: arguments.iter().map(ToString::to_string).collect(),
        }
    }

    /// With capabilities.
    #[must_use]
    pub fn with(mut self, capabilities: &'static [&'static str]) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// What the host calls an id of the container.
    #[must_use]
    pub fn host_id(&self, inside: u32) -> u32 {
        match self.engine {
            Engine::Root => inside,
            Engine::Mapped => MAPPED_ROOT + inside,
            Engine::Rootless => ORDINARY,
        }
    }
}

/// Why no container can be made here, if so.
#[must_use]
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can run containers as each user".to_owned());
    }
    if let Err(error) = Command::new("runc").arg("--version").output() {
        return Some(format!("runc: {error}"));
    }
    static_daemon().err().map(|error| format!("{error:#}"))
}

/// The daemon that needs no other file: `$VIRTIOFSD_STATIC`, which `cargo xtask test` builds and sets.
pub fn static_daemon() -> Result<PathBuf> {
    let path = std::env::var_os("VIRTIOFSD_STATIC").context("VIRTIOFSD_STATIC names no daemon")?;
    Ok(path.into())
}

/// A container whose daemon listens; dropping it ends it.
#[derive(Debug)]
pub struct Container {
    runtime: Child,
    recipe: Recipe,
    id: String,
    place: TempDir,
}

impl Container {
    /// Makes it around `share`, which is given to its user, and waits for its socket.
    pub fn start(recipe: Recipe, share: &Path) -> Result<Self> {
        let place = TempDir::new()?;
        bundle::write(&recipe, place.path(), share)?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("virtiofsd-test-{}-{number}", std::process::id());
        let log = File::create(place.path().join("log"))?;
        let bundle = place.path().join("bundle");
        let pid_file = place.path().join("state/pid");
        let mut command = runtime(recipe.engine, place.path());
        command.arg("run").arg("--bundle").arg(&bundle);
        command.arg("--pid-file").arg(pid_file).arg(&id);
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        let runtime = command.stderr(log).spawn().context("run runc")?;
        let mut container = Self {
            runtime,
            recipe,
            id,
            place,
        };
        let deadline = Instant::now() + LIMIT;
        while !container.socket().exists() {
            if let Some(status) = container.runtime.try_wait()? {
                bail!("the container ended ({status}): {}", container.log());
            }
            ensure!(Instant::now() < deadline, "no socket: {}", container.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(container)
    }

    /// The daemon's socket, as the host sees it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.place.path().join("socket/vhost.sock")
    }

    /// What the runtime and the daemon have said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.place.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The container's first process, which is the daemon.
    pub fn pid(&self) -> Result<u32> {
        // The runtime writes it when the daemon has been let go.
        let deadline = Instant::now() + LIMIT;
        let path = self.place.path().join("state/pid");
        loop {
            if let Ok(pid) = fs::read_to_string(&path).unwrap_or_default().trim().parse() {
                return Ok(pid);
            }
            ensure!(Instant::now() < deadline, "no pid: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it was made.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Waits for the daemon, and with it the container, to end by itself.
    pub fn exit(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.runtime.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "still running: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut delete = runtime(self.recipe.engine, self.place.path());
        delete.args(["delete", "--force", &self.id]);
        // An ended container is gone already: then this fails, and nothing is left.
        let _ = run_within(LIMIT, &mut delete);
        let _ = self.runtime.kill();
        let _ = self.runtime.wait();
    }
}

/// The runtime as its user starts it, with a state directory of its own.
fn runtime(engine: Engine, place: &Path) -> Command {
    let state = place.join("state");
    let words: &[&str] = match engine {
        Engine::Root | Engine::Mapped => &["runc"],
        Engine::Rootless => &[
            "setpriv",
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "runc",
        ],
    };
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args([OsStr::new("--root"), state.as_os_str()])
        .env("XDG_RUNTIME_DIR", &state);
    command
}
