//! `cargo xtask coverage`: the lines of the parser, of chains and of messages that the fuzz targets reach.
//!
//! The targets are built once more, with the compiler's own counters, and run each input of their
//! seeds and of the corpus that `cargo xtask fuzz` has grown, then search on for a while. A line
//! that holds code and was run counts; unit tests in the same files do not, because they are not
//! built. The result is a table, and a page in `docs/results`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fuzz::{self, Target};
use crate::repo::{self, Stamp};
use crate::tools;

/// Options of `cargo xtask coverage`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target searches on after its corpus, in seconds
    #[arg(long, default_value_t = 30)]
    secs: u64,

    /// Fail below so many per cent of the lines
    #[arg(long, default_value_t = 95)]
    least: u64,

    /// Print the lines that were not reached
    #[arg(long)]
    missed: bool,
}

/// What a guest's and a front-end's bytes meet first: files or folders, by their path from the root.
const MEASURED: &[&str] = &[
    "crates/protocol/src/abi",
    "crates/protocol/src/fields.rs",
    "crates/protocol/src/flags.rs",
    "crates/protocol/src/ids.rs",
    "crates/protocol/src/malformed.rs",
    "crates/protocol/src/name.rs",
    "crates/protocol/src/offset.rs",
    "crates/protocol/src/op",
    "crates/protocol/src/op.rs",
    "crates/protocol/src/opcode.rs",
    "crates/protocol/src/request.rs",
    "crates/protocol/src/session",
    "crates/protocol/src/session.rs",
    "crates/device/src/chain.rs",
    "crates/device/src/message.rs",
    "crates/device/src/ring.rs",
];

/// Lines of a file with code on them, and how often each ran.
type Lines = BTreeMap<u64, u64>;

/// Measures, prints, writes the page, and fails where too little is reached.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::debian(fuzz::NEEDED)?;
    let llvm = Llvm::find()?;
    let stamp = Stamp::now()?;
    let programs = build()?;
    let profiles = tempfile::tempdir()?;
    for &target in Target::ALL {
        exercise(&programs, target, profiles.path(), args.secs)?;
    }
    let files = llvm.lines(&programs, profiles.path())?;
    if args.missed {
        print!("{}", missed(&files));
    }
    let page = page(&files, &stamp, args.secs);
    println!("{page}");
    let Stamp { date, commit } = &stamp;
    let file = repo::results_dir()?.join(format!("{date}-{commit}-coverage.md"));
    fs::write(&file, &page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written: {}", file.display());
    let (reached, all) = sum(files.values());
    ensure!(
        reached * 100 >= all * args.least,
        "{reached} of {all} lines are reached, {} % are due",
        args.least
    );
    Ok(())
}

/// The compiler's own programs: those of another version cannot read what it writes.
struct Llvm {
    folder: PathBuf,
}

impl Llvm {
    fn find() -> Result<Self> {
        let sysroot = repo::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let folder = Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(fuzz::PLATFORM)
            .join("bin");
        if !folder.join("llvm-profdata").is_file() {
            repo::run(Command::new("rustup").args(["component", "add", "llvm-tools"]))
                .context("the compiler's llvm-tools are needed")?;
        }
        Ok(Self { folder })
    }

    /// Merges what the programs have counted and reads it per line.
    fn lines(&self, programs: &Path, profiles: &Path) -> Result<BTreeMap<String, Lines>> {
        let merged = profiles.join("merged.profdata");
        let mut merge = Command::new(self.folder.join("llvm-profdata"));
        merge.args(["merge", "--sparse", "-o"]).arg(&merged);
        for &target in Target::ALL {
            merge.arg(profiles.join(profile(target)));
        }
        repo::run(&mut merge)?;
        let mut export = Command::new(self.folder.join("llvm-cov"));
        export.args([
            "export",
            "--format=text",
            "--skip-expansions",
            "--skip-functions",
        ]);
        export.arg(format!("--instr-profile={}", merged.display()));
        let mut programs = Target::ALL
            .iter()
            .map(|target| programs.join(target.name()));
        export.args(programs.next());
        for program in programs {
            export.arg("--object").arg(program);
        }
        let report: Value = serde_json::from_str(&repo::output(&mut export)?)?;
        lines(&report)
    }
}

/// Builds the targets with counters; returns the folder they are in.
fn build() -> Result<PathBuf> {
    let folder = fuzz::root().join("build-coverage");
    let flags = ["--cfg=fuzzing", "-Cinstrument-coverage"];
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--bins"])
        .args([
            "--manifest-path",
            "fuzz/Cargo.toml",
            "--target",
            fuzz::PLATFORM,
        ])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", flags.join(" "));
    repo::run(&mut cargo)?;
    Ok(folder.join(fuzz::PLATFORM).join("release"))
}

fn profile(target: Target) -> String {
    format!("{}.profraw", target.name())
}

/// Runs everything that was found before, then searches on.
fn exercise(programs: &Path, target: Target, profiles: &Path, secs: u64) -> Result<()> {
    let [seeds, corpus, artifacts] = fuzz::folders(&fuzz::root(), target)?;
    let ignored = profiles.join("ignored.profraw");
    let mut writer = Command::new(programs.join("seeds"));
    repo::run(
        writer
            .arg(target.name())
            .arg(&seeds)
            .env("LLVM_PROFILE_FILE", ignored),
    )?;
    let scratch = fuzz::scratch()?;
    let mut program = Command::new(programs.join(target.name()));
    program.env("TMPDIR", scratch.path()).args([
        format!("-max_total_time={secs}"),
        format!("-max_len={}", target.input_bytes_max()),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-verbosity=0".to_owned(),
    ]);
    program.arg(corpus).arg(seeds);
    repo::run(program.env("LLVM_PROFILE_FILE", profiles.join(profile(target))))
}

