//! Each mode in each environment: it starts and serves, or exits 1 with a line that says what to do.

mod common;

use anyhow::{Context, Result, ensure};
use common::{
    BARE_CONTAINER, CONTAINER, Privileges, READ_ONLY_ROOT, ROOT_OF_A_USER, ROOT_USER,
    ROOT_WITH_NOTHING, ROOT_WITHOUT_ADMIN, USER, run_through, serves, share_of,
};
use virtiofs_testkit::fuse::Session;

/// What is promised.
#[derive(Clone, Copy)]
enum Promise {
    /// It serves; the log says this.
    Serves(&'static str),
    /// It does not start; the line says this.
    Refuses(&'static str),
}
use Promise::{Refuses, Serves};

const NO_CHROOT: Promise = Refuses("needs CAP_SYS_CHROOT; try --sandbox none or auto");
const NO_MAP: Promise =
    Refuses("forbids the map; see --uid-map and --gid-map, or try --sandbox auto");
const WAITS: Promise = Serves("Waiting for vhost-user socket connection...");

/// Environment, then namespace, chroot, none and auto.
const MATRIX: [(Privileges, [Promise; 4]); 8] = [
    (
        ROOT_USER,
        [WAITS, WAITS, WAITS, Serves("auto: namespace, because")],
    ),
    (
        ROOT_WITHOUT_ADMIN,
        [WAITS, WAITS, WAITS, Serves("auto: chroot, because")],
    ),
    (
        CONTAINER,
        [WAITS, WAITS, WAITS, Serves("auto: chroot, because")],
    ),
    (
        BARE_CONTAINER,
        [NO_MAP, NO_CHROOT, WAITS, Serves("auto: none, because")],
    ),
    (
        ROOT_WITH_NOTHING,
        [NO_MAP, NO_CHROOT, WAITS, Serves("auto: none, because")],
    ),
    (
        ROOT_OF_A_USER,
        [WAITS, WAITS, WAITS, Serves("auto: namespace, because")],
    ),
    (
        USER,
        [
            WAITS,
            NO_CHROOT,
            WAITS,
            Serves("auto: namespace in a user namespace, because"),
        ],
    ),
    (
        READ_ONLY_ROOT,
        [WAITS, WAITS, WAITS, Serves("auto: namespace, because")],
    ),
];

#[test]
fn each_mode_in_each_environment_serves_or_says_what_to_do() -> Result<()> {
    for (privileges, promises) in &MATRIX {
        if !privileges.available() {
            return Ok(());
        }
        for (mode, promise) in ["namespace", "chroot", "none", "auto"]
            .into_iter()
            .zip(promises)
        {
            let kept = match promise {
                Serves(says) => keeps_serving(privileges, mode, says),
                Refuses(says) => refuses(privileges, mode, says),
            };
            kept.with_context(|| format!("{}, --sandbox {mode}", privileges.name))?;
        }
    }
    Ok(())
}

fn keeps_serving(privileges: &Privileges, mode: &'static str, says: &str) -> Result<()> {
    let share = share_of(privileges.uid)?;
    let daemon = privileges.launch(share.path()).sandbox(mode).start()?;
    let mut session = Session::open(daemon.socket()).with_context(|| daemon.log())?;
    serves(&mut session, share.path())?;
    ensure!(daemon.log().contains(says), "{}", daemon.log());
    Ok(())
}

fn refuses(privileges: &Privileges, mode: &str, says: &str) -> Result<()> {
    let place = share_of(privileges.uid)?;
    let path = place.path().to_str().context("UTF-8")?;
    let socket = format!("{path}/socket");
    let arguments = [
        "--sandbox",
        mode,
        "--log-level=error",
        "--shared-dir",
        path,
        "--socket-path",
        &socket,
    ];
    let output = run_through(privileges.through, &arguments)?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains(says) && said.lines().count() == 1, "{said}");
    ensure!(
        std::fs::read_dir(place.path())?.next().is_none(),
        "something stays"
    );
    Ok(())
}
