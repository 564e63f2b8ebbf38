//! Which system calls a daemon makes, seen by strace attached to its threads.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use crate::tools;

use super::processes::Tree;

/// System calls that were begun, by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Calls that serve requests, by name.
    pub(super) served: BTreeMap<String, u32>,
    /// Kicks read and calls written.
    pub(super) notifications: u32,
    /// Waiting for a kick, a message or another thread, and finding out how to wait.
    pub(super) waits: u32,
}

/// An strace that is attached to a daemon.
pub(super) struct Trace {
    strace: Child,
    log: NamedTempFile,
}

/// Calls that only sleep; `recvmsg` is the front-end's socket.
const WAITS: &[&str] = &[
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "futex",
    "poll",
    "ppoll",
    "pselect6",
    "recvmsg",
    "select",
];

impl Trace {
    /// Attaches to every thread; what follows is counted.
    pub(super) fn begin(tree: Tree) -> Result<Self> {
        tools::debian(&[("strace", "strace")])?;
        let log = NamedTempFile::new()?;
        let processes = tree.processes()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "0", "-o"]).arg(log.path());
        for process in &processes {
            command.arg(format!("--attach={process}"));
        }
        let mut strace = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run strace")?;
        let errors = strace
            .stderr
            .take()
            .context("strace has no standard error")?;
        let mut lines = BufReader::new(errors).lines();
        for _ in &processes {
            let line = lines.next().context("strace ended at once")??;
            ensure!(line.contains(" attached"), "{line}");
        }
        // Nobody reads on; strace says nothing more until it detaches.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { strace, log })
    }

    /// Detaches and counts.
    pub(super) fn end(mut self) -> Result<Counted> {
        let id = self.strace.id().to_string();
        Command::new("kill").args(["-INT", &id]).status()?;
        self.strace.wait()?;
        Ok(counted(&std::fs::read_to_string(self.log.path())?))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Counts the calls in a log of `strace -f -y`: one line each, `PID name(arguments...`.
fn counted(log: &str) -> Counted {
    let mut counted = Counted::default();
    for line in log.lines() {
        let Some((_, call)) = line.split_once(' ') else {
            continue;
        };
        // Signals, exits and the second half of an interrupted line have no name here.
        let Some((name, arguments)) = call.trim_start().split_once('(') else {
            continue;
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name == "restart_syscall"
        {
            continue;
        }
        let descriptor = arguments.split(',').next().unwrap_or("");
        if WAITS.contains(&name) || descriptor.contains("/pressure/cpu>") {
            counted.waits += 1;
        } else if matches!(name, "read" | "write" | "preadv2") && descriptor.contains("eventfd") {
            counted.notifications += 1;
        } else {
            *counted.served.entry(name.to_owned()).or_default() += 1;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_purpose() {
        let log = "\
14 restart_syscall(<... resuming interrupted read ...>) = 0
14 <... epoll_wait resumed>[{...}], 32, -1) = 1
14 read(9<anon_inode:[eventfd]>, \"\"..., 8) = 8
14 preadv2(9<anon_inode:[eventfd]>, [{...}], 1, -1, RWF_NOWAIT) = 8
14 statx(11</share/known>, \"\"..., AT_EMPTY_PATH, STATX_BASIC_STATS, {...}) = 0
15 read(12</share/known>, \"\"..., 8 <unfinished ...>
15 <... read resumed>) = 8
14 write(8<anon_inode:[eventfd]>, \"\"..., 8) = 8
14 epoll_wait(5<anon_inode:[eventpoll]>,  <unfinished ...>
16 pread64(3</proc/pressure/cpu>, \"some\"..., 256, 0) = 90
14 --- SIGALRM {si_signo=SIGALRM} ---
15 +++ exited with 0 +++
";
        let want = Counted {
            served: [("read".to_owned(), 1), ("statx".to_owned(), 1)].into(),
            notifications: 3,
            waits: 2,
        };
        assert_eq!(counted(log), want);
    }
}
