//! Leaving everything behind but the share.
//!
//! Complete before the first connection is accepted. A step that fails ends the start: no mode is
//! silently weaker than asked. [`choose`] decides on a mode, [`prepare`] makes its processes, [`enter`] goes in,
//! and [`filter`] closes the door.

mod capabilities;
mod choice;
mod labelling;
mod landlock;
mod namespace;
pub mod seccomp;
pub mod user_namespace;

#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode as FileMode, OFlags, openat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, set_no_new_privs};

use crate::broker::{self, Client, Lack};
use crate::cli::values::SeccompName;
use crate::plan::Plan;
use crate::share::Kind;
use crate::sys::{self, Forked, Namespaces};

pub use choice::choose;
use user_namespace::Maps;

/// How the daemon is locked in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In namespaces, with the share as root.
    Namespace(Owner),
    /// With the share as root directory.
    Chroot,
    /// Where it is.
    None,
}

/// Whose the namespaces are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user namespace that the daemon was started in.
    Host,
    /// A user namespace of their own.
    User(Maps),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace(Owner::Host) => "namespace",
            Self::Namespace(Owner::User(_)) => "namespace in a user namespace",
            Self::Chroot => "chroot",
            Self::None => "none",
        })
    }
}

/// What this process is from here on.
#[derive(Debug)]
pub enum Role {
    /// It serves the share.
    Server(Server),
    /// It waits outside for the server, passes signals on and cleans up.
    Helper(Helper),
}

/// The process that is going to serve.
#[derive(Debug)]
pub struct Server {
    mode: Mode,
    /// The helper's end of a pipe hangs up when the helper ends.
    lifeline: Option<OwnedFd>,
}

/// Whether a process that opens file handles is started from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// None is.
    None,
    /// One is.
    Wanted,
}

/// The process that stays outside.
#[derive(Debug)]
pub struct Helper {
    /// The server, which waits to be let go.
    pub server: i32,
    maps: Option<Maps>,
    lifeline: OwnedFd,
}

/// What is left of the host.
#[derive(Debug)]
pub struct Confined {
    /// The share, `O_PATH`.
    pub root: OwnedFd,
    /// `/proc/self/fd` of this process.
    pub proc_self_fd: OwnedFd,
    /// A procfs through which threads label what they make, where the host has SELinux and labels are asked for.
    pub labelling_proc: Option<OwnedFd>,
    /// Who opens file handles, where that was asked for.
    pub handles: Option<Client>,
    /// Open for the helper's sake, as long as this process lives.
    pub lifeline: Option<OwnedFd>,
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
    /// A map of a user namespace.
    #[error("{option}: {why}")]
    IdMap {
        /// The option that asks for it.
        option: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A capability that was asked for.
    #[error(
        "--modcaps +{0}: the daemon does not have it; start it with that capability, or without the option"
    )]
    Missing(String),
    /// What is mandatory and cannot be had.
    #[error(
        "--inode-file-handles=mandatory: {0}; start it with what that takes, or with prefer or never"
    )]
    FileHandles(Lack),
    /// The layer of rules on files.
    #[error("Landlock: {0}; is this a kernel that was changed?")]
    Landlock(String),
    /// The filter.
    #[error("seccomp: {0}; try --seccomp none to see whether the filter is the reason")]
    Seccomp(String),
    /// The other process of the two.
    #[error("the process outside the sandbox has ended; it says why")]
    Orphan,
}

const NEEDS_ADMIN: &str = "--sandbox namespace needs CAP_SYS_ADMIN or a host that allows user namespaces; \
     in a container try --sandbox chroot or auto";
const NEEDS_CHROOT: &str = "it needs CAP_SYS_CHROOT; try --sandbox none or auto";

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

/// Whether the server lives in a user namespace that was made for it.
pub(crate) fn is_of_a_user(mode: &Mode) -> bool {
    matches!(mode, Mode::Namespace(Owner::User(_)))
}

