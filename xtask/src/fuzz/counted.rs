//! So many executions of a target, and the row that says so in `docs/results`.
//!
//! Counts add up over runs and processes; a run that finds something has its
//! row, too.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::repo::{self, Stamp};

use super::{Plan, Target, folders, root, where_the_input_is};

/// How often a target runs, by how many processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) execs: u64,
    pub(super) jobs: u64,
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    target: &'static str,
    sanitizer: &'static str,
    execs: u64,
    secs: u64,
    seed: u32,
    findings: usize,
}

/// Runs a target, writes its row, and fails if it found something.
pub(super) fn run(plan: &Plan, target: Target, count: Count) -> Result<()> {
    let [seeds, corpus, artifacts] = folders(&root(), target)?;
    plan.write_seeds(target, &seeds)?;
    let stamp = Stamp::now()?;
    let seed = fresh_seed();
    println!("fuzz: {} {} times, seed {seed}", target.name(), count.execs);
    let begun = Instant::now();
    let mut jobs = Vec::new();
    for job in 0..count.jobs {
        let share = count.execs / count.jobs + u64::from(job < count.execs % count.jobs);
        let mut fuzzer = plan.fuzzer(target, &artifacts);
        fuzzer.args([
            format!("-runs={share}"),
            format!("-seed={}", seed.wrapping_add(u32::try_from(job)?)),
        ]);
        fuzzer.arg(&corpus).arg(&seeds).stderr(Stdio::piped());
        jobs.push(
            fuzzer
                .spawn()
                .with_context(|| format!("cannot run {}", target.name()))?,
        );
    }
    let (mut execs, mut findings) = (0, 0);
    // Each is read to its end while the others run on: what a quiet target says fits into a pipe.
    for job in jobs {
        let (said, end) = outcome(job)?;
        execs += executed(&said).unwrap_or(0);
        if end == End::Found {
            findings += 1;
            eprintln!("{said}");
        }
    }
    let row = Row {
        target: target.name(),
        sanitizer: plan.sanitizer.name(),
        execs,
        secs: begun.elapsed().as_secs(),
        seed,
        findings,
    };
    let page = write(&stamp, &row)?;
    println!(
        "fuzz: {execs} executions of {} in {} s; written: {}",
        row.target,
        row.secs,
        page.display()
    );
    ensure!(findings == 0, where_the_input_is(target, &artifacts));
    ensure!(execs >= count.execs, "{execs} executions only");
    Ok(())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It found nothing: all was done, or it was told to stop and has counted until then.
    Nothing,
    Found,
}

/// libFuzzer's exit code after SIGINT or SIGTERM (`-interrupted_exitcode`).
const INTERRUPTED: i32 = 72;

/// What a process said, and how it ended.
fn outcome(mut job: Child) -> Result<(String, End)> {
    let mut said = Vec::new();
    if let Some(mut errors) = job.stderr.take() {
        errors.read_to_end(&mut said)?;
    }
    let end = match job.wait()?.code() {
        Some(0 | INTERRUPTED) => End::Nothing,
        Some(_) | None => End::Found,
    };
    Ok((String::from_utf8_lossy(&said).into_owned(), end))
}

/// The count in libFuzzer's statistics.
fn executed(said: &str) -> Option<u64> {
    let line = |line: &str| {
        line.strip_prefix("stat::number_of_executed_units:")
            .and_then(|count| count.trim().parse().ok())
    };
    said.lines().find_map(line)
}

/// A seed that no earlier run had, nor one of its processes.
fn fresh_seed() -> u32 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Tenths of a second in 31 bits: years pass before they come again.
    u32::try_from(since_epoch.as_millis() / 100 % (1 << 31)).unwrap_or(1)
}

/// Adds a row to the page of this day and commit.
fn write(stamp: &Stamp, row: &Row) -> Result<PathBuf> {
    let Stamp { date, commit } = stamp;
    let file = repo::results_dir()?.join(format!("{date}-{commit}-fuzz.md"));
    let before = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, with_row(before, stamp, row))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn with_row(mut page: String, stamp: &Stamp, row: &Row) -> String {
    if page.is_empty() {
        let Stamp { date, commit } = stamp;
        let _ = write!(
            page,
            "# Fuzzing, {date}\n\nCommit {commit}; `cargo xtask fuzz --target TARGET --execs N` adds a row.\n\n\
             | target | sanitizer | executions | seconds | seed | findings |\n|---|---|---:|---:|---:|---:|\n"
        );
    }
    let Row {
        target,
        sanitizer,
        execs,
        secs,
        seed,
        findings,
    } = row;
    let _ = writeln!(
        page,
        "| {target} | {sanitizer} | {execs} | {secs} | {seed} | {findings} |"
    );
    page
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_was_told_to_stop_has_found_nothing() {
        let end = |script: &str| {
            let mut command = Command::new("sh");
            let job = command.args(["-c", script]).stderr(Stdio::piped());
            outcome(job.spawn().unwrap()).unwrap()
        };
        assert_eq!(end("echo x >&2"), ("x\n".to_owned(), End::Nothing));
        assert_eq!(end("exit 72").1, End::Nothing);
        for found in ["exit 77", "exit 70", "kill -ABRT $$"] {
            assert_eq!(end(found).1, End::Found, "{found}");
        }
    }

    #[test]
    fn executions_are_those_that_libfuzzer_counts() {
        let said = "INFO: seed corpus\nstat::number_of_executed_units: 8873\nstat::average_exec_per_sec:     554\n";
        assert_eq!(executed(said), Some(8873));
        assert_eq!(executed("Segmentation fault"), None);
    }

    #[test]
    fn rows_of_one_commit_share_a_page_that_names_it() {
        let stamp = Stamp {
            date: "2026-01-02".to_owned(),
            commit: "abc".to_owned(),
        };
        let row = |execs| Row {
            target: "ring",
            sanitizer: "none",
            execs,
            secs: 3,
            seed: 9,
            findings: 0,
        };
        let page = with_row(String::new(), &stamp, &row(10));
        let page = with_row(page, &stamp, &row(20));
        assert_eq!(page.matches("Commit abc").count(), 1, "{page}");
        assert!(page.contains("2026-01-02"), "{page}");
        assert!(
            page.ends_with("| ring | none | 10 | 3 | 9 | 0 |\n| ring | none | 20 | 3 | 9 | 0 |\n"),
            "{page}"
        );
    }
}
