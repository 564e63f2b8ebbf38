//! Who may know what: the dependencies of each product crate, and the paths its source may name.
//!
//! `virtiofsd -> {device, hostfs} -> protocol`, and `device` and `hostfs`
//! never see each other. A dependency that is not in the table is a finding,
//! so a new one is a decision that shows in a diff of this file.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::repo::TextFile;
use crate::source;

use super::Finding;

/// What each crate but this one is built from, apart from its tests.
const DEPENDENCIES: &[(&str, &[&str])] = &[
    (
        "virtiofs-protocol",
        &["bitflags", "rustix", "thiserror", "zerocopy"],
    ),
    (
        "virtiofs-hostfs",
        &[
            "arc-swap",
            "bitflags",
            "hashbrown",
            "libc",
            "rustix",
            "thiserror",
            "tracing",
            "virtiofs-protocol",
        ],
    ),
    (
        "virtiofs-device",
        &[
            "arc-swap",
            "libc",
            "rustix",
            "thiserror",
            "tracing",
            "vhost",
            "virtio-queue",
            "vm-memory",
            "vmm-sys-util",
            "virtiofs-protocol",
        ],
    ),
    (
        "virtiofsd",
        &[
            "anyhow",
            "clap",
            "landlock",
            "libc",
            "rustix",
            "seccompiler",
            "siphasher",
            "thiserror",
            "tracing",
            "tracing-subscriber",
            "virtiofs-device",
            "virtiofs-hostfs",
            "virtiofs-protocol",
        ],
    ),
    // Of the product nothing: a layout that is wrong there must not agree with itself.
    (
        "virtiofs-testkit",
        &[
            "anyhow",
            "libc",
            "loom",
            "rustix",
            "tempfile",
            "thiserror",
            "zerocopy",
        ],
    ),
];

/// What tests alone may use of the workspace beyond their crate's own row.
const TEST_DEPENDENCY: &str = "virtiofs-testkit";

/// A path that one crate's source may not name, apart from its tests.
struct Forbidden {
    /// The folder whose files are meant.
    folder: &'static str,
    path: &'static str,
    /// Longer paths that are no harm: plain values and types.
    except: &'static [&'static str],
    /// Files in the folder that exist to use it.
    except_in: &'static [&'static str],
    why: &'static str,
}

const PROTOCOL: &str = "crates/protocol/src/";
const HOSTFS: &str = "crates/hostfs/src/";
const DEVICE: &str = "crates/device/src/";
const DEVICE_MEMORY: &[&str] = &["crates/device/src/memory.rs", "crates/device/src/memory/"];

