//! The process outside the sandbox: passes a request to stop on, and cleans up when the server has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use virtiofs_protocol::Errno;

use crate::pid_file::{self, PidFile};
use crate::plan::{Listen, Plan};
use crate::sandbox::Helper;
use crate::{logging, sys};

/// Lets the server go, and returns its exit code when it has ended.
///
/// # Errors
///
/// One line for the operator.
pub fn run(
    helper: &Helper,
    plan: &Plan,
    pid_file: Option<PidFile>,
    stop: BorrowedFd<'_>,
) -> Result<u8> {
    let leftovers = match &plan.listen {
        Listen::Socket { path, .. } => Some(Leftovers::of(path)?),
        Listen::Descriptor(_) => None,
    };
    let ended = serve_out(helper, plan, pid_file, (stop, leftovers.as_ref()));
    if let Some(leftovers) = &leftovers {
        leftovers.remove();
    }
    ended
}

fn serve_out(
    helper: &Helper,
    plan: &Plan,
    mut pid_file: Option<PidFile>,
    (stop, leftovers): (BorrowedFd<'_>, Option<&Leftovers>),
) -> Result<u8> {
    let pid = Pid::from_raw(helper.server).context("a child without a pid")?;
    let server = pidfd_open(pid, PidfdFlags::empty()).context("watching the server")?;
    if let Some(file) = &mut pid_file {
        file.write(std::process::id()).map_err(|why| anyhow!(why))?;
    }
    helper.map_ids()?;
    sys::clear_environment();
    // Where it was started stays free to be unmounted.
    rustix::process::chdir("/").context("chdir to /")?;
    helper.confine(leftovers.map(|left| left.directory.as_fd()), plan.seccomp)?;
    // A server that has ended already says so by its exit code.
    let _ = helper.release();
    logging::leave_terminal();
    wait(&server, stop)?;
    let code = sys::wait_for(helper.server).context("waiting for the server")?;
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Returns when the server has ended; asks it to when we are asked to.
fn wait(server: &OwnedFd, stop: BorrowedFd<'_>) -> Result<()> {
    loop {
        let mut both = [
            PollFd::new(server, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            ready => ready.context("waiting for the server")?,
        };
        if !both[0].revents().is_empty() {
            return Ok(());
        }
        let _ = rustix::io::read(stop, &mut [0; 128]);
        let _ = pidfd_send_signal(server, Signal::TERM);
    }
}

/// The socket and its pid file, by the directory in which they stand.
struct Leftovers {
    directory: OwnedFd,
    names: Vec<std::ffi::OsString>,
}

impl Leftovers {
    fn of(socket: &Path) -> Result<Self> {
        let parent = match socket.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty())
            .with_context(|| format!("directory {}", parent.display()))?;
        let names = [socket.to_owned(), pid_file::path_for(socket)]
            .iter()
            .filter_map(|path| path.file_name().map(ToOwned::to_owned))
            .collect();
        Ok(Self { directory, names })
    }

    fn remove(&self) {
        for name in &self.names {
            if let Err(error) = unlinkat(&self.directory, name, AtFlags::empty()) {
                tracing::debug!("{}: {error}", name.display());
            }
        }
    }
}
