//! `--daemonize`: the program that was started ends when the daemon is ready, or with its exit code when it fails.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdout};

use crate::logging;
use crate::plan::Ground;
use crate::sys::{self, Forked};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Process {
    /// The one that was started; it ends now, with this code.
    Started(u8),
    /// The daemon, and what was its standard error if that is another place now.
    Daemon(Ready, Option<File>),
}

/// Says that the daemon is ready, to whoever waits for it.
#[derive(Debug)]
pub struct Ready(Option<OwnedFd>);

impl Ready {
    /// From here on the daemon can be used; it has left the terminal.
    pub fn announce(self) {
        if let Some(pipe) = self.0 {
            // Whoever waited may have been killed.
            let _ = rustix::io::write(pipe, &[1]);
            logging::leave_terminal();
        }
    }
}

/// Goes to the background, if that is where the daemon is to run. Only before the first thread is started.
///
/// # Errors
///
/// One line for the operator.
pub fn begin(ground: Ground) -> Result<Process, String> {
    if ground == Ground::Fore {
        return Ok(Process::Daemon(Ready(None), None));
    }
    let failed = |what: &str| {
        let what = what.to_owned();
        move |errno: Errno| format!("--daemonize: {what}: {errno}; start it without")
    };
    let (ours, daemons) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
    match sys::fork().map_err(failed("fork"))? {
        Forked::Parent(daemon) => {
            drop(daemons);
            Ok(Process::Started(wait(&ours, daemon)))
        }
        Forked::Child => {
            setsid().map_err(failed("setsid"))?;
            let terminal = std::io::stderr()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| format!("standard error: {error}"))?;
            let nothing = File::options()
                .write(true)
                .open("/dev/null")
                .map_err(|error| format!("/dev/null: {error}"))?;
            dup2_stdout(&nothing).map_err(failed("standard output"))?;
            dup2_stderr(&nothing).map_err(failed("standard error"))?;
            let ready = Ready(Some(daemons));
            Ok(Process::Daemon(ready, Some(terminal.into())))
        }
    }
}

/// 0 when the daemon is ready, else its own exit code.
fn wait(ready: &OwnedFd, daemon: i32) -> u8 {
    loop {
        match rustix::io::read(ready, &mut [0; 1]) {
            Err(Errno::INTR) => {}
            Ok(1..) => return 0,
            Ok(0) | Err(_) => break,
        }
    }
    let code = sys::wait_for(daemon).ok();
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
