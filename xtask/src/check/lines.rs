//! Files stay short enough to be read in one go, and plain enough for any editor.

use crate::repo::TextFile;
use crate::source;

use super::Finding;

/// Lines of a source file that hold code, before its tests; comments and blank lines are free.
const CODE_LINES_MAX: usize = 500;

/// Lines of a source file in all.
const LINES_MAX: usize = 800;

/// Files that may be longer, each with the reason; empty is the aim.
const LONGER: &[(&str, &str)] = &[];

/// Source files that want to be cut in two.
pub(super) fn too_long(files: &[TextFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.is_rust() && !LONGER.iter().any(|(path, _)| *path == file.path))
        .flat_map(|file| {
            let product = product_lines(file);
            let all = file.text.lines().count();
            let limits = [
                (product, CODE_LINES_MAX, "of code before its tests"),
                (all, LINES_MAX, "in all"),
            ];
            limits
                .into_iter()
                .filter(|(lines, most, _)| lines > most)
                .map(|(lines, most, which)| {
                    Finding::about(&file.path, format!("{lines} lines {which}, at most {most}"))
                })
        })
        .collect()
}

/// Lines of code that are not tests.
fn product_lines(file: &TextFile) -> usize {
    if file.is_test() {
        return 0;
    }
    let code = source::code_only(source::before_tests(&file.text));
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Lines of source that hold anything but ASCII.
pub(super) fn not_ascii(files: &[TextFile]) -> Vec<Finding> {
    let source = |file: &&TextFile| file.is_rust() || file.path.ends_with(".toml");
    files
        .iter()
        .filter(source)
        .flat_map(|file| {
            file.text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.is_ascii())
                .map(|(index, line)| {
                    let other: String = line.chars().filter(|c| !c.is_ascii()).collect();
                    Finding::at_line(file, index + 1, format!("not ASCII: {other}"))
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    #[test]
    fn a_file_over_either_limit_is_found() {
        let tests = "#[cfg(test)]\nmod tests {\n}\n";
        let cases = [
            ("x\n".repeat(500), 0),
            ("x\n// why\n".repeat(400), 0),
            ("x\n".repeat(501), 1),
            ("x\n".repeat(500) + tests + &"x\n".repeat(297), 0),
            ("x\n".repeat(500) + tests + &"x\n".repeat(298), 1),
            ("x\n".repeat(801), 2),
        ];
        for (text, want) in cases {
            assert_eq!(too_long(&[file("crates/a/src/lib.rs", &text)]).len(), want);
        }
        assert!(too_long(&[file("README.md", &"x\n".repeat(900))]).is_empty());
    }

    #[test]
    fn a_letter_outside_ascii_is_found_in_its_line() {
        let found = not_ascii(&[
            file("a.rs", "fn a() {}\n// gr\u{fc}n\n"),
            file("a.md", "\u{fc}"),
        ]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "a.rs:2");
    }
}
