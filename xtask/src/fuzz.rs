//! `cargo xtask fuzz`: hostile bytes, found by coverage, for requests, sessions, rings and messages.
//!
//! The targets are programs of the crate in `fuzz/`, which is no part of the
//! workspace: it is built here with libFuzzer's coverage and the address
//! sanitizer, both of which a stable compiler has, if one knows the switches.
//! A corpus grows in the target directory and starts from golden requests.
//! With a number of executions instead of a time, `docs/results` gets a row.

mod counted;

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{repo, tools};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target; may be repeated
    #[arg(long, value_enum)]
    target: Vec<Target>,

    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60)]
    secs: u64,

    /// Run each target so many times instead, and write the result to docs/results
    #[arg(long, value_name = "N", conflicts_with_all = ["secs", "planted", "input"])]
    execs: Option<u64>,

    /// Processes that share the executions: most targets wait for threads more than they compute
    #[arg(long, value_name = "N", default_value_t = 1, requires = "execs")]
    jobs: u64,

    /// What watches memory besides libFuzzer
    #[arg(long, value_enum, default_value_t = Sanitizer::Address)]
    sanitizer: Sanitizer,

    /// Show that each target finds the defect planted in its harness, and fail if one does not
    #[arg(long)]
    planted: bool,

    /// Run the target once on this file, as a crash has left it
    #[arg(
        long,
        value_name = "FILE",
        requires = "target",
        conflicts_with = "planted"
    )]
    input: Option<PathBuf>,
}

impl Args {
    /// Every target for a minute.
    pub(crate) fn search() -> Self {
        Self {
            target: Vec::new(),
            secs: 60,
            execs: None,
            jobs: 1,
            sanitizer: Sanitizer::Address,
            planted: false,
            input: None,
        }
    }

    /// Every target until it has found what was planted, a minute at most.
    pub(crate) fn planted() -> Self {
        Self {
            planted: true,
            ..Self::search()
        }
    }
}

/// What the compiler adds to the programs, besides coverage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sanitizer {
    /// Accesses outside allocations; runs about a tenth as fast
    Address,
    /// Nothing but debug assertions and checked arithmetic: for large counts
    None,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::None => "none",
        }
    }

    /// A folder of its own, so that one build does not throw the other away.
    fn build_dir(self) -> &'static str {
        match self {
            Self::Address => "build",
            Self::None => "build-plain",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Address => Some("-Zsanitizer=address"),
            Self::None => None,
        }
    }
}

/// A program in `fuzz/src/bin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Target {
    /// The bytes of one request, to nobody and to a real directory
    Request,
    /// Guest memory with a ring in it
    Ring,
    /// vhost-user messages with descriptors
    Messages,
    /// A sequence of requests to a real directory, beside a model of it
    Session,
}

impl Target {
    pub(crate) const ALL: &'static [Self] =
        &[Self::Request, Self::Ring, Self::Messages, Self::Session];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Ring => "ring",
            Self::Messages => "messages",
            Self::Session => "session",
        }
    }

    /// Longest input tried, in bytes: above it nothing new is said, only more slowly.
    pub(crate) fn input_bytes_max(self) -> u32 {
        match self {
            Self::Request => 6000,
            Self::Ring => 3000,
            Self::Messages => 2000,
            Self::Session => 1500,
        }
    }
}

/// The platform is named, so that only the targets are instrumented and no build script.
pub(crate) const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Coverage as libFuzzer reads it.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// libFuzzer is C++.
pub(crate) const NEEDED: &[(&str, &str)] = &[("c++", "g++")];

/// A single input may take so long before it counts as a hang.
const INPUT_LIMIT: Duration = Duration::from_secs(20);

/// Memory of a target before it counts as a leak, in MiB.
const MEMORY_LIMIT_MIB: u32 = 2048;

/// Runs the targets: as many at once as there are processors, but for counts, which have processes of their own.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::debian(NEEDED)?;
    let plan = Plan {
        scratch: scratch()?,
        programs: build(args.sanitizer, args.planted)?,
        sanitizer: args.sanitizer,
        secs: args.secs,
    };
    let targets = if args.target.is_empty() {
        Target::ALL
    } else {
        &args.target[..]
    };
    if let Some(execs) = args.execs {
        let jobs = args.jobs.max(1);
        let mut targets = targets.iter();
        return targets
            .try_for_each(|&target| counted::run(&plan, target, counted::Count { execs, jobs }));
    }
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    side_by_side(targets, processors, |target| match &args.input {
        Some(input) => plan.once(target, input),
        None if args.planted => plan.find_planted(target),
        None => plan.search(target),
    })
}

/// Does the work for each target, for so many at once; the first failure ends it once those beside it are done.
fn side_by_side(
    targets: &[Target],
    most: usize,
    work: impl Fn(Target) -> Result<()> + Sync,
) -> Result<()> {
    targets.chunks(most).try_for_each(|few| {
        thread::scope(|scope| {
            let work = &work;
            let begun: Vec<_> = few
                .iter()
                .map(|&target| scope.spawn(move || work(target)))
                .collect();
            // All are waited for, whichever fails.
            let ended: Vec<Result<()>> = begun
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| bail!("a target's thread panicked"))
                })
                .collect();
            ended.into_iter().collect()
        })
    })
}