const FORBIDDEN: &[Forbidden] = &[
    everywhere(PROTOCOL, "std::fs", "the protocol makes no system calls"),
    everywhere(PROTOCOL, "std::env", "the protocol makes no system calls"),
    everywhere(PROTOCOL, "std::net", "the protocol makes no system calls"),
    everywhere(
        PROTOCOL,
        "std::process",
        "the protocol makes no system calls",
    ),
    everywhere(PROTOCOL, "libc", "the protocol makes no system calls"),
    Forbidden {
        except: &["rustix::io::Errno", "rustix::io"],
        ..everywhere(
            PROTOCOL,
            "rustix",
            "of rustix the protocol takes Errno, a plain value",
        )
    },
    everywhere(
        HOSTFS,
        "std::fs",
        "a path by string could leave the share; names go through rustix and sys",
    ),
    everywhere(HOSTFS, "std::env", "only the daemon reads its environment"),
    Forbidden {
        except: &["std::process::abort"],
        ..everywhere(HOSTFS, "std::process", "a request starts no process")
    },
    everywhere(HOSTFS, "std::net", "a file system has no network"),
    everywhere(HOSTFS, "rustix::net", "a file system has no network"),
    Forbidden {
        except_in: &["crates/hostfs/src/sys/"],
        ..everywhere(HOSTFS, "libc", "raw system calls live in sys")
    },
    Forbidden {
        except: &["std::fs::File"],
        ..everywhere(DEVICE, "std::fs", "the device opens no files")
    },
    everywhere(DEVICE, "std::env", "only the daemon reads its environment"),
    everywhere(DEVICE, "std::process", "the device starts no process"),
    Forbidden {
        // About descriptors that it was handed.
        except: &[
            "rustix::fs::statx",
            "rustix::fs::AtFlags",
            "rustix::fs::StatxFlags",
            "rustix::fs::FileType",
            "rustix::fs::fcntl_getfl",
            "rustix::fs::fcntl_setfl",
            "rustix::fs::OFlags",
        ],
        except_in: DEVICE_MEMORY,
        ..everywhere(
            DEVICE,
            "rustix::fs",
            "the device touches no files but memory it was handed",
        )
    },
    everywhere(
        DEVICE,
        "rustix::process",
        "the device has no business with processes",
    ),
    everywhere(
        DEVICE,
        "rustix::thread",
        "identities are switched in hostfs",
    ),
    Forbidden {
        except_in: DEVICE_MEMORY,
        ..everywhere(DEVICE, "libc", "raw system calls live in memory")
    },
    Forbidden {
        except_in: &["crates/virtiofsd/src/main.rs"],
        ..everywhere(
            "crates/virtiofsd/src/",
            "std::process::exit",
            "only main ends the process",
        )
    },
    Forbidden {
        // What a store says of times is compared with the clock that it says it by.
        except_in: &[
            "crates/hostfs/src/cache.rs",
            "crates/hostfs/src/ops/lookup.rs",
            "crates/hostfs/src/casefold/spellings.rs",
            "crates/testkit/",
        ],
        ..everywhere("crates/", "std::time::SystemTime", CLOCK)
    },
    Forbidden {
        except_in: &["crates/hostfs/src/sys/raw.rs", "crates/testkit/"],
        ..everywhere("crates/", "libc::CLOCK_REALTIME_COARSE", CLOCK)
    },
    everywhere("crates/", "libc::CLOCK_REALTIME", CLOCK),
    everywhere("crates/", "rustix::time::ClockId::Realtime", CLOCK),
];

const CLOCK: &str = "the host's clock may jump: how long something takes is told by Instant";

const fn everywhere(folder: &'static str, path: &'static str, why: &'static str) -> Forbidden {
    Forbidden {
        folder,
        path,
        except: &[],
        except_in: &[],
        why,
    }
}

/// Dependencies that no row of the table allows.
pub(super) fn dependency_findings(metadata: &Value) -> Result<Vec<Finding>> {
    let packages = metadata["packages"]
        .as_array()
        .context("no packages in cargo's metadata")?;
    let local: Vec<&str> = packages
        .iter()
        .filter(|package| package["source"].is_null())
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut findings = Vec::new();
    for (name, allowed) in DEPENDENCIES {
        let Some(package) = packages.iter().find(|package| package["name"] == *name) else {
            findings.push(Finding::about(
                name,
                "has a row in the table and is not in the workspace",
            ));
            continue;
        };
        let dependencies = package["dependencies"]
            .as_array()
            .context("a package without dependencies")?;
        for dependency in dependencies {
            let on = dependency["name"]
                .as_str()
                .context("a dependency without a name")?;
            let for_tests = dependency["kind"] == "dev";
            let for_tests_only = on == TEST_DEPENDENCY || !local.contains(&on);
            let may = allowed.contains(&on) || (for_tests && for_tests_only);
            if !may {
                findings.push(Finding::about(name, format!("may not depend on {on}")));
            }
        }
    }
    Ok(findings)
}

