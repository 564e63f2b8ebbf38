//! Runs one test binary under a time limit per test.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Surroundings;
use super::record::Entry;
use super::suites::{Suite, Tests};
use super::tally::{Echo, Reader};

/// Runs a suite, showing what it prints, and counts.
pub(super) fn suite(suite: Suite, surroundings: &Surroundings) -> Result<Entry> {
    let Suite {
        name,
        mut command,
        tests,
    } = suite;
    println!("\n== {name}");
    match tests {
        Tests::All => command.args(surroundings.filters_in(&name)),
        Tests::Named(mut tests) => {
            let whole = surroundings.admits(&name);
            tests.retain(|test| whole || surroundings.admits(test));
            if tests.is_empty() {
                return Ok(Entry::nothing(name));
            }
            command.arg("--exact").args(tests)
        }
    };
    command.arg("--show-output");
    command.envs(
        surroundings
            .environment
            .iter()
            .map(|(key, value)| (key, value)),
    );
    let begun = Instant::now();
    let mut reader = Reader::new();
    let show = |line: &str, reader: &mut Reader| {
        if let Echo::Show(line) = reader.line(line) {
            println!("{line}");
        }
    };
    let succeeded = watched(&mut command, surroundings.limit, |line| {
        show(line, &mut reader)
    })
    .with_context(|| format!("cannot run {name}"))?;
    Ok(Entry {
        name,
        results: reader.take_results(),
        tally: reader.finish(succeeded),
        time: begun.elapsed(),
    })
}

/// Runs a program, handing on its lines; false if it failed or was silent for longer than `limit`.
///
/// libtest prints a line whenever a test ends, so silence is one test's time.
fn watched(command: &mut Command, limit: Duration, mut on_line: impl FnMut(&str)) -> Result<bool> {
    // A group of its own, so that what a hung test started ends with it.
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = lines_of(&mut child)?;
    loop {
        match lines.recv_timeout(limit) {
            Ok(line) => on_line(&line),
            Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?.success()),
            Err(RecvTimeoutError::Timeout) => {
                println!(
                    "FAILED: no test ended for {} s; ended by force",
                    limit.as_secs()
                );
                let group = format!("-{}", child.id());
                Command::new("kill")
                    .args(["-KILL", "--", &group])
                    .status()?;
                child.wait()?;
                return Ok(false);
            }
        }
    }
}

/// Reads a child's output on a thread, so that waiting for a line can time out.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let output = child
        .stdout
        .take()
        .context("the program has no standard output")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_judged_by_its_exit_code() {
        let limit = Duration::from_secs(30);
        let mut lines = Vec::new();
        let ok = watched(&mut shell("echo a; echo b"), limit, |line| {
            lines.push(line.to_owned())
        });
        assert!(ok.unwrap());
        assert_eq!(lines, ["a", "b"]);
        assert!(!watched(&mut shell("exit 3"), limit, |_| ()).unwrap());
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let begun = Instant::now();
        let mut hung = shell("sleep 60 & echo a; wait");
        assert!(!watched(&mut hung, Duration::from_millis(300), |_| ()).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
