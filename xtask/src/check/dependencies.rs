//! The daemon links no C library but libc, so that a static build works and one audit is enough.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// Crates that look like bindings to a C library and are not.
const PURE_RUST: &[(&str, &str)] = &[(
    "linux-raw-sys",
    "constants and structs of the kernel; nothing is linked",
)];

/// Crates below the daemon, its tests left out, that link a C library.
pub(super) fn c_libraries(metadata: &Value) -> Result<Vec<Finding>> {
    let packages: HashMap<&str, &Value> = metadata["packages"]
        .as_array()
        .context("no packages in cargo's metadata")?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let built = built_into(metadata, &packages, "virtiofsd")?;
    let mut findings: Vec<Finding> = built
        .into_iter()
        .filter_map(|id| c_library(packages.get(id)?))
        .collect();
    findings.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(findings)
}

/// The ids of everything that is built into a package of the workspace.
fn built_into<'a>(
    metadata: &'a Value,
    packages: &HashMap<&'a str, &'a Value>,
    name: &str,
) -> Result<HashSet<&'a str>> {
    let nodes: HashMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .context("no resolved dependencies in cargo's metadata")?
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let (start, _) = packages
        .iter()
        .find(|(_, package)| package["name"] == name && package["source"].is_null())
        .with_context(|| format!("no package {name}"))?;
    let mut waiting = vec![*start];
    let mut reached = HashSet::new();
    while let Some(id) = waiting.pop() {
        if !reached.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).and_then(|node| node["deps"].as_array());
        for dependency in dependencies.into_iter().flatten() {
            let kinds = dependency["dep_kinds"]
                .as_array()
                .context("a dependency without kinds")?;
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                waiting.push(
                    dependency["pkg"]
                        .as_str()
                        .context("a dependency without an id")?,
                );
            }
        }
    }
    Ok(reached)
}

fn c_library(package: &Value) -> Option<Finding> {
    let name = package["name"].as_str()?;
    if PURE_RUST.iter().any(|(pure, _)| *pure == name) {
        return None;
    }
    if let Some(library) = package["links"].as_str() {
        return Some(Finding::about(
            name,
            format!("links the C library {library}"),
        ));
    }
    name.ends_with("-sys")
        .then(|| Finding::about(name, "looks like bindings to a C library"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Metadata in which `virtiofsd` depends on `middle`, and that on a package given here.
    fn metadata(name: &str, links: &Value, kind: &Value) -> Value {
        let package = |name: &str, source: Value, links: &Value| json!({"id": name, "name": name, "source": source, "links": links});
        let node = |id: &str, on: &str, kind: &Value| json!({"id": id, "deps": [{"pkg": on, "dep_kinds": [{"kind": kind}]}]});
        json!({
            "packages": [
                package("virtiofsd", Value::Null, &Value::Null),
                package("middle", json!("registry"), &Value::Null),
                package(name, json!("registry"), links),
            ],
            "resolve": {"nodes": [
                node("virtiofsd", "middle", &Value::Null),
                node("middle", name, kind),
            ]},
        })
    }

    #[test]
    fn a_planted_c_library_is_found_at_any_depth() {
        let none = Value::Null;
        let cases = [
            (metadata("seccomp", &json!("seccomp"), &none), 1),
            (metadata("cap-ng-sys", &none, &none), 1),
            (metadata("linux-raw-sys", &none, &none), 0),
            (metadata("plain", &none, &none), 0),
            (metadata("seccomp", &json!("seccomp"), &json!("build")), 1),
            (metadata("seccomp", &json!("seccomp"), &json!("dev")), 0),
        ];
        for (metadata, want) in cases {
            assert_eq!(c_libraries(&metadata).unwrap().len(), want, "{metadata}");
        }
    }
}
