//! Real guests: a Linux kernel of its own that mounts the share with its
//! virtio-fs driver, without KVM.
//!
//! [`Guest`] boots one of the [`Machine`]s, runs a script over the mount and
//! hands back what it printed and how it ended. Everything that runs comes
//! from Debian packages ([`packages`]), unpacked into a [`cache`]; nothing is
//! installed on this machine. `docs/GUESTS.md` is the manual.
//!
//! A guest is not trusted to end: every run has a time limit, and everything
//! it started is killed with it.

pub mod cache;
pub mod demo;
pub mod initramfs;
pub mod machine;
pub mod packages;
pub mod programs;
pub mod root;
mod run;
pub mod scenarios;
pub mod share;
pub mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use initramfs::Archive;
use machine::{Hardware, Kernel};
use programs::Program;

pub use machine::Machine;

/// What a test needs and this machine cannot have: a reason to skip the test.
#[derive(Debug, thiserror::Error)]
#[error("not to be had here: {0}")]
pub struct Unavailable(pub String);

/// What the guest's programs live on. The share is mounted at `/mnt` in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// busybox and nothing else.
    Busybox,
    /// A Debian system with compiler, git and test programs ([`root`]), under
    /// an overlay that is thrown away.
    Debian,
}

/// What a script did in a guest.
#[derive(Clone, Debug)]
pub struct GuestOutcome {
    /// The script's exit code.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
    /// What the guest's kernel printed, and what its monitor said.
    pub console: String,
    /// Time from the start of the monitor to the start of the script.
    pub boot: Duration,
}

/// The first process of the guest.
const INIT: &str = include_str!("../../guest/init.sh");

/// A guest that is about to be started.
#[derive(Clone, Debug)]
pub struct Guest {
    machine: Machine,
    kernel: Kernel,
    hardware: Hardware,
    root: Root,
    tag: String,
    programs: Vec<Program>,
}

impl Guest {
    /// A guest on this machine, its packages fetched; [`Unavailable`] where
    /// they cannot be had.
    pub fn new(machine: Machine) -> Result<Self> {
        packages::busybox()?;
        Ok(Self {
            machine,
            kernel: machine.kernel()?,
            hardware: Hardware::default(),
            root: Root::Busybox,
            tag: share::TAG.to_owned(),
            programs: Vec::new(),
        })
    }

    /// How much memory it has; 512 MiB by default.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.hardware.memory_mib = mib;
        self
    }

    /// How many request queues and processors it has, where the monitor has
    /// more than one; one by default.
    #[must_use]
    pub fn request_queues(mut self, count: u16) -> Self {
        self.hardware.request_queues = count;
        self
    }

    /// One more option on the command line of its kernel.
    #[must_use]
    pub fn kernel_option(mut self, option: &str) -> Self {
        self.hardware.kernel_options.push(option.to_owned());
        self
    }

    /// The daemon to connect to, and the tag that the guest mounts.
    #[must_use]
    pub fn share(mut self, socket: &Path, tag: &str) -> Self {
        self.hardware.socket = socket.to_path_buf();
        tag.clone_into(&mut self.tag);
        self
    }

    /// What it lives on; busybox by default.
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// Puts a program into the guest, as `/job/NAME`.
    #[must_use]
    pub fn program(mut self, program: Program) -> Self {
        self.programs.push(program);
        self
    }

    /// Boots, mounts the share at `/mnt`, runs `script` there with a shell
    /// and ends.
    ///
    /// A guest that does not reach the script's end within `limit` is an
    /// error that shows what was printed so far.
    pub fn run(&self, script: &str, limit: Duration) -> Result<GuestOutcome> {
        let place = TempDir::new()?;
        let prepared = self.prepare(place.path(), script, Attendance::Unattended)?;
        run::unattended(prepared, limit)
            .with_context(|| format!("a script in a guest on {}", self.machine))
    }

    /// Boots, mounts the share at `/mnt` and hands the guest's console to
    /// whoever is at this terminal, until they leave the shell.
    pub fn shell(&self) -> Result<()> {
        let place = TempDir::new()?;
        let prepared = self.prepare(place.path(), "", Attendance::Interactive)?;
        run::attended(prepared)
    }

    fn prepare(&self, place: &Path, script: &str, attendance: Attendance) -> Result<run::Prepared> {
        let marker = run::marker()?;
        let initrd = place.join("initrd");
        let archive = self.initramfs(script, &marker, attendance)?;
        std::fs::write(&initrd, archive.finish())?;
        let files = Files {
            place: place.to_path_buf(),
            channel: place.join("channel"),
            initrd,
            disk: match self.root {
                Root::Busybox => None,
                Root::Debian => Some(root::debian()?),
            },
        };
        std::fs::write(&files.channel, "")?;
        Ok(run::Prepared {
            command: self
                .machine
                .command(&self.kernel, &self.hardware, &files, attendance)?,
            channel: files.channel,
            console: place.join("console"),
            marker,
        })
    }

    fn initramfs(&self, script: &str, marker: &str, attendance: Attendance) -> Result<Archive> {
        let mut archive = Archive::default();
        for folder in [
            "bin", "dev", "job", "lib", "mnt", "newroot", "proc", "sys", "tmp", "etc",
        ] {
            archive = archive.directory(folder);
        }
        archive = archive
            // Linux opens it for the first process before anything is mounted.
            .character_device("dev/console", (5, 1))
            .copy("bin/busybox", &packages::busybox()?)?
            .symlink("bin/sh", "busybox")
            .file("etc/passwd", ACCOUNTS.as_bytes())
            .file("init", INIT.as_bytes())
            .file("job/settings", self.settings(marker, attendance).as_bytes())
            .file("job/lib.sh", scenarios::LIBRARY.as_bytes())
            .file("job/script", script.as_bytes());
        for (name, module) in self.kernel.modules()? {
            archive = archive.file(&format!("lib/{name}.ko"), &module);
        }
        for program in &self.programs {
            archive = archive.copy(&format!("job/{}", program.name()), &program.path()?)?;
        }
        Ok(archive)
    }

    /// What the first process reads, as assignments of the shell.
    fn settings(&self, marker: &str, attendance: Attendance) -> String {
        let root = match self.root {
            Root::Busybox => "busybox",
            Root::Debian => "debian",
        };
        let attended = match attendance {
            Attendance::Unattended => "no",
            Attendance::Interactive => "yes",
        };
        format!(
            "MARKER={marker}\nTAG='{}'\nROOT={root}\nATTENDED={attended}\n\
             MODULES='{}'\nCHANNEL={}\nDISK={}\nCONSOLE={}\n",
            self.tag,
            machine::MODULES.join(" "),
            self.machine.channel(),
            self.machine.disk(),
            self.machine.console(),
        )
    }
}

/// Users that scripts may switch to.
const ACCOUNTS: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
";

/// Who is at the guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// Nobody: a script runs and the guest ends.
    Unattended,
    /// Somebody at this process's terminal.
    Interactive,
}

/// Files of one run.
#[derive(Debug)]
pub struct Files {
    place: PathBuf,
    channel: PathBuf,
    initrd: PathBuf,
    disk: Option<PathBuf>,
}
