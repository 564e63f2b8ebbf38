//! What a runtime is given: a root file system and its configuration (OCI runtime specification 1.0).

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::Result;

use crate::program;

use super::{Engine, MAPPED_ROOT, ORDINARY, Recipe, static_daemon};

/// Writes a bundle, and makes the directories that the container's user needs.
pub(super) fn write(recipe: &Recipe, place: &Path, share: &Path) -> Result<()> {
    let root = place.join("bundle/rootfs");
    for folder in ["share", "run", "proc", "dev"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let daemon = static_daemon()?;
    program::copy(&daemon, root.join("virtiofsd"))?;
    // Owners inside must be able to walk here.
    fs::set_permissions(place, Permissions::from_mode(0o755))?;
    let engine = match recipe.engine {
        Engine::Root | Engine::Mapped => 0,
        Engine::Rootless => ORDINARY,
    };
    for (folder, owner) in [
        ("state", engine),
        ("socket", recipe.host_id(recipe.uid)),
        // The runtime makes device nodes, or what stands for them, below.
        ("bundle/rootfs/dev", recipe.host_id(0)),
    ] {
        fs::create_dir_all(place.join(folder))?;
        chown(place.join(folder), Some(owner), Some(owner))?;
    }
    let owner = recipe.host_id(recipe.uid);
    chown(share, Some(owner), Some(owner))?;
    let socket = place.join("socket");
    let config = configuration(recipe, share, &socket);
    fs::write(place.join("bundle/config.json"), config)?;
    Ok(())
}

/// Strings without a quote or backslash, as a JSON array.
fn array(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let quoted: Vec<String> = words
        .into_iter()
        .map(|word| format!("\"{}\"", word.as_ref()))
        .collect();
    format!("[{}]", quoted.join(","))
}

fn configuration(recipe: &Recipe, share: &Path, socket: &Path) -> String {
    let arguments = [
        "/virtiofsd",
        "--socket-path=/run/vhost.sock",
        "--shared-dir=/share",
    ];
    let arguments = arguments.into_iter().map(str::to_owned);
    let arguments = array(arguments.chain(recipe.arguments.iter().cloned()));
    let capabilities = array(recipe.capabilities.iter().map(|name| format!("CAP_{name}")));
    let bind = |source: &Path, destination: &str| {
        format!(
            r#"{{"destination":"{destination}","type":"bind","source":"{}","options":["rbind","rw"]}}"#,
            source.display()
        )
    };
    format!(
        r#"{{"ociVersion":"1.0.2",
"process":{{"terminal":false,"user":{{"uid":{uid},"gid":{uid}}},"args":{arguments},"env":["PATH=/"],"cwd":"/",
 "capabilities":{{"bounding":{capabilities},"effective":{capabilities},"permitted":{capabilities}}},
 "noNewPrivileges":true,"rlimits":[{{"type":"RLIMIT_NOFILE","hard":4096,"soft":1024}}]}},
"root":{{"path":"rootfs","readonly":true}},
"mounts":[{{"destination":"/proc","type":"proc","source":"proc"}},{share},{socket}],
"linux":{linux}}}"#,
        uid = recipe.uid,
        share = bind(share, "/share"),
        socket = bind(socket, "/run"),
        linux = of_linux(recipe),
    )
}

/// What container engines hide of /proc.
const MASKED: [&str; 6] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
];
const ONLY_READ: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn of_linux(recipe: &Recipe) -> String {
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "network"];
    let mut rest = String::new();
    let map = match recipe.engine {
        Engine::Root => None,
        Engine::Mapped => Some((MAPPED_ROOT, 65536)),
        Engine::Rootless => Some((ORDINARY, 1)),
    };
    // Writing to a string cannot fail.
    if let Some((host, size)) = map {
        namespaces.push("user");
        let map = format!(r#"[{{"containerID":0,"hostID":{host},"size":{size}}}]"#);
        let _ = write!(rest, r#","uidMappings":{map},"gidMappings":{map}"#);
    }
    if let Some(limits) = recipe.limits {
        let period_us = 100_000;
        let quota_us = period_us / 100 * limits.cpu_percent;
        let _ = write!(
            rest,
            r#","cgroupsPath":"/virtiofsd-test-{}","resources":{{"memory":{{"limit":{}}},"cpu":{{"quota":{quota_us},"period":{period_us}}}}}"#,
            std::process::id(),
            limits.memory_bytes,
        );
    }
    let namespaces: Vec<String> = namespaces
        .iter()
        .map(|kind| format!(r#"{{"type":"{kind}"}}"#))
        .collect();
    format!(
        r#"{{"namespaces":[{}],"maskedPaths":{},"readonlyPaths":{}{rest}}}"#,
        namespaces.join(","),
        array(MASKED),
        array(ONLY_READ)
    )
}
