//! From the plan to the last connection.

use std::io::ErrorKind;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtiofs_device::{DeviceOptions, Ended, Polling, serve_connection};
use virtiofs_hostfs::{PassthroughFs, SharedRoot};
use virtiofs_protocol::{Errno, Session};

use crate::background::Ready;
use crate::pid_file::{self, PidFile};
use crate::plan::{AfterDisconnect, Listen, Plan};
use crate::sandbox::{self, Broker, Confined, Role, SandboxError};
use crate::{broker, helper, limits, pressure, share, signals, socket, sys};

/// Does what was planned; returns the exit code.
///
/// # Errors
///
/// One line for the operator.
pub fn run(plan: &Plan, ready: Ready) -> Result<u8> {
    let kind = share::kind(&plan.shared_dir).map_err(|why| anyhow!(why))?;
    // Before the sandbox: neither the quota of a control group nor pressure can be found from inside.
    let device = DeviceOptions {
        tag: plan.tag.clone(),
        store_threads: plan.store_threads,
        polling: plan.polling,
        processors: std::thread::available_parallelism().map_or(1, NonZero::get),
        pressure: (plan.polling == Polling::Auto)
            .then(pressure::open)
            .flatten(),
    };
    let mode = sandbox::choose(plan)?;
    let broker = if broker::wanted(plan, kind, &mode)? {
        Broker::Wanted
    } else {
        Broker::None
    };
    let limit = limits::set_open_files(plan.rlimit_nofile).map_err(|why| anyhow!(why))?;
    let (listener, mut pid_file) = listen(&plan.listen)?;
    let stop = signals::stop_descriptor().context("signals cannot be taken over")?;
    match sandbox::prepare(mode) {
        // The other process says why, and cleans up.
        Err(SandboxError::Orphan) => Ok(1),
        Err(error) => {
            forget(&plan.listen);
            Err(error.into())
        }
        Ok(Role::Helper(helper)) => {
            drop((listener, ready, device));
            helper::run(&helper, plan, pid_file, stop.as_fd())
        }
        Ok(Role::Server(server)) => {
            // The helper has it where there is one: nothing outside the share stays open inside.
            pid_file = pid_file.filter(|_| !server.has_helper());
            if let Some(file) = &mut pid_file {
                file.write(std::process::id()).map_err(|why| anyhow!(why))?;
            }
            sys::clear_environment();
            let confined = sandbox::enter(plan, kind, (server, broker))?;
            let session = session(plan, confined, limit)?;
            sandbox::filter(plan)?;
            ready.announce();
            accept(plan, &device, &listener, &session, stop.as_fd())
        }
    }
}

/// The sandbox could not be made: nobody is going to listen.
fn forget(listen: &Listen) {
    if let Listen::Socket { path, .. } = listen {
        for path in [path, &pid_file::path_for(path)] {
            // What stays behind is replaced by the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn session(plan: &Plan, confined: Confined, limit: u64) -> Result<Arc<Session<PassthroughFs>>> {
    let options = virtiofs_hostfs::Options {
        descriptor_budget: limits::descriptor_budget(limit),
        ..plan.filesystem.clone()
    };
    let mut root = SharedRoot::new(confined.root, confined.proc_self_fd);
    if let Some(proc) = confined.labelling_proc {
        root = root.labelling_through(proc);
    }
    let fs = PassthroughFs::new(root, options)
        .with_context(|| format!("cannot look at {}", plan.shared_dir.display()))?;
    let fs = match confined.handles {
        Some(handles) => fs.with_handles(handles),
        None => fs,
    };
    Ok(Arc::new(Session::new(fs, plan.session)))
}

fn listen(listen: &Listen) -> Result<(UnixListener, Option<PidFile>)> {
    match listen {
        Listen::Socket { path, group } => {
            let group = group.as_deref().map(socket::group).transpose();
            let group = group.map_err(|why| anyhow!(why))?;
            let pid_file = PidFile::take(path).map_err(|why| anyhow!(why))?;
            let listener = socket::bind(path, group.as_ref()).map_err(|why| {
                pid_file.remove();
                anyhow!(why)
            })?;
            Ok((listener, Some(pid_file)))
        }
        Listen::Descriptor(number) => {
            let listener = socket::inherited(*number).map_err(|why| anyhow!(why))?;
            Ok((listener, None))
        }
    }
}

fn accept(
    plan: &Plan,
    device: &DeviceOptions,
    listener: &UnixListener,
    session: &Arc<Session<PassthroughFs>>,
    stop: BorrowedFd<'_>,
) -> Result<u8> {
    loop {
        tracing::info!("Waiting for vhost-user socket connection...");
        let Some(stream) = next_front_end(listener, stop)? else {
            return Ok(0);
        };
        tracing::info!("Client connected, servicing requests");
        let ended = serve_connection(&stream, session, device, stop);
        match (ended, plan.after_disconnect) {
            (Ok(Ended::Stopped), _) => return Ok(0),
            (Ok(Ended::Disconnected), AfterDisconnect::Exit) => {
                tracing::info!("Client disconnected, shutting down");
                return Ok(0);
            }
            (Ok(Ended::Disconnected), AfterDisconnect::Accept) => {
                tracing::info!("Client disconnected")
            }
            (Err(error), AfterDisconnect::Accept) => {
                tracing::error!("{error}; waiting for the next front-end")
            }
            (Err(error), AfterDisconnect::Exit) => return Err(error.into()),
        }
    }
}

/// How long to wait before a front-end is tried again that could not be accepted.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Waits for a front-end; none when the daemon is to stop.
fn next_front_end(listener: &UnixListener, stop: BorrowedFd<'_>) -> Result<Option<UnixStream>> {
    let mut told = false;
    loop {
        let mut both = [
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        if is_to_stop(&mut both, None)? {
            return Ok(None);
        }
        let error = match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            // It hung up again before its turn, or somebody else who has the socket took it.
            Err(error) if is_nobody(&error) => continue,
            Err(error) if is_lack(&error) => error,
            Err(error) => return Err(error).context("accepting a front-end"),
        };
        if !told {
            tracing::warn!("a front-end cannot be accepted yet: {error}");
            told = true;
        }
        // It keeps the listener readable: only the end of the lack is worth waking up for.
        if is_to_stop(&mut both[..1], Some(&PAUSE))? {
            return Ok(None);
        }
    }
}

/// Waits for any of them; whether the first is ready.
fn is_to_stop(watched: &mut [PollFd<'_>], limit: Option<&Timespec>) -> Result<bool> {
    loop {
        match poll(watched, limit) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("waiting for a front-end"),
            Ok(_) => return Ok(!watched[0].revents().is_empty()),
        }
    }
}

/// What passes when somebody closes a file or frees memory: here, or elsewhere on the host.
fn is_lack(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

fn is_nobody(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::WouldBlock | ErrorKind::Interrupted
    )
}
