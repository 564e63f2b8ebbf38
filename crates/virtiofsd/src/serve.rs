//! From the plan to the last connection.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use virtiofs_device::{ConnectionError, DeviceOptions, Ended, serve_connection};
use virtiofs_hostfs::{PassthroughFs, SharedRoot};
use virtiofs_protocol::{Errno, Session};

use crate::pid_file::{self, PidFile};
use crate::plan::{AfterDisconnect, Listen, Plan};
use crate::sandbox::{self, Role};
use crate::{limits, signals, socket, sys};

/// Does what was planned; returns the exit code.
///
/// # Errors
///
/// One line for the operator.
pub fn run(plan: &Plan) -> Result<u8> {
    let shared = &plan.shared_dir;
    std::fs::metadata(shared).with_context(|| format!("cannot share {}", shared.display()))?;
    let limit = limits::set_open_files(plan.rlimit_nofile).map_err(|why| anyhow!(why))?;
    let (listener, mut pid_file) = listen(&plan.listen)?;
    let stop = signals::stop_descriptor().context("signals cannot be taken over")?;
    let (role, mode) = sandbox::prepare(plan)?;
    if let Role::Helper(child) = role {
        drop(listener);
        if let Some(file) = &mut pid_file {
            file.write(std::process::id()).map_err(|why| anyhow!(why))?;
        }
        return wait_outside(child, &stop, &plan.listen);
    }
    if let (Some(file), Listen::Socket { .. }) = (&mut pid_file, &plan.listen)
        && mode != crate::cli::values::SandboxName::Namespace
    {
        file.write(std::process::id()).map_err(|why| anyhow!(why))?;
    }
    let confined = sandbox::enter(plan, mode)?;
    let options = virtiofs_hostfs::Options {
        descriptor_budget: limits::descriptor_budget(limit),
        ..plan.filesystem
    };
    let root = SharedRoot::new(confined.root, confined.proc_self_fd);
    let fs = PassthroughFs::new(root, options)
        .with_context(|| format!("cannot look at {}", shared.display()))?;
    let session = Session::new(fs, plan.session);
    accept(plan, &listener, &Arc::new(session), stop.as_fd())
}

fn listen(listen: &Listen) -> Result<(UnixListener, Option<PidFile>)> {
    match listen {
        Listen::Socket { path, group } => {
            let pid_file = PidFile::take(path).map_err(|why| anyhow!(why))?;
            let listener = socket::bind(path, group.as_deref()).map_err(|why| anyhow!(why))?;
            Ok((listener, Some(pid_file)))
        }
        Listen::Descriptor(number) => {
            let descriptor = sys::inherited(*number)
                .with_context(|| format!("--fd {number}: no such descriptor was handed over; give that of a listening socket"))?;
            Ok((descriptor.into(), None))
        }
    }
}

fn accept(
    plan: &Plan,
    listener: &UnixListener,
    session: &Arc<Session<PassthroughFs>>,
    stop: std::os::fd::BorrowedFd<'_>,
) -> Result<u8> {
    let device = DeviceOptions {
        tag: plan.tag.clone(),
        store_threads: plan.store_threads,
    };
    loop {
        tracing::info!("Waiting for vhost-user socket connection...");
        let mut both = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            ready => ready.context("waiting for a front-end")?,
        };
        if !both[1].revents().is_empty() {
            return Ok(0);
        }
        let (stream, _) = listener.accept().context("accepting a front-end")?;
        tracing::info!("Client connected, servicing requests");
        let ended = serve_connection(&stream, session, &device, stop);
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
            (
                Err(
                    error @ (ConnectionError::Protocol(_)
                    | ConnectionError::Socket(_)
                    | ConnectionError::Resources(_)),
                ),
                _,
            ) => {
                return Err(error.into());
            }
        }
    }
}

/// Outside the sandbox: passes a request to stop on, and cleans up when the server has ended.
fn wait_outside(child: i32, stop: &std::os::fd::OwnedFd, listen: &Listen) -> Result<u8> {
    let pid = rustix::process::Pid::from_raw(child).context("a child without a pid")?;
    let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .context("watching the server")?;
    loop {
        let mut both = [
            PollFd::new(&ended, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Err(Errno::INTR) => continue,
            ready => ready.context("waiting for the server")?,
        };
        if !both[0].revents().is_empty() {
            break;
        }
        let _ = rustix::io::read(stop, &mut [0; 128]);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let code = sys::wait_for(child).context("waiting for the server")?;
    if let Listen::Socket { path, .. } = listen {
        remove(path);
        remove(&pid_file::path_for(path));
    }
    Ok(u8::try_from(code).unwrap_or(1))
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!("{}: {error}", path.display());
    }
}
