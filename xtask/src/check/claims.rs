//! Documents that promise something name the test that shows it.
//!
//! A claim says ``test: `name_of_a_test` `` or ``tests: `one`, `other` ``, up
//! to the end of its line, a closing parenthesis or a table's bar. Where there
//! is none yet, it says `no test yet`.

use std::collections::BTreeSet;

use crate::repo::TextFile;

use super::Finding;

/// Documents whose tests must exist.
const DOCUMENTS: &[&str] = &[
    "docs/SEMANTICS.md",
    "docs/THREATS.md",
    "docs/SANDBOX.md",
    "docs/GUESTS.md",
    TRIED,
];

/// The one that names every test of a hostile guest or front-end.
const TRIED: &str = "docs/HOSTILE.md";

/// Where those tests are.
const HOSTILE: &str = "crates/testkit/tests/hostile_";

/// The one in which every item of a list and every row of a table is a claim.
const ALL_CLAIMS: &str = "docs/SEMANTICS.md";

const WITHOUT: &str = "no test yet";

/// Names of tests that are none, and claims without either.
pub(super) fn findings(files: &[TextFile]) -> Vec<Finding> {
    let tests: BTreeSet<&str> = files
        .iter()
        .filter(|file| file.is_rust())
        .flat_map(|file| marked_tests(&file.text))
        .collect();
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| DOCUMENTS.contains(&file.path.as_str()))
    {
        for (number, line) in (1..).zip(file.text.lines()) {
            let named = named(line);
            if file.path == ALL_CLAIMS && is_claim(line) && named.is_empty() {
                if !line.contains(WITHOUT) {
                    let what = format!("a claim without a test; name one, or say '{WITHOUT}'");
                    findings.push(Finding::at_line(file, number, what));
                }
                continue;
            }
            for name in named.into_iter().filter(|name| !tests.contains(name)) {
                let what = format!("there is no test '{name}'");
                findings.push(Finding::at_line(file, number, what));
            }
        }
    }
    findings.extend(not_in_the_map(files));
    findings
}

/// Hostile tests that the map of what is tried leaves out: all of them, where there is no map.
fn not_in_the_map(files: &[TextFile]) -> impl Iterator<Item = Finding> {
    let map = files.iter().filter(|file| file.path == TRIED);
    let known: BTreeSet<&str> = map
        .flat_map(|file| file.text.lines().flat_map(named))
        .collect();
    let hostile = files.iter().filter(|file| file.path.starts_with(HOSTILE));
    hostile
        .flat_map(|file| marked_tests(&file.text))
        .filter(move |name| !known.contains(name))
        .map(|name| Finding::about(TRIED, format!("no row names the test '{name}'")))
}

/// Whether a line of Markdown is an item of a list, or a row of a table but its head.
fn is_claim(line: &str) -> bool {
    let is_row = line.starts_with('|') && !line.starts_with("|--") && !line.starts_with("| *");
    is_row || line.starts_with("- ")
}

/// What stands in backticks behind `test:` or `tests:`.
fn named(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for behind in line
        .split("test: ")
        .skip(1)
        .chain(line.split("tests: ").skip(1))
    {
        let claim = behind.split([')', '|']).next().unwrap_or_default();
        named.extend(claim.split('`').skip(1).step_by(2));
    }
    named
}

/// Functions marked as tests.
fn marked_tests(text: &str) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            marked = true;
        } else if let Some(name) = function(line).filter(|_| marked) {
            tests.push(name);
            marked = false;
        }
    }
    tests
}

fn function(line: &str) -> Option<&str> {
    line.strip_prefix("fn ")?.split('(').next()
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    const SOURCE: &str =
        "#[test]\nfn it_holds() {}\n\n#[test]\n#[ignore]\nfn this_too() {}\nfn no_test() {}\n";

    fn found(path: &str, text: &str) -> Vec<String> {
        let files = [file("crates/a/tests/a.rs", SOURCE), file(path, text)];
        findings(&files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_test_that_is_not_there_is_found() {
        let cases = [
            ("- so (test: `it_holds`)\n", 0),
            ("- so (tests: `it_holds`, `this_too`) and `so`\n", 0),
            ("| so | test: `it_holds` | `O_EXCL` |\n", 0),
            ("- so (test: `it_fails`)\n", 1),
            ("- so (test: `no_test`)\n", 1),
            ("- so (tests: `it_holds`, `nor_this`, `nor_that`)\n", 2),
        ];
        for (text, want) in cases {
            for document in DOCUMENTS {
                assert_eq!(found(document, text).len(), want, "{document}: {text}");
            }
            assert!(found("docs/OTHER.md", text).is_empty());
        }
    }

    #[test]
    fn a_hostile_test_that_no_row_names_is_found() {
        let hostile = "#[test]\nfn v_one() {}\n#[test]\nfn v_two() {}\n";
        for (text, want) in [
            ("| a | test: `v_one` |\n| b | test: `v_two` |\n", 0),
            ("| a | test: `v_one` |\n", 1),
            ("nothing\n", 2),
        ] {
            let files = [
                file("crates/testkit/tests/hostile_ends.rs", hostile),
                file(TRIED, text),
            ];
            assert_eq!(findings(&files).len(), want, "{text}");
        }
        let without_a_map = [file("crates/testkit/tests/hostile_ends.rs", hostile)];
        assert_eq!(findings(&without_a_map).len(), 2);
    }

    #[test]
    fn a_claim_without_a_test_says_so() {
        let cases = [
            ("A sentence.\n", 0),
            ("- a claim, no test yet\n", 0),
            ("- a claim\n", 1),
            ("| *what* | *shown by* |\n|---|---|\n| a claim | |\n", 1),
            ("| a claim | no test yet |\n", 0),
        ];
        for (text, want) in cases {
            assert_eq!(found(ALL_CLAIMS, text).len(), want, "{text}");
            assert!(found("docs/THREATS.md", text).is_empty());
        }
    }
}
