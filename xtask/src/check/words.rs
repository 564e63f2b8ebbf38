//! Words that have no place in the repository: unfinished work, one machine's paths, package registries.

use crate::repo::TextFile;

use super::Finding;

/// Each word and why it must go. Written in pieces, so that this file passes.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "finish it or describe it in an issue"),
    (concat!("FIX", "ME"), "fix it or describe it in an issue"),
    (concat!("/work", "/"), "a path of one machine"),
    (concat!("/home", "/"), "a path of one machine"),
    (concat!("/tmp/br", "ief"), "a path of one machine"),
    (
        concat!("index.crates", ".io"),
        "a registry host: cargo's own configuration names it",
    ),
    (
        concat!("static.crates", ".io"),
        "a registry host: cargo's own configuration names it",
    ),
    (
        concat!("deb.deb", "ian.org"),
        "a registry host: the machine's own apt sources name it",
    ),
    (concat!("pypi", ".org"), "a registry host"),
    (concat!("registry.npm", "js.org"), "a registry host"),
];

/// Files that name a registry because cargo writes them so.
const GENERATED: &[&str] = &["Cargo.lock", "fuzz/Cargo.lock"];

/// Where a forbidden word stands.
pub(super) fn findings(files: &[TextFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| !GENERATED.contains(&file.path.as_str()))
        .flat_map(|file| {
            (1..)
                .zip(file.text.lines())
                .flat_map(move |(number, line)| {
                    WORDS
                        .iter()
                        .filter(|(word, _)| line.contains(word))
                        .map(move |(word, why)| {
                            Finding::at_line(file, number, format!("contains '{word}': {why}"))
                        })
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    #[test]
    fn every_word_of_the_list_is_found() {
        for (word, _) in WORDS {
            let found = findings(&[file("docs/a.md", &format!("first\nsee {word}x\n"))]);
            assert_eq!(found.len(), 1, "{word}");
            assert_eq!(found[0].place, "docs/a.md:2");
        }
        assert!(findings(&[file("docs/a.md", "to do, fix me, the work\n")]).is_empty());
    }
}