/// Reads a report of llvm-cov: per file, segments of (line, column, count, has count, is entry, is gap).
fn lines(report: &Value) -> Result<BTreeMap<String, Lines>> {
    let files = report["data"][0]["files"]
        .as_array()
        .context("no files in the report")?;
    let root = repo::root();
    let mut measured = BTreeMap::new();
    for file in files {
        let name = Path::new(file["filename"].as_str().context("a file without a name")?);
        let Ok(name) = name.strip_prefix(&root).or_else(|_| {
            // Crates of the workspace are named from the folder that cargo built in.
            name.strip_prefix("..")
        }) else {
            continue;
        };
        if MEASURED.iter().any(|part| name.starts_with(part)) {
            let segments = file["segments"].as_array().context("no segments")?;
            measured.insert(name.to_string_lossy().into_owned(), counts(segments));
        }
    }
    ensure!(!measured.is_empty(), "none of the files is in the report");
    Ok(measured)
}

/// The highest count of what begins on a line, or goes on over it.
fn counts(segments: &[Value]) -> Lines {
    let mut lines = Lines::new();
    let mut open: Option<(u64, u64)> = None;
    for segment in segments {
        let (line, count) = (
            segment[0].as_u64().unwrap_or(0),
            segment[2].as_u64().unwrap_or(0),
        );
        if let Some((from, count)) = open {
            for between in from + 1..line {
                let most = lines.entry(between).or_default();
                *most = count.max(*most);
            }
        }
        let counts = segment[3] == true && segment[5] != true;
        if counts && segment[4] == true {
            let most = lines.entry(line).or_default();
            *most = count.max(*most);
        }
        open = counts.then_some((line, count));
    }
    lines
}

/// Lines reached, and lines with code.
fn sum<'a>(files: impl Iterator<Item = &'a Lines>) -> (u64, u64) {
    files
        .flat_map(|lines| lines.values())
        .fold((0, 0), |(reached, all), count| {
            (reached + u64::from(*count > 0), all + 1)
        })
}

fn per_cent((reached, all): (u64, u64)) -> String {
    let tenths = (reached * 1000).checked_div(all).unwrap_or(1000);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn page(files: &BTreeMap<String, Lines>, stamp: &Stamp, secs: u64) -> String {
    let Stamp { date, commit } = stamp;
    let mut page = format!(
        "# Lines that the fuzz targets reach, {date}\n\n\
         Commit {commit}; `cargo xtask coverage`: the corpora of `cargo xtask fuzz`, and {secs} s of each target.\n\n\
         | file | lines | reached | |\n|---|---:|---:|---:|\n"
    );
    for (name, lines) in files {
        let counts = sum(std::iter::once(lines));
        if counts.1 > 0 {
            let _ = writeln!(
                page,
                "| {name} | {} | {} | {} |",
                counts.1,
                counts.0,
                per_cent(counts)
            );
        }
    }
    let total = sum(files.values());
    let _ = writeln!(
        page,
        "| all | {} | {} | {} |",
        total.1,
        total.0,
        per_cent(total)
    );
    page
}

fn missed(files: &BTreeMap<String, Lines>) -> String {
    let mut text = String::new();
    for (name, lines) in files {
        for (line, _) in lines.iter().filter(|(_, count)| **count == 0) {
            let _ = writeln!(text, "{name}:{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_counts_by_the_most_that_ran_on_it() {
        // Lines 3 to 5 ran twice, but for a part of line 4; from 7 on nothing did; 9 is a gap.
        let segments = json!([
            [3, 1, 2, true, true, false],
            [4, 9, 0, true, true, false],
            [4, 20, 2, true, false, false],
            [6, 2, 0, false, false, false],
            [7, 1, 0, true, true, false],
            [9, 1, 0, true, true, true],
            [9, 5, 0, false, false, false]
        ]);
        let lines = counts(segments.as_array().unwrap());
        assert_eq!(lines.get(&3), Some(&2));
        assert_eq!(lines.get(&5), Some(&2));
        assert_eq!(lines.get(&7), Some(&0));
        assert_eq!(lines.get(&8), Some(&0));
        assert_eq!(lines.get(&9), None);
    }

    #[test]
    fn the_page_sums_up_by_file_and_in_all() {
        let lines = |reached: u64| {
            (1..=4)
                .map(|line| (line, u64::from(line <= reached)))
                .collect()
        };
        let files = BTreeMap::from([("a.rs".to_owned(), lines(4)), ("b.rs".to_owned(), lines(3))]);
        let stamp = Stamp {
            date: "2026-01-02".to_owned(),
            commit: "abc".to_owned(),
        };
        let page = page(&files, &stamp, 30);
        for part in [
            "Commit abc",
            "| b.rs | 4 | 3 | 75.0 % |",
            "| all | 8 | 7 | 87.5 % |",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(missed(&files), "b.rs:4\n");
    }
}