/// Makes namespaces where the mode has them, and the process that lives in them: before the first thread.
///
/// # Errors
///
/// [`SandboxError`], for the operator.
pub fn prepare(mode: Mode) -> Result<Role, SandboxError> {
    let Mode::Namespace(owner) = mode else {
        let lifeline = None;
        return Ok(Role::Server(Server { mode, lifeline }));
    };
    let (namespaces, maps) = match &owner {
        Owner::Host => (Namespaces::ALL, None),
        Owner::User(maps) => (Namespaces::ALL_OF_A_USER, Some(maps.clone())),
    };
    let (ours, helpers) = pipe_with(PipeFlags::CLOEXEC).map_err(step("pipe", NEEDS_ADMIN))?;
    let forked = sys::clone_into(namespaces).map_err(step("making of namespaces", NEEDS_ADMIN))?;
    match forked {
        Forked::Parent(server) => Ok(Role::Helper(Helper {
            server,
            maps,
            lifeline: helpers,
        })),
        Forked::Child => {
            drop(helpers);
            die_with_the_parent()?;
            wait_for_the_helper(&ours)?;
            let mode = Mode::Namespace(owner);
            let lifeline = Some(ours);
            Ok(Role::Server(Server { mode, lifeline }))
        }
    }
}

/// Whoever forked this process takes it along when it ends.
fn die_with_the_parent() -> Result<(), SandboxError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(step("prctl(PR_SET_PDEATHSIG)", NEEDS_ADMIN))
}

/// One byte lets the server go; the end of the pipe means that there is nobody left to wait for.
fn wait_for_the_helper(lifeline: &OwnedFd) -> Result<(), SandboxError> {
    loop {
        match rustix::io::read(lifeline, &mut [0; 1]) {
            Ok(1..) => return Ok(()),
            Ok(0) => return Err(SandboxError::Orphan),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(step("read of a pipe", NEEDS_ADMIN)(errno)),
        }
    }
}

impl Server {
    /// Whether a process outside the sandbox waits for this one.
    pub fn has_helper(&self) -> bool {
        self.lifeline.is_some()
    }
}

impl Helper {
    /// Says who is who in the server's user namespace, if it has one.
    ///
    /// # Errors
    ///
    /// [`SandboxError`], for the operator.
    pub fn map_ids(&self) -> Result<(), SandboxError> {
        self.maps
            .as_ref()
            .map_or(Ok(()), |maps| maps.write(self.server))
    }

    /// Keeps what removing files in one directory needs, and nothing else.
    ///
    /// # Errors
    ///
    /// [`SandboxError`], for the operator.
    pub fn confine(
        &self,
        directory: Option<BorrowedFd<'_>>,
        seccomp: SeccompName,
    ) -> Result<(), SandboxError> {
        let removal = CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
        let have = rustix::thread::capabilities(None)
            .map_err(step("capget", NEEDS_ADMIN))?
            .permitted;
        let kept = if directory.is_some() {
            have & removal
        } else {
            CapabilitySet::empty()
        };
        no_more_privileges()?;
        landlock::restrict_to_removal(directory)?;
        capabilities::keep_only(kept)?;
        not_dumpable()?;
        seccomp::install(seccomp, seccomp::Process::Helper).map_err(SandboxError::Seccomp)
    }

    /// Lets the server go on.
    ///
    /// # Errors
    ///
    /// [`SandboxError`] when the server has ended already.
    pub fn release(&self) -> Result<(), SandboxError> {
        rustix::io::write(&self.lifeline, &[1])
            .map(drop)
            .map_err(step("letting the server go", "it says why it ended"))
    }
}

