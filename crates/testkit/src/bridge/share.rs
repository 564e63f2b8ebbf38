//! A directory, the daemon that serves it and the bridge that mounts it:
//! what a suite runs in.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::{Bridge, BridgeOptions};
use crate::frontend::{Daemon, Launch};

/// A tmpfs of one's own, unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs(TempDir);

impl Tmpfs {
    /// Mounts one; needs root.
    pub fn new() -> Result<Self> {
        let place = TempDir::new()?;
        mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), None).context("mount tmpfs")?;
        Ok(Self(place))
    }

    /// Its mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// A bridged share. Fields are dropped in this order: mount, daemon.
#[derive(Debug)]
pub struct BridgedShare {
    bridge: Bridge,
    daemon: Daemon,
    _mountpoint: TempDir,
}

impl BridgedShare {
    /// Starts the daemon and mounts what it serves.
    pub fn start(launch: Launch, options: &BridgeOptions) -> Result<Self> {
        let mountpoint = TempDir::new()?;
        let daemon = launch.start()?;
        let bridge = Bridge::mount(daemon.socket(), mountpoint.path(), options)
            .with_context(|| daemon.log())?;
        Ok(Self {
            bridge,
            daemon,
            _mountpoint: mountpoint,
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.bridge.path()
    }

    /// The daemon.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Unmounts; the daemon must then end by itself with exit code 0, and
    /// nothing may have gone against the protocol.
    pub fn finish(mut self) -> Result<()> {
        ensure!(
            self.daemon.is_running(),
            "the daemon ended: {}",
            self.daemon.log()
        );
        self.bridge.unmount().with_context(|| self.daemon.log())?;
        self.daemon.expect_exit(0, Duration::from_secs(10))
    }
}

/// A directory on a tmpfs of its own, and the same as the share shows it, served from the chroot sandbox with these
/// arguments; `None` after saying that the test was skipped.
pub fn on_tmpfs(arguments: &[&str]) -> Result<Option<(Tmpfs, BridgedShare)>> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(None);
    }
    let shared = Tmpfs::new()?;
    let launch = arguments.iter().fold(
        Launch::new(shared.path()).sandbox("chroot"),
        |launch, argument| launch.arg(*argument),
    );
    let share = BridgedShare::start(launch, &BridgeOptions::default())?;
    Ok(Some((shared, share)))
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output and error, as they came.
    pub output: String,
}

/// Runs a command for at most `limit`; one that takes longer is killed and an
/// error that shows its output.
pub fn run_within(limit: Duration, command: &mut Command) -> Result<Ran> {
    let file = tempfile::NamedTempFile::new()?;
    let mut child = command
        .stdin(Stdio::null())
        // One open file for both, so that neither overwrites the other.
        .stdout(file.as_file().try_clone()?)
        .stderr(file.as_file().try_clone()?)
        .spawn()
        .with_context(|| format!("run {command:?}"))?;
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait()?;
        let read = || {
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&std::fs::read(&file)?).into_owned())
        };
        if let Some(status) = status {
            let output = read()?;
            return Ok(Ran { status, output });
        }
        if Instant::now() > deadline {
            child.kill()?;
            bail!("{command:?} took over {limit:?}: {}", read()?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says that a test was skipped; fails it where nothing may be
/// (`VIRTIOFSD_NO_SKIP=1`).
///
/// # Panics
///
/// When skipping is forbidden.
pub fn skipped(why: &str) {
    println!("SKIPPED: {why}");
    let forbidden = std::env::var("VIRTIOFSD_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(
        !forbidden,
        "skipped, which VIRTIOFSD_NO_SKIP forbids: {why}"
    );
}

/// Whether this process may mount: root with CAP_SYS_ADMIN and `/dev/fuse`.
#[must_use]
pub fn can_mount() -> bool {
    Path::new("/dev/fuse").exists() && Tmpfs::new().is_ok()
}

/// A program from the registry, installed once into a cache directory:
/// `$VIRTIOFSD_TEST_CACHE`, or `~/.cache/virtiofsd-tests`.
pub fn installed_crate(name: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("VIRTIOFSD_TEST_CACHE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?)
            .join(".cache/virtiofsd-tests"),
    };
    let program = cache.join("bin").join(name);
    if program.exists() {
        return Ok(program);
    }
    let mut install = Command::new("cargo");
    install
        .args(["install", name, "--locked", "--root"])
        .arg(&cache);
    // Built apart: a workspace's settings are not meant for it.
    install.current_dir("/").env_remove("CARGO_TARGET_DIR");
    let ran = run_within(Duration::from_secs(900), &mut install)?;
    ensure!(ran.status.success(), "cargo install {name}: {}", ran.output);
    Ok(program)
}
