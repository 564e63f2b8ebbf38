//! What the kernel knows of a process: its threads, processor time, sleeps, memory.

use std::fs;
use std::ops::Sub;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// A process and all processes that it started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree(u32);

/// What a tree of processes has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Time on a processor (first field of schedstat), in nanoseconds.
    pub(super) cpu_ns: u64,
    /// How often a thread gave up its processor, willingly or not.
    pub(super) switches: u64,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

impl Tree {
    pub(super) fn new(root: u32) -> Self {
        Self(root)
    }

    /// Every thread of every process, as paths in /proc.
    fn threads(self) -> Result<Vec<String>> {
        let mut waiting = vec![self.0];
        let mut threads = Vec::new();
        while let Some(process) = waiting.pop() {
            let folder = format!("/proc/{process}/task");
            let tasks = fs::read_dir(&folder).with_context(|| format!("no process {process}"))?;
            for task in tasks {
                let thread = format!("{folder}/{}", task?.file_name().to_string_lossy());
                // A thread may end while we look at it.
                let children = fs::read_to_string(format!("{thread}/children")).unwrap_or_default();
                waiting.extend(
                    children
                        .split_whitespace()
                        .filter_map(|id| id.parse::<u32>().ok()),
                );
                threads.push(thread);
            }
        }
        Ok(threads)
    }

    /// Processes of the tree.
    pub(super) fn processes(self) -> Result<Vec<u32>> {
        let number = |thread: &String| thread.split('/').nth(2)?.parse().ok();
        let mut processes: Vec<u32> = self.threads()?.iter().filter_map(number).collect();
        processes.dedup();
        Ok(processes)
    }

    /// What all threads have used; those that have ended since no longer count.
    pub(super) fn usage(self) -> Result<Usage> {
        let mut usage = Usage::default();
        for thread in self.threads()? {
            let schedstat = fs::read_to_string(format!("{thread}/schedstat")).unwrap_or_default();
            usage.cpu_ns += first_number(&schedstat);
            let status = fs::read_to_string(format!("{thread}/status")).unwrap_or_default();
            usage.switches += status
                .lines()
                .filter_map(|line| line.split_once("ctxt_switches:"))
                .map(|(_, count)| first_number(count))
                .sum::<u64>();
        }
        Ok(usage)
    }

    /// Resident memory of all processes that is not a file's or shared, in KiB.
    pub(super) fn private_kib(self) -> Result<u64> {
        let of = |process: u32| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"))
                .map_or(0, first_number)
        };
        Ok(self.processes()?.into_iter().map(of).sum())
    }

    /// Keeps every thread on one processor.
    pub(super) fn pin(self, processor: usize) -> Result<()> {
        for thread in self.threads()? {
            let number = thread.rsplit('/').next().and_then(|id| id.parse().ok());
            pin(number.and_then(Pid::from_raw), processor)?;
        }
        Ok(())
    }
}

/// Keeps this thread on one processor.
pub(super) fn pin_this_thread(processor: usize) -> Result<()> {
    pin(None, processor)
}

/// Lets this thread, and what it starts from here on, use every processor.
pub(super) fn unpin_this_thread() -> Result<()> {
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|processor| set.set(processor));
    sched_setaffinity(None, &set).context("cannot use all processors")
}

fn pin(thread: Option<Pid>, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(thread, &set).with_context(|| format!("cannot use processor {processor}"))
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_shows_as_time_and_a_sleeper_uses_none() {
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let mut asleep = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let trees = [Tree::new(busy.id()), Tree::new(asleep.id())];
        let before = trees.map(|tree| tree.usage().unwrap());
        std::thread::sleep(Duration::from_millis(300));
        let after = trees.map(|tree| tree.usage().unwrap());
        busy.kill().unwrap();
        asleep.kill().unwrap();
        let _ = (busy.wait(), asleep.wait());
        assert!((after[0] - before[0]).cpu_ns > 10_000_000);
        assert_eq!(after[1] - before[1], Usage::default());
    }
}