/// Goes into the share and gives up what is not needed, but for system calls.
///
/// # Errors
///
/// [`SandboxError`], for the operator.
pub fn enter(
    plan: &Plan,
    kind: Kind,
    (server, broker): (Server, Broker),
) -> Result<Confined, SandboxError> {
    let shared = &plan.shared_dir;
    let Server { mode, lifeline } = server;
    // While /proc has a name.
    let useless = user_namespace::useless(&mode);
    let labelling = labelling::prepare(plan.filesystem.security_labels, &mode)?;
    let (proc_self_fd, root) = match &mode {
        Mode::Namespace(owner) => {
            namespace::receive_mounts_only()?;
            let proc_self_fd = namespace::proc_self_fd()?;
            let root = namespace::pivot(shared, kind)?;
            if let Owner::User(maps) = owner {
                maps.take_identity()?;
            }
            (proc_self_fd, root)
        }
        Mode::Chroot => (own_descriptors()?, chroot(shared, kind)?),
        Mode::None => {
            let root = open(shared, "is it there and readable?")?;
            let proc_self_fd = own_descriptors()?;
            // Where it was started stays free to be unmounted.
            rustix::process::chdir("/").map_err(step("chdir to /", "is it there?"))?;
            (proc_self_fd, root)
        }
    };
    // Extended attributes are reached by a descriptor's name in there, and by nothing else.
    rustix::process::fchdir(&proc_self_fd)
        .map_err(step("chdir to /proc/self/fd", "is /proc mounted?"))?;
    let handles = match broker {
        Broker::None => None,
        Broker::Wanted => broker::start(plan, root.as_fd())?,
    };
    no_more_privileges()?;
    let own_files = labelling
        .as_ref()
        .map(|labelling| labelling.own_files.as_fd());
    landlock::restrict_to(root.as_fd(), kind, plan.session.access, own_files)?;
    capabilities::keep_only(capabilities::of_the_server(plan, useless)?)?;
    not_dumpable()?;
    if let Some(lifeline) = &lifeline {
        // A change of identity has made the kernel forget it.
        die_with_the_parent()?;
        still_has_a_helper(lifeline)?;
    }
    Ok(Confined {
        root,
        proc_self_fd,
        labelling_proc: labelling.map(|labelling| labelling.proc),
        handles,
        lifeline,
    })
}

/// Leaves the process that calls it what the broker of file handles needs: one capability and a dozen system calls.
///
/// Landlock forbids it everything but opening what is there, which no rule can: what a handle finds may be a file whose
/// directory the kernel does not know.
pub(crate) fn confine_broker(seccomp: SeccompName) -> Result<(), SandboxError> {
    no_more_privileges()?;
    landlock::restrict_to_opening()?;
    capabilities::keep_only(CapabilitySet::DAC_READ_SEARCH)?;
    not_dumpable()?;
    // Where signals end at Landlock's border, the end of the socket says the same.
    die_with_the_parent()?;
    seccomp::install(seccomp, seccomp::Process::Broker).map_err(SandboxError::Seccomp)
}

/// Leaves the server no system calls but those that serving takes. What it takes to begin is done by then.
///
/// # Errors
///
/// [`SandboxError::Seccomp`].
pub fn filter(plan: &Plan) -> Result<(), SandboxError> {
    let server = seccomp::Process::Server(&plan.filesystem);
    seccomp::install(plan.seccomp, server).map_err(SandboxError::Seccomp)
}

fn still_has_a_helper(lifeline: &OwnedFd) -> Result<(), SandboxError> {
    let mut pipe = [PollFd::new(lifeline, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut pipe, Some(&now)).map_err(step("poll of a pipe", NEEDS_ADMIN))?;
    if pipe[0].revents().contains(PollFlags::HUP) {
        return Err(SandboxError::Orphan);
    }
    Ok(())
}

fn no_more_privileges() -> Result<(), SandboxError> {
    set_no_new_privs(true).map_err(step("no_new_privs", "the kernel is too old"))
}

fn not_dumpable() -> Result<(), SandboxError> {
    let behavior = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(behavior)
        .map_err(step("prctl(PR_SET_DUMPABLE)", "the kernel is too old"))
}

fn own_descriptors() -> Result<OwnedFd, SandboxError> {
    open(Path::new("/proc/self/fd"), "is /proc mounted?")
}

fn open(path: &Path, advice: &'static str) -> Result<OwnedFd, SandboxError> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())
        .map_err(step(format!("{}", path.display()), advice))
}

fn chroot(shared: &Path, kind: Kind) -> Result<OwnedFd, SandboxError> {
    let root = open(shared, "is it there and readable?")?;
    let inside = |what: &str| step(format!("{what} {}", shared.display()), NEEDS_CHROOT);
    // A single file has no inside to go to: its directory is left behind all the same.
    let directory = match kind {
        Kind::Directory => shared,
        Kind::File => Path::new("/proc/self/fdinfo"),
    };
    rustix::process::chroot(directory).map_err(inside("chroot to"))?;
    rustix::process::chdir("/").map_err(inside("chdir below"))?;
    Ok(root)
}
