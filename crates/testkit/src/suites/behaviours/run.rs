//! Runs every check, each in a process of its own and in a directory of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, chdir, kill_process_group, setpgid, umask};

use super::kit::{Ended, Outcome, Task, mode};
use super::{Check, FAMILIES, planted};

/// Longest that one check may take, on a machine that has other work.
const LIMIT: Duration = Duration::from_secs(120);

/// Longest that one of the planted checks may take, of which one takes for ever.
const PLANTED_LIMIT: Duration = Duration::from_secs(5);

/// Runs the checks whose names contain `filter`, and prints a line for each.
pub fn run(directory: &Path, filter: &str, out: &mut impl std::io::Write) -> Result<()> {
    let checks = FAMILIES.iter().flat_map(|family| family.iter());
    run_all(directory, checks, filter, LIMIT, out)
}

/// Runs checks that fail in every way, and prints a line for each.
pub fn run_planted(directory: &Path, out: &mut impl std::io::Write) -> Result<()> {
    run_all(directory, planted::CHECKS.iter(), "", PLANTED_LIMIT, out)
}

fn run_all<'a>(
    directory: &Path,
    checks: impl Iterator<Item = &'a Check>,
    filter: &str,
    limit: Duration,
    out: &mut impl std::io::Write,
) -> Result<()> {
    ensure!(rustix::process::getuid().is_root(), "needs root");
    umask(mode(0o022));
    let mut count = 0_u32;
    for check in checks {
        let name = format!("{}::{}", check.family, check.name);
        if !name.contains(filter) {
            continue;
        }
        count += 1;
        let line = match one(directory, check, limit)? {
            Ok(()) => format!("{name} PASS"),
            Err(Ended::Fail(why)) => format!("{name} FAIL {}", on_one_line(&why)),
            Err(Ended::NotHere(why)) => format!("{name} NOTHERE {}", on_one_line(&why)),
        };
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    writeln!(out, "checks: {count}")?;
    Ok(())
}

fn one(directory: &Path, check: &Check, limit: Duration) -> Result<Outcome> {
    let place = directory.join(format!("{}-{}", check.family, check.name));
    fs::create_dir(&place).with_context(|| place.display().to_string())?;
    let run = check.run;
    let task = Task::start(|| {
        // What it leaves behind is ended with its group.
        setpgid(None, None)?;
        chdir(&place)?;
        run()
    });
    let task = match task {
        Ok(task) => task,
        Err(why) => return Ok(Err(why)),
    };
    let (group, in_time) = (task.child().pid(), task.child().ends_within(limit)?);
    if !in_time {
        task.child().kill();
    }
    end_group(group);
    let outcome = task.finish();
    // What cannot be removed stays, and is nobody's fault but the check's.
    let removed = fs::remove_dir_all(&place);
    Ok(match (in_time, outcome, removed) {
        (false, ..) => Err(Ended::Fail(format!("took over {limit:?}"))),
        (true, Ok(()), Err(why)) => Err(Ended::Fail(format!("cannot be removed: {why}"))),
        (true, outcome, _) => outcome,
    })
}

fn end_group(group: Pid) {
    let _ = kill_process_group(group, Signal::KILL);
}

fn on_one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        if character.is_control() {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}