/// Where the product's source names a path that its layer may not know.
pub(super) fn path_findings(files: &[TextFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.is_rust() && !file.is_test())
        .flat_map(|file| {
            let code = source::code_only(source::before_tests(&file.text));
            let named = source::paths(&code).into_iter();
            named.flat_map(move |named| {
                FORBIDDEN
                    .iter()
                    .filter(|rule| rule.forbids(&file.path, &named.path))
                    .map(|rule| {
                        Finding::at_line(
                            file,
                            named.line,
                            format!("names {}: {}", named.path, rule.why),
                        )
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect()
}

impl Forbidden {
    fn forbids(&self, file: &str, named: &str) -> bool {
        let within = |outer: &str| {
            named
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        file.starts_with(self.folder)
            && !self.except_in.iter().any(|place| file.starts_with(place))
            && within(self.path)
            && !self.except.iter().any(|path| within(path))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::file;
    use super::*;

    #[test]
    fn a_planted_path_is_found_and_an_allowed_one_is_not() {
        let cases = [
            ("crates/protocol/src/op.rs", "use std::{fmt, fs::File};", 1),
            ("crates/protocol/src/op.rs", "use rustix::fs::openat;", 1),
            ("crates/protocol/src/op.rs", "use rustix::io::Errno;", 0),
            ("crates/protocol/src/op.rs", "fn f() { libc::getpid(); }", 1),
            ("crates/protocol/src/op.rs", "// libc::getpid", 0),
            (
                "crates/protocol/src/op.rs",
                "#[cfg(test)]\nmod tests {\nuse std::fs;\n}",
                0,
            ),
            ("crates/protocol/src/testing.rs", "use std::fs;", 0),
            ("crates/hostfs/src/ops/io.rs", "use libc::iovec;", 1),
            ("crates/hostfs/src/sys/io.rs", "use libc::iovec;", 0),
            (
                "crates/hostfs/src/ops/io.rs",
                "use rustix::{fs::openat, io::Errno};",
                0,
            ),
            ("crates/device/src/queue.rs", "use rustix::{fs, event};", 1),
            (
                "crates/device/src/queue.rs",
                "let f = std::fs::File::from(fd);",
                0,
            ),
            (
                "crates/device/src/queue.rs",
                "let f = std::fs::read(path);",
                1,
            ),
            ("crates/device/src/queue.rs", "rustix::thread::gettid()", 1),
            ("crates/virtiofsd/src/plan.rs", "std::process::exit(1)", 1),
            ("crates/virtiofsd/src/main.rs", "std::process::exit(1)", 0),
            (
                "crates/device/src/worker.rs",
                "use std::time::{Duration, SystemTime};",
                1,
            ),
            (
                "crates/hostfs/src/cache.rs",
                "std::time::SystemTime::now()",
                0,
            ),
        ];
        for (path, text, want) in cases {
            assert_eq!(
                path_findings(&[file(path, text)]).len(),
                want,
                "{path}: {text}"
            );
        }
    }

    /// Cargo's metadata for product crates with these dependencies of `virtiofs-hostfs`.
    fn metadata(dependencies: &Value) -> Value {
        let empty = |name: &str| json!({"name": name, "source": null, "dependencies": []});
        json!({"packages": [
            empty("virtiofs-protocol"), empty("virtiofs-device"), empty("virtiofsd"),
            empty("virtiofs-testkit"),
            {"name": "virtiofs-hostfs", "source": null, "dependencies": dependencies},
        ]})
    }

    #[test]
    fn a_planted_dependency_is_found() {
        let cases = [
            (json!([{"name": "rustix", "kind": null}]), 0),
            (json!([{"name": "virtiofs-device", "kind": null}]), 1),
            (json!([{"name": "virtiofs-device", "kind": "dev"}]), 1),
            (json!([{"name": "virtiofs-testkit", "kind": "dev"}]), 0),
            (json!([{"name": "virtiofs-testkit", "kind": null}]), 1),
            (json!([{"name": "vm-memory", "kind": null}]), 1),
            (json!([{"name": "vm-memory", "kind": "build"}]), 1),
            (json!([{"name": "tempfile", "kind": "dev"}]), 0),
        ];
        for (dependencies, want) in cases {
            let found = dependency_findings(&metadata(&dependencies)).unwrap();
            assert_eq!(found.len(), want, "{dependencies}: {found:?}");
        }
    }

    #[test]
    fn a_crate_of_the_table_that_is_gone_is_found() {
        let found = dependency_findings(&json!({"packages": []})).unwrap();
        assert_eq!(found.len(), DEPENDENCIES.len());
    }
}
