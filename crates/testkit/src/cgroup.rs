//! A control group that limits memory, of either version.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A group of processes that together may have so much memory. Dropping it removes it, once they have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// Makes one; fails where this process may not, or the kernel counts no memory.
    pub fn new(limit_bytes: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("virtiofsd-memory-{}-{number}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (parent, version, limit) = if first.join("memory.limit_in_bytes").exists() {
            (first, Version::One, "memory.limit_in_bytes")
        } else {
            let parent = Path::new("/sys/fs/cgroup");
            // Already on is no error; refused shows in the group, which then has no limit.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
            (parent, Version::Two, "memory.max")
        };
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let group = Self { path, version };
        fs::write(group.path.join(limit), limit_bytes.to_string()).context(limit)?;
        Ok(group)
    }

    /// The words that start a program inside.
    #[must_use]
    pub fn through(&self) -> Vec<OsString> {
        let script = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
        vec![
            "sh".into(),
            "-c".into(),
            script.into(),
            self.path.clone().into(),
        ]
    }

    /// How many processes the kernel has ended because there was no more memory.
    pub fn killed(&self) -> Result<u64> {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.context("oom_kill")?.trim().parse()?)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has ended is in its group for a moment more.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.path).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::bridge::share::skipped;

    #[test]
    fn who_takes_more_than_there_is_is_ended_and_counted() {
        let group = match MemoryGroup::new(16 << 20) {
            Ok(group) => group,
            Err(why) => return skipped(&format!("no group that limits memory: {why:#}")),
        };
        let words = group.through();
        let run = |script: &str| {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).args(["sh", "-c", script]);
            command.output().unwrap().status.success()
        };
        assert!(run("true"));
        assert_eq!(group.killed().unwrap(), 0);
        // What comes through a pipe is kept until its end is known.
        assert!(!run("head -c 64m /dev/zero | tail -c 64m >/dev/null"));
        assert!(group.killed().unwrap() > 0);
    }
}
