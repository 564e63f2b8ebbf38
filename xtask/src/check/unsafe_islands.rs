//! `unsafe` stays in the few files that exist to hold it.

use crate::repo::TextFile;
use crate::source;

use super::Finding;

/// Files and folders that may contain unsafe code, each with what only it can do.
///
/// The first are the product's four islands (device's may be a file or a
/// folder); a fifth needs a decision record. The others never ship.
const ISLANDS: &[(&str, &str)] = &[
    (
        "crates/protocol/src/pages.rs",
        "guest memory as scatter-gather vectors",
    ),
    ("crates/hostfs/src/sys/", "system calls that rustix lacks"),
    ("crates/device/src/memory.rs", "mapped guest memory"),
    ("crates/device/src/memory/", "mapped guest memory"),
    (
        "crates/virtiofsd/src/sys.rs",
        "fork, signal handlers, inherited descriptors",
    ),
    (
        "crates/protocol/src/testing.rs",
        "an in-memory guest, for tests only",
    ),
    (
        "crates/testkit/src/allocations.rs",
        "an allocator that counts, for tests only",
    ),
    (
        "crates/testkit/src/frontend/memory.rs",
        "mapped guest memory, from the guest's side",
    ),
    (
        "crates/testkit/src/bridge/device.rs",
        "an ioctl of /dev/fuse",
    ),
    (
        "crates/testkit/src/bridge/idmapped.rs",
        "a system call that rustix lacks",
    ),
    ("crates/testkit/src/bin/fuse-bridge.rs", "waits for signals"),
    (
        "crates/testkit/src/suites/behaviours/sys/",
        "children, locks of ranges and maps for checks of file systems",
    ),
    ("fuzz/src/guest.rs", "an in-memory guest, for fuzzing only"),
];

/// Where unsafe code, or the permission to write it, stands outside the islands.
pub(super) fn findings(files: &[TextFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.is_rust() && !is_island(&file.path))
        .flat_map(|file| {
            let code = source::code_only(&file.text);
            let lines: Vec<usize> = (1..)
                .zip(code.lines())
                .filter(|(_, line)| {
                    words(line).any(|word| word == "unsafe" || word == "unsafe_code")
                })
                .map(|(number, _)| number)
                .collect();
            lines
                .into_iter()
                .map(|line| Finding::at_line(file, line, "unsafe code outside the islands"))
        })
        .collect()
}

fn is_island(path: &str) -> bool {
    ISLANDS.iter().any(|(island, _)| {
        if island.ends_with('/') {
            path.starts_with(island)
        } else {
            path == *island
        }
    })
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    #[test]
    fn unsafe_code_is_found_outside_the_islands_only() {
        let cases = [
            (
                "crates/hostfs/src/ops/io.rs",
                "fn f() { unsafe { g() } }",
                1,
            ),
            (
                "crates/hostfs/src/lib.rs",
                "#![allow(unsafe_code, reason = \"x\")]\n",
                1,
            ),
            (
                "crates/hostfs/src/ops/io.rs",
                "// unsafe\nfn unsafely() { \"unsafe\"; }",
                0,
            ),
            ("crates/hostfs/src/sys/mount.rs", "unsafe { g() }", 0),
            ("crates/protocol/src/pages.rs", "unsafe { g() }", 0),
            ("crates/protocol/src/pages.rs.rs", "unsafe { g() }", 1),
        ];
        for (path, text, want) in cases {
            assert_eq!(findings(&[file(path, text)]).len(), want, "{path}: {text}");
        }
    }
}
