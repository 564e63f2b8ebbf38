//! What the guest can ask and the operator can choose has a row in the document that says what comes of it.
//!
//! The lists are the code's own: every variant of `Op`, every flag of INIT, every option of the
//! command line. Each has to stand in the first cell of a row, in the section that is about its
//! like, whose last cell names a test; that the test exists is [`super::claims`]' concern.

use crate::repo::TextFile;

use super::Finding;

const DOCUMENT: &str = "docs/SEMANTICS.md";

/// A list of names in a source file, and the section that has their rows.
struct List {
    source: &'static str,
    begins: &'static str,
    section: &'static str,
    name_of: fn(&str) -> Option<String>,
}

const LISTS: &[List] = &[
    List {
        source: "crates/protocol/src/op.rs",
        begins: "pub enum Op<'a> {",
        section: "## Requests",
        name_of: request,
    },
    List {
        source: "crates/protocol/src/flags.rs",
        begins: "pub struct InitFlags: u64 {",
        section: "## INIT",
        name_of: flag,
    },
    List {
        source: "crates/protocol/src/flags.rs",
        begins: "pub struct FopenFlags: u32 {",
        section: "## Open files",
        name_of: flag,
    },
];

const OPTIONS: &str = "## Options";

/// Names without a row that names a test.
pub(super) fn findings(files: &[TextFile], options: &[String]) -> Vec<Finding> {
    let text_of = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.map_or("", |file| &file.text)
    };
    let document = text_of(DOCUMENT);
    let mut findings = Vec::new();
    for list in LISTS {
        let names = names(text_of(list.source), list);
        if names.is_empty() {
            let what = format!("there is no list that begins '{}'", list.begins);
            findings.push(Finding::about(list.source, what));
        }
        findings.extend(without_row(document, list.section, &names));
    }
    let options: Vec<_> = options.iter().map(|name| format!("--{name}")).collect();
    findings.extend(without_row(document, OPTIONS, &options));
    findings
}

/// The long options of the daemon, hidden ones too: older spellings are turned into these.
pub(super) fn options() -> Vec<String> {
    virtiofsd::cli::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

fn names(source: &str, list: &List) -> Vec<String> {
    source
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != list.begins)
        .skip(1)
        .take_while(|line| *line != "}")
        .filter_map(list.name_of)
        .collect()
}

/// `CopyFileRange64(..)` is COPY_FILE_RANGE_64.
fn request(line: &str) -> Option<String> {
    let end = line.find(|c: char| !c.is_ascii_alphanumeric());
    let variant = &line[..end.unwrap_or(line.len())];
    if !variant.starts_with(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    let mut name = String::new();
    let mut before = '_';
    for c in variant.chars() {
        let begins_word =
            c.is_ascii_uppercase() || (c.is_ascii_digit() && !before.is_ascii_digit());
        if begins_word && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
        before = c;
    }
    Some(name)
}

fn flag(line: &str) -> Option<String> {
    let name = line.strip_prefix("const ")?;
    Some(name.split([' ', ':']).next()?.to_owned())
}

fn without_row(document: &str, section: &str, names: &[String]) -> Vec<Finding> {
    let rows: Vec<_> = rows(document, section).collect();
    names
        .iter()
        .filter(|name| !rows.iter().any(|row| has(row, name)))
        .map(|name| {
            let what = format!("no row of '{section}' is about {name} and names a test");
            Finding::about(DOCUMENT, what)
        })
        .collect()
}

/// The rows of a section's tables, up to the next heading of the same or a higher level.
fn rows<'a>(document: &'a str, section: &'a str) -> impl Iterator<Item = &'a str> {
    document
        .lines()
        .skip_while(move |line| *line != section)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| "))
}

/// Whether the first cell has the name as a word and the last one a test.
fn has(row: &str, name: &str) -> bool {
    let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
    let [first, .., last] = cells[..] else {
        return false;
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut words = first.split(|c: char| !is_part(c));
    words.any(|word| word == name) && (last.contains("test: `") || last.contains("tests: `"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    const OP: &str = "pub enum Op<'a> {\n    /// One.\n    Lookup(Lookup<'a>),\n    Access { mask: u32 },\n    \
        CopyFileRange64(CopyFileRange),\n    Statfs,\n}\n\nenum Other {\n    Not,\n}\n";
    const FLAGS: &str = "    pub struct InitFlags: u64 {\n        /// One.\n        const ASYNC_READ = 1 << 0;\n    }\n    \
        pub struct FopenFlags: u32 {\n        const NOFLUSH = 1 << 5;\n    }\n";
    const ROWS: &str = "## Requests\n\n| *request* | *shown by* |\n|---|---|\n| LOOKUP, ACCESS | so | test: `a` |\n\
        | COPY_FILE_RANGE_64 of much | so | tests: `a`, `b` |\n| STATFS | so | test: `a` |\n\n## INIT\n\n\
        | ASYNC_READ | always | test: `a` |\n\n## Open files\n\n| FOPEN_NOFLUSH, NOFLUSH | so | test: `a` |\n\n\
        ## Options\n\n| `--cache`, `--tag` | so | test: `a` |\n";

    fn found(document: &str) -> Vec<String> {
        let files = [
            file("crates/protocol/src/op.rs", OP),
            file("crates/protocol/src/flags.rs", FLAGS),
            file(DOCUMENT, document),
        ];
        let options = ["cache", "tag"].map(str::to_owned);
        let whats = findings(&files, &options).into_iter();
        whats.map(|finding| finding.what).collect()
    }

    #[test]
    fn what_has_a_row_that_names_a_test_is_no_finding() {
        assert_eq!(found(ROWS), Vec::<String>::new());
    }

    /// Each row: what is taken out of the document, what stands there instead, and the name that is missed.
    #[test]
    fn a_name_without_a_row_of_its_own_section_is_found() {
        let cases = [
            ("LOOKUP, ", "", "LOOKUP"),
            ("ACCESS", "ACCESSES", "ACCESS"),
            (
                "COPY_FILE_RANGE_64",
                "COPY_FILE_RANGE",
                "COPY_FILE_RANGE_64",
            ),
            (
                "| STATFS | so | test: `a` |",
                "| STATFS | test: `a` | no test yet |",
                "STATFS",
            ),
            ("| STATFS |", "| other | STATFS |", "STATFS"),
            ("## INIT", "## Others", "ASYNC_READ"),
            ("NOFLUSH |", "NOFLUSHES |", "NOFLUSH"),
            ("`--tag`", "`--tags`", "--tag"),
        ];
        for (part, instead, want) in cases {
            assert!(ROWS.contains(part), "{part}");
            let findings = found(&ROWS.replace(part, instead));
            assert_eq!(findings.len(), 1, "{part}: {findings:?}");
            assert!(
                findings[0].contains(&format!("about {want} and")),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn a_list_that_is_not_where_it_was_is_found() {
        let files = [file(DOCUMENT, ROWS), file("crates/protocol/src/op.rs", OP)];
        let findings = findings(&files, &[]);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.what.contains("list")));
    }

    #[test]
    fn the_command_line_has_options() {
        let options = options();
        for name in ["shared-dir", "cache", "timeout", "no-xattr"] {
            assert!(options.iter().any(|option| option == name), "{name}");
        }
    }
}
