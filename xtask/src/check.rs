//! `cargo xtask check`: everything about the repository that can be judged without running it.
//!
//! A check is a function from what it looks at to its findings, so that each
//! has a test with a planted violation: a check that cannot fail is none. All
//! checks run, whatever the first ones find.

mod claims;
mod dependencies;
mod layers;
mod lines;
mod lints;
mod man_page;
mod policy;
mod rows;
mod unsafe_islands;
mod words;

use std::fmt;

use anyhow::{Result, ensure};

use crate::repo::{self, TextFile};

/// Options of `cargo xtask check`.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Only the checks that build nothing: sizes, unsafe code, layers, words
    #[arg(long)]
    quick: bool,
}

/// One thing that must be changed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    what: String,
}

impl Finding {
    /// Something in a line of a file; lines count from 1.
    fn at_line(file: &TextFile, line: usize, what: impl Into<String>) -> Self {
        Self {
            place: format!("{}:{line}", file.path),
            what: what.into(),
        }
    }

    /// Something about a whole file, crate or command.
    fn about(place: &str, what: impl Into<String>) -> Self {
        Self {
            place: place.to_owned(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that the checks look at, read once.
struct Subject {
    files: Vec<TextFile>,
    metadata: serde_json::Value,
}

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Findings(Vec<Finding>),
    /// It could not be made here, for this reason.
    Skipped(&'static str),
}

type Check = fn(&Subject) -> Result<Outcome>;

/// The checks that read sources and cargo's metadata; they take a second.
const QUICK: &[(&str, Check)] = &[
    ("size of files", |subject| {
        found(lines::too_long(&subject.files))
    }),
    ("ASCII source", |subject| {
        found(lines::not_ascii(&subject.files))
    }),
    ("unsafe code", |subject| {
        found(unsafe_islands::findings(&subject.files))
    }),
    ("layers: dependencies", |subject| {
        found(layers::dependency_findings(&subject.metadata)?)
    }),
    ("layers: paths", |subject| {
        found(layers::path_findings(&subject.files))
    }),
    ("C libraries", |subject| {
        found(dependencies::c_libraries(&subject.metadata)?)
    }),
    ("claims of documents", |subject| {
        found(claims::findings(&subject.files))
    }),
    ("rows of requests, flags and options", |subject| {
        found(rows::findings(&subject.files, &rows::options()))
    }),
    ("words", |subject| found(words::findings(&subject.files))),
];

/// The checks that build something or run another program.
const BUILDING: &[(&str, Check)] = &[
    ("format", |_| found(lints::format())),
    ("clippy", |_| found(lints::clippy())),
    ("fuzz targets", |_| found(lints::fuzz_targets())),
    ("documentation", |_| found(lints::documentation())),
    ("man page", |_| found(man_page::findings()?)),
    ("bans, licenses, sources", |_| policy::findings()),
    ("advisories", |_| policy::advisories()),
];

/// Runs the checks and fails if any has a finding.
pub(crate) fn run(args: &Args) -> Result<()> {
    let subject = Subject {
        files: repo::text_files()?,
        metadata: repo::metadata()?,
    };
    let building = if args.quick { &[] } else { BUILDING };
    let mut findings_total = 0;
    for (name, check) in QUICK.iter().chain(building) {
        let outcome = check(&subject)?;
        println!("check: {name}: {}", outcome.verdict());
        if let Outcome::Findings(findings) = outcome {
            findings
                .iter()
                .for_each(|finding| println!("    {finding}"));
            findings_total += findings.len();
        }
    }
    ensure!(findings_total == 0, "{findings_total} findings");
    Ok(())
}

fn found(findings: Vec<Finding>) -> Result<Outcome> {
    Ok(Outcome::Findings(findings))
}

impl Outcome {
    fn verdict(&self) -> String {
        match self {
            Self::Findings(findings) if findings.is_empty() => "ok".to_owned(),
            Self::Findings(_) => "FAILED".to_owned(),
            Self::Skipped(why) => format!("SKIPPED: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source file for a check's test.
    pub(super) fn file(path: &str, text: &str) -> TextFile {
        TextFile {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }
}