/// Builds all targets; returns the folder they are in.
fn build(sanitizer: Sanitizer, planted: bool) -> Result<PathBuf> {
    let folder = root().join(sanitizer.build_dir());
    let flags: Vec<&str> = FLAGS.iter().copied().chain(sanitizer.flag()).collect();
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--bins"])
        .args(["--manifest-path", "fuzz/Cargo.toml", "--target", PLATFORM])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", flags.join(" "))
        // The sanitizer's runtime is part of every toolchain; its switch is not stable yet.
        .env("RUSTC_BOOTSTRAP", "1");
    if planted {
        cargo.args(["--features", "planted"]);
    }
    repo::run(&mut cargo)?;
    Ok(folder.join(PLATFORM).join("release"))
}

pub(crate) fn root() -> PathBuf {
    repo::target_dir().join("fuzz")
}

/// A folder for the directories that targets share, in memory where the machine has such a file system. They do not
/// remove them: libFuzzer ends a process at once.
pub(crate) fn scratch() -> Result<TempDir> {
    let in_memory = Path::new("/dev/shm");
    let folder = if in_memory.is_dir() {
        tempfile::tempdir_in(in_memory)
    } else {
        tempfile::tempdir()
    };
    folder.context("no folder for the targets")
}

/// What is the same for all targets.
struct Plan {
    scratch: TempDir,
    programs: PathBuf,
    sanitizer: Sanitizer,
    secs: u64,
}

impl Plan {
    /// Searches on from what earlier runs have found.
    fn search(&self, target: Target) -> Result<()> {
        let [seeds, corpus, artifacts] = folders(&root(), target)?;
        self.write_seeds(target, &seeds)?;
        println!("fuzz: {} for {} s", target.name(), self.secs);
        let mut fuzzer = self.timed(target, &artifacts);
        let found = repo::run(fuzzer.arg(corpus).arg(seeds));
        found.with_context(|| where_the_input_is(target, &artifacts))
    }

    /// Searches from the seeds alone, in a build with a planted defect, until it is found.
    fn find_planted(&self, target: Target) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let [seeds, corpus, artifacts] = folders(folder.path(), target)?;
        self.write_seeds(target, &seeds)?;
        let mut fuzzer = self.timed(target, &artifacts);
        let output = fuzzer
            .args([corpus, seeds])
            .output()
            .with_context(|| format!("cannot run {}", target.name()))?;
        let crashes = fs::read_dir(&artifacts)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("crash-"))
            .count();
        ensure!(
            crashes > 0 && !output.status.success(),
            "{} did not find the planted defect within {} s",
            target.name(),
            self.secs
        );
        println!("fuzz: {} finds what was planted", target.name());
        Ok(())
    }

    /// Repeats one input.
    fn once(&self, target: Target, input: &Path) -> Result<()> {
        if !input.is_file() {
            bail!("there is no {}", input.display());
        }
        repo::run(self.program(target).arg(input))
    }

    /// A target that ends when its time is over.
    fn timed(&self, target: Target, artifacts: &Path) -> Command {
        let mut fuzzer = self.fuzzer(target, artifacts);
        fuzzer.arg(format!("-max_total_time={}", self.secs));
        fuzzer
    }

    fn fuzzer(&self, target: Target, artifacts: &Path) -> Command {
        let mut fuzzer = self.program(target);
        fuzzer.args([
            format!("-timeout={}", INPUT_LIMIT.as_secs()),
            format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"),
            format!("-max_len={}", target.input_bytes_max()),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ]);
        fuzzer
    }

    fn program(&self, target: Target) -> Command {
        let mut program = Command::new(self.programs.join(target.name()));
        program.env("TMPDIR", self.scratch.path());
        program
    }

    fn write_seeds(&self, target: Target, folder: &Path) -> Result<()> {
        let mut writer = Command::new(self.programs.join("seeds"));
        // It ends at once, so what it leaks is nobody's loss.
        writer.env("ASAN_OPTIONS", "detect_leaks=0");
        repo::run(writer.arg(target.name()).arg(folder))
    }
}

fn where_the_input_is(target: Target, artifacts: &Path) -> String {
    format!(
        "{}: the input is in {}; 'cargo xtask fuzz --target {} --input FILE' repeats it",
        target.name(),
        artifacts.display(),
        target.name()
    )
}

/// Folders of a target below `root`: seeds, corpus and what crashed.
pub(crate) fn folders(root: &Path, target: Target) -> Result<[PathBuf; 3]> {
    let folders = ["seeds", "corpus", "artifacts"].map(|kind| root.join(kind).join(target.name()));
    for folder in &folders {
        fs::create_dir_all(folder)?;
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_failure_is_told_once_those_beside_it_are_done() {
        for most in [1, 2, 8] {
            let seen: Mutex<Vec<Target>> = Mutex::default();
            let outcome = side_by_side(Target::ALL, most, |target| {
                seen.lock().unwrap().push(target);
                ensure!(target != Target::Request, "found");
                Ok(())
            });
            assert_eq!(outcome.unwrap_err().to_string(), "found");
            let seen = seen.into_inner().unwrap();
            assert_eq!(seen.len(), most.min(Target::ALL.len()), "{seen:?}");
        }
        side_by_side(Target::ALL, 3, |_| Ok(())).unwrap();
    }
}
