//! Models of what threads share: unit tests of their own, built with a checker's types in place of those
//! that threads share.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::repo::{self, TextFile};

use super::Surroundings;
use super::suites::{self, Binary, Suite, Tests};

/// Crates with models, in modules `model` of their unit tests.
const MODELLED: &[&str] = &["virtiofs-protocol", "virtiofs-hostfs", "virtiofs-device"];

/// Builds the models, unless the filters can only mean other tests: with other flags everything is another build.
pub(super) fn build(surroundings: &Surroundings) -> Result<Vec<Suite>> {
    if !sources()?
        .iter()
        .any(|source| may_be_meant(surroundings, source))
    {
        return Ok(Vec::new());
    }
    let mut cargo = Command::new("cargo");
    cargo.args([
        "test",
        "--lib",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    cargo.args(MODELLED.iter().flat_map(|package| ["--package", package]));
    cargo
        .arg("--target-dir")
        .arg(repo::target_dir().join("model"));
    let messages = build::messages(cargo.env("RUSTFLAGS", "--cfg model"))?;
    let binaries = messages.iter().filter_map(suites::binary);
    binaries.map(|binary| suite(&binary)).collect()
}

fn suite(binary: &Binary) -> Result<Suite> {
    let list = repo::output(Command::new(&binary.executable).args(["--list", "--format=terse"]))?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let models = names.filter(|name| name.contains("::model::"));
    Ok(Suite {
        name: suite_name(&binary.name),
        command: Command::new(&binary.executable),
        tests: Tests::Named(models.map(str::to_owned).collect()),
    })
}

/// The files that hold the models.
fn sources() -> Result<Vec<TextFile>> {
    let mut files = repo::text_files()?;
    files.retain(|file| file.path.ends_with("tests/model.rs"));
    Ok(files)
}

/// Whether a filter may be part of a test's whole name in this file, or is part of a suite's.
fn may_be_meant(surroundings: &Surroundings, source: &TextFile) -> bool {
    let mut suites = MODELLED
        .iter()
        .map(|package| suite_name(&format!("{} (lib)", package.replace('-', "_"))));
    let module = source.path.trim_end_matches(".rs").replace('/', "::");
    let means = |filter: &String| {
        let name = filter.rsplit("::").next().unwrap_or_default();
        module.contains(filter.as_str()) || source.text.contains(name)
    };
    suites.any(|suite| surroundings.admits(&suite)) || surroundings.filters.iter().any(means)
}

fn suite_name(binary: &str) -> String {
    format!("{binary} in every order")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Args;

    fn is_meant(filters: &[&str]) -> bool {
        let surroundings = Surroundings::new(&Args {
            long: false,
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        });
        let source = TextFile {
            path: "crates/device/src/seat/tests/model.rs".to_owned(),
            text: "#[test]\nfn a_row_is_found() {}\n".to_owned(),
        };
        may_be_meant(&surroundings, &source)
    }

    #[test]
    fn they_are_built_for_a_filter_that_may_mean_one() {
        let whole = "virtiofs_device (lib) in every order";
        for filter in [
            "a_row",
            "order",
            "virtiofs_device",
            "seat::tests",
            "model::a_row_is_found",
            whole,
        ] {
            assert!(is_meant(&["suites_fsx", filter]), "{filter}");
        }
        assert!(is_meant(&[]));
        assert!(!is_meant(&["suites_fsx"]));
    }

    #[test]
    fn there_are_sources_to_look_at() {
        let sources = sources().unwrap();
        let tested = sources
            .iter()
            .filter(|source| source.text.contains("#[test]"));
        assert!(tested.count() >= MODELLED.len());
    }
}
