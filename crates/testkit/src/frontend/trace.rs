//! Which system calls the daemon makes, and when: `strace` on a running one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// One system call, at its entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When, in seconds since the epoch.
    pub at_secs: f64,
    /// Its name.
    pub name: String,
    /// The whole line.
    pub line: String,
}

impl Call {
    /// Whether this is part of waiting for work or of saying that work is
    /// done: kick, call, sleeping and waking, and the look every tenth of a second at how busy the host
    /// is, which decides how to wait.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        const SLEEPS: [&str; 11] = [
            "futex",
            "poll",
            "ppoll",
            "epoll_wait",
            "epoll_pwait",
            "epoll_pwait2",
            "nanosleep",
            "clock_nanosleep",
            "sched_yield",
            "restart_syscall",
            "rt_sigreturn",
        ];
        let eventfd = || self.line.contains("<anon_inode:[eventfd]>");
        SLEEPS.contains(&self.name.as_str())
            || (matches!(self.name.as_str(), "read" | "preadv2" | "write") && eventfd())
            || (self.name == "pread64" && self.line.contains("/pressure/cpu>"))
    }
}

/// Which calls a request pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those made before the driver is told that it is done.
    UntilAnswered,
    /// Those that were put off until after the answer, too.
    WithWhatFollows,
}

/// The calls that a request pays for which was sent and answered between two moments, in order.
#[must_use]
pub fn paid(calls: &[Call], between: std::ops::Range<f64>, counted: Counted) -> Vec<&Call> {
    let to_the_end = counted == Counted::WithWhatFollows;
    calls
        .iter()
        .filter(|call| between.contains(&call.at_secs))
        .take_while(|call| to_the_end || !(call.is_waiting() && call.name == "write"))
        .filter(|call| !call.is_waiting())
        .collect()
}

/// A moment, comparable with [`Call::at_secs`].
#[must_use]
pub fn now_secs() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A running `strace`; dropping it lets the daemon go.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    log: PathBuf,
}

impl Trace {
    /// Whether `strace` is installed.
    #[must_use]
    pub fn is_available() -> bool {
        let version = Command::new("strace").arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    }

    /// Attaches to every thread of a process; the log goes into `scratch`.
    pub fn attach(pid: u32, scratch: &Path) -> Result<Self> {
        Self::attach_with(pid, scratch, &[])
    }

    /// [`Trace::attach`] with more arguments of strace: calls that are to fail, say.
    pub fn attach_with(pid: u32, scratch: &Path, arguments: &[&str]) -> Result<Self> {
        let (log, errors) = (scratch.join("strace.log"), scratch.join("strace.err"));
        let child = Command::new("strace")
            .args(["-f", "-ttt", "-y", "-o"])
            .arg(&log)
            .args(arguments)
            .args(["-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?)
            .spawn()
            .context("start strace")?;
        let trace = Self { child, log };
        let deadline = Instant::now() + Duration::from_secs(10);
        // Said once every thread was told to stop: from there on none makes a call unseen.
        let says = |word| std::fs::read_to_string(&errors).is_ok_and(|text| text.contains(word));
        while !says(" attached") || !is_traced(pid)? {
            ensure!(Instant::now() < deadline, "strace does not attach");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(trace)
    }

    /// Detaches and returns what was seen.
    pub fn finish(mut self) -> Result<Vec<Call>> {
        self.stop();
        let text = std::fs::read_to_string(&self.log)?;
        Ok(calls(&text))
    }

    fn stop(&mut self) {
        // SIGINT: strace detaches and writes its log out.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

fn is_traced(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        if status.contains("\nTracerPid:\t0\n") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The calls of a log; what strace printed in two parts, because another thread's came between, is joined.
fn calls(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in text.lines() {
        if let Some(call) = parse(line) {
            calls.push(call);
        } else if let Some((thread, name, rest)) = parse_end(line) {
            let begun = calls.iter_mut().rev().find(|call| {
                call.name == name
                    && call.line.split_ascii_whitespace().next() == Some(thread)
                    && call.line.ends_with(UNFINISHED)
            });
            if let Some(call) = begun {
                let begin = call.line.trim_end_matches(UNFINISHED);
                call.line = format!("{begin}{rest}");
            }
        }
    }
    calls
}

const UNFINISHED: &str = " <unfinished ...>";

/// `1234 1700000000.123456 <... statx resumed>...) = 0`: thread, call, and what was left to print.
fn parse_end(line: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = line.split_once(" <... ")?;
    let (name, rest) = after.split_once(" resumed>")?;
    Some((before.split_ascii_whitespace().next()?, name, rest))
}

/// `1234 1700000000.123456 statx(5</share>, "x", ...) = 0`; exits of calls
/// that were interleaved, signals and ends of threads are no entries.
fn parse(line: &str) -> Option<Call> {
    let mut parts = line.split_ascii_whitespace();
    let _thread = parts.next()?;
    let at_secs = parts.next()?.parse().ok()?;
    let (name, _) = parts.next()?.split_once('(')?;
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !name.is_empty()).then(|| Call {
        at_secs,
        name: name.to_owned(),
        line: line.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_calls_are_counted() {
        let cases = [
            ("7 1700000000.5 statx(5</s>, \"x\", 0) = 0", Some("statx")),
            ("7 1700000000.5 read(5</s>,  <unfinished ...>", Some("read")),
            ("7 1700000000.6 <... read resumed>\"a\", 8) = 1", None),
            ("7 1700000000.6 --- SIGTERM {si_signo=SIGTERM} ---", None),
            ("7 1700000000.6 +++ exited with 0 +++", None),
        ];
        for (line, want) in cases {
            assert_eq!(parse(line).map(|call| call.name).as_deref(), want, "{line}");
        }
    }

    #[test]
    fn a_call_printed_in_two_parts_is_one() {
        let log = "7 1.0 read(5</s>,  <unfinished ...>\n8 1.1 read(5</s>,  <unfinished ...>\n\
                   8 1.2 <... read resumed>\"b\", 8) = 2\n7 1.3 <... read resumed>\"a\", 8) = 1\n";
        let lines: Vec<String> = calls(log).into_iter().map(|call| call.line).collect();
        let want = [
            "7 1.0 read(5</s>, \"a\", 8) = 1",
            "8 1.1 read(5</s>, \"b\", 8) = 2",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn kicks_and_calls_are_waiting_and_file_reads_are_not() {
        let cases = [
            ("7 1.0 read(9<anon_inode:[eventfd]>, \"\\1\", 8) = 8", true),
            ("7 1.0 futex(0x7f, FUTEX_WAIT, 1) = 0", true),
            (
                "7 1.0 pread64(3</proc/pressure/cpu>, \"some\", 256, 0) = 90",
                true,
            ),
            ("7 1.0 read(9</share/file>, \"\\1\", 8) = 8", false),
        ];
        for (line, want) in cases {
            let call = parse(line).unwrap();
            assert_eq!(call.is_waiting(), want, "{line}");
        }
    }
}
