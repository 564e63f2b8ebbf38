//! Leaving everything behind but the share.
//!
//! Complete before the first connection is accepted. A step that fails ends the start: no mode is
//! silently weaker than asked.

mod capabilities;
mod namespace;
pub mod seccomp;

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, set_no_new_privs};

use crate::cli::values::SandboxName;
use crate::plan::Plan;

pub use namespace::Role;

/// What is left of the host.
#[derive(Debug)]
pub struct Confined {
    /// The share, `O_PATH`.
    pub root: OwnedFd,
    /// `/proc/self/fd` of this process.
    pub proc_self_fd: OwnedFd,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call.
    #[error("{step}: {errno}; {advice}")]
    Step {
        /// What was tried, on which path.
        step: String,
        /// The system's reason.
        errno: Errno,
        /// What the operator can do.
        advice: &'static str,
    },
    /// The filter.
    #[error("seccomp: {0}; try --seccomp none to see whether the filter is the reason")]
    Seccomp(String),
}

const NEEDS_ADMIN: &str =
    "--sandbox namespace needs CAP_SYS_ADMIN; in a container try --sandbox chroot or auto";
const NEEDS_CHROOT: &str = "--sandbox chroot needs CAP_SYS_CHROOT; try --sandbox none or auto";

pub(crate) fn step(
    what: impl Into<String>,
    advice: &'static str,
) -> impl FnOnce(Errno) -> SandboxError {
    let step = what.into();
    move |errno| SandboxError::Step {
        step,
        errno,
        advice,
    }
}

/// Makes namespaces where the plan has them, and forks: to be called before the first thread.
///
/// # Errors
///
/// [`SandboxError`], for the operator.
pub fn prepare(plan: &Plan) -> Result<(Role, SandboxName), SandboxError> {
    let mode = chosen(plan.sandbox);
    let role = if mode == SandboxName::Namespace {
        namespace::enter()?
    } else {
        Role::Server
    };
    Ok((role, mode))
}

/// The mode itself, for `auto` the strongest that works here.
fn chosen(asked: SandboxName) -> SandboxName {
    if asked != SandboxName::Auto {
        return asked;
    }
    let have = rustix::thread::capabilities(None)
        .map(|sets| sets.effective)
        .unwrap_or(CapabilitySet::empty());
    let (mode, why) = if have.contains(CapabilitySet::SYS_ADMIN) {
        (SandboxName::Namespace, "CAP_SYS_ADMIN is there")
    } else if have.contains(CapabilitySet::SYS_CHROOT) {
        (
            SandboxName::Chroot,
            "CAP_SYS_CHROOT is there, CAP_SYS_ADMIN is not",
        )
    } else {
        (
            SandboxName::None,
            "neither CAP_SYS_ADMIN nor CAP_SYS_CHROOT is there",
        )
    };
    tracing::info!("sandbox auto: {mode:?}, because {why}");
    mode
}

/// Goes into the share and gives up what is not needed.
///
/// # Errors
///
/// [`SandboxError`], for the operator.
pub fn enter(plan: &Plan, mode: SandboxName) -> Result<Confined, SandboxError> {
    let shared = &plan.shared_dir;
    let proc_self_fd = open(Path::new("/proc/self/fd"), "is /proc mounted?")?;
    let root = match mode {
        SandboxName::Namespace => namespace::pivot(shared)?,
        SandboxName::Chroot => chroot(shared)?,
        SandboxName::None | SandboxName::Auto => open(shared, "is it there and readable?")?,
    };
    capabilities::reduce()?;
    set_no_new_privs(true).map_err(step("no_new_privs", "the kernel is too old"))?;
    not_dumpable()?;
    seccomp::install(plan.seccomp).map_err(SandboxError::Seccomp)?;
    Ok(Confined { root, proc_self_fd })
}

fn not_dumpable() -> Result<(), SandboxError> {
    let behavior = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(behavior)
        .map_err(step("prctl(PR_SET_DUMPABLE)", "the kernel is too old"))
}

fn open(path: &Path, advice: &'static str) -> Result<OwnedFd, SandboxError> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(step(format!("{}", path.display()), advice))
}

fn chroot(shared: &Path) -> Result<OwnedFd, SandboxError> {
    let root = open(shared, "is it there and readable?")?;
    let inside = |what: &str| step(format!("{what} {}", shared.display()), NEEDS_CHROOT);
    // A single file has no inside to go to: its directory is left behind all the same.
    let directory = if shared.is_dir() {
        shared
    } else {
        Path::new("/proc/self/fdinfo")
    };
    rustix::process::chroot(directory).map_err(inside("chroot to"))?;
    rustix::process::chdir("/").map_err(inside("chdir below"))?;
    Ok(root)
}
