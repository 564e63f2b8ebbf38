//! Who is who in a sandbox with a user namespace: what the guest's ids are on the host.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use common::{ROOT_OF_A_USER, ROOT_USER, ROOT_WITHOUT_ADMIN, USER, run_through, share_of};
use virtiofs_testkit::bridge::share::skipped;
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::fuse::abi::{EXT_GROUPS, ROOT};
use virtiofs_testkit::fuse::{Caller, Request, Session};
use virtiofs_testkit::guest::Unavailable;
use virtiofs_testkit::guest::packages::{Suite, Tree};

const O_RDWR: u32 = 2;

/// Who owns, on the host and for the guest, what the guest's root makes.
fn owners(launch: Launch, share: &Path) -> Result<((u32, u32), (u32, u32))> {
    let daemon = launch.sandbox("namespace").start()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let made = client.create(ROOT, "made", O_RDWR, 0o640)?;
    client.release(made.entry.nodeid, made.open.fh)?;
    let host = fs::metadata(share.join("made"))?;
    let guest = (made.entry.attr.uid, made.entry.attr.gid);
    Ok(((host.uid(), host.gid()), guest))
}

#[test]
fn a_root_that_maps_ids_makes_files_of_the_mapped_ids() -> Result<()> {
    for privileges in [ROOT_USER, ROOT_WITHOUT_ADMIN] {
        if !privileges.available() {
            return Ok(());
        }
        let share = share_of(100_000)?;
        let launch = privileges
            .launch(share.path())
            .arg("--uid-map=:0:100000:65536:")
            .arg("--gid-map=:0:100000:65536:");
        let got = owners(launch, share.path()).context(privileges.name)?;
        ensure!(
            got == ((100_000, 100_000), (0, 0)),
            "{}: {got:?}",
            privileges.name
        );
    }
    Ok(())
}

#[test]
fn a_root_that_may_not_mount_keeps_every_id() -> Result<()> {
    if !ROOT_WITHOUT_ADMIN.available() {
        return Ok(());
    }
    let share = share_of(0)?;
    let theirs = share.path().join("theirs");
    fs::write(&theirs, "of a user")?;
    chown(&theirs, Some(1234), Some(4321))?;
    let launch = ROOT_WITHOUT_ADMIN.launch(share.path());
    ensure!(owners(launch, share.path())? == ((0, 0), (0, 0)));
    let daemon = ROOT_WITHOUT_ADMIN
        .launch(share.path())
        .sandbox("namespace")
        .start()?;
    let mut session = Session::open(daemon.socket())?;
    let found = session.client().lookup(ROOT, "theirs")?;
    ensure!((found.attr.uid, found.attr.gid) == (1234, 4321));
    Ok(())
}

#[test]
fn an_ordinary_user_owns_what_the_guest_makes() -> Result<()> {
    if !USER.available() {
        return Ok(());
    }
    let share = share_of(1000)?;
    let got = owners(USER.launch(share.path()), share.path())?;
    ensure!(got == ((1000, 1000), (1000, 1000)), "own ids: {got:?}");
    fs::remove_file(share.path().join("made"))?;
    // The guest's root is this user, and sees itself as the owner.
    let launch = USER
        .launch(share.path())
        .arg("--uid-map=:0:1000:1:")
        .arg("--gid-map=:0:1000:1:");
    let got = owners(launch, share.path())?;
    ensure!(got == ((1000, 1000), (0, 0)), "as root: {got:?}");
    Ok(())
}

/// Becomes root of a user namespace in which every id is itself and groups cannot be changed. Who maps ids stays
/// outside, and waits for the process to be in there.
const SETGROUPS_DENIED: [&str; 3] = [
    "sh",
    "-c",
    r#"{
        until grep -q deny /proc/$$/setgroups; do sleep 0.01; done
        echo 0 0 4294967295 >/proc/$$/gid_map
        echo 0 0 4294967295 >/proc/$$/uid_map
    } &
    exec unshare --user --setgroups=deny sh -c '
        until grep -q . /proc/self/uid_map; do sleep 0.01; done
        exec "$@"' sh "$0" "$@""#,
];

#[test]
fn where_groups_cannot_be_changed_a_stated_group_is_left_out() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    const STAFF: u32 = 50;
    let share = share_of(0)?;
    chown(share.path(), None, Some(STAFF))?;
    // The guest lets the caller in by that group; here it passes as root's right does.
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o770))?;
    let launch = Launch::new(share.path()).through(SETGROUPS_DENIED);
    let daemon = launch.sandbox("none").start()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    client.caller = Caller {
        uid: 1000,
        gid: 1000,
        pid: 1,
    };
    // Size, type, count, group (`fuse_ext_header`, `fuse_supp_groups`).
    let group = [16, EXT_GROUPS, 1, STAFF].map(u32::to_ne_bytes).concat();
    let mut request = Request::mkdir(ROOT, b"made", 0o750, 0);
    request.extension = &group;
    client.call(&request).with_context(|| daemon.log())?;
    let made = fs::metadata(share.path().join("made"))?;
    ensure!((made.uid(), made.gid()) == (1000, 1000), "{made:?}");
    Ok(())
}

/// A container's root that is one user of the host: whoever asks, there is one owner.
#[test]
fn a_root_who_knows_nobody_else_makes_files_as_itself() -> Result<()> {
    if !ROOT_OF_A_USER.available() {
        return Ok(());
    }
    for mode in ["none", "chroot", "namespace"] {
        let share = share_of(1000)?;
        let daemon = ROOT_OF_A_USER.launch(share.path()).sandbox(mode).start()?;
        let mut session = Session::open(daemon.socket())?;
        let client = session.client();
        for caller in [0, 1, 1000] {
            client.caller = Caller {
                uid: caller,
                gid: caller,
                pid: 1,
            };
            let name = format!("by-{caller}");
            let made = client.mkdir(ROOT, &name, 0o750);
            let made = made.with_context(|| format!("{mode}, {caller}: {}", daemon.log()))?;
            ensure!((made.attr.uid, made.attr.gid) == (0, 0), "{mode}, {caller}");
            let host = fs::metadata(share.path().join(name))?;
            ensure!((host.uid(), host.gid()) == (1000, 1000), "{mode}, {caller}");
        }
    }
    Ok(())
}

/// In place of the programs that read `/etc/subuid`: they say how they were called, and refuse.
#[test]
fn more_ids_are_asked_of_the_programs_that_may_map_them() -> Result<()> {
    if !USER.available() {
        return Ok(());
    }
    let place = share_of(1000)?;
    let path = place.path().to_str().context("UTF-8")?;
    for program in ["newuidmap", "newgidmap"] {
        let file = place.path().join(program);
        fs::write(
            &file,
            "#!/bin/sh\nshift\necho \"$0 $*\" >&2\nenv >&2\nexit 1\n",
        )?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let search = format!("PATH={path}:/usr/bin:/bin");
    let mut through = vec!["env", &search];
    through.extend(USER.through);
    let socket = format!("{path}/socket");
    let output = run_through(
        &through,
        &[
            "--gid-map=:0:1000:1:",
            "--gid-map=:1:200000:5:",
            "--uid-map=:0:1000:1:",
            "--shared-dir",
            path,
            "--socket-path",
            &socket,
        ],
    )?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    let want = format!(
        "--gid-map: {path}/newgidmap: {path}/newgidmap 0 1000 1 1 200000 5; it has no privileges under no-new-privileges"
    );
    ensure!(said.contains(&want), "{said}");
    ensure!(!Path::new(&socket).exists(), "the socket stays");
    Ok(())
}

/// The programs with their set-id bits, an ordinary user with a range of ids, and an `/etc` that says so: in a mount
/// namespace of their own, so that nothing of the machine is changed. `$0` is a directory for all of it.
const WITH_A_RANGE: &str = r#"set -e
    mount -t tmpfs -o mode=755 tmpfs "$0"
    mkdir "$0/bin" "$0/etc"
    cp "$UIDMAP/newuidmap" "$UIDMAP/newgidmap" "$0/bin"
    chmod 4755 "$0/bin/newuidmap" "$0/bin/newgidmap"
    for file in ld.so.cache ld.so.conf nsswitch.conf; do
        if test -e /etc/$file; then cp /etc/$file "$0/etc"; fi
    done
    echo user:x:1000:1000::/:/bin/sh >"$0/etc/passwd"
    echo user:x:1000: >"$0/etc/group"
    echo user:200000:65536 >"$0/etc/subuid"
    echo user:300000:65536 >"$0/etc/subgid"
    mount --bind "$0/etc" /etc
    PATH="$0/bin:$PATH" exec setpriv --reuid=1000 --regid=1000 --clear-groups $MORE "$@""#;

/// A daemon of the user with a range; `None` after saying why the programs cannot be had.
fn with_a_range(share: &Path, place: &Path, more: &'static str) -> Result<Option<Launch>> {
    let packages = match Tree::fetch(Suite::Bookworm, &["uidmap"]) {
        Ok(packages) => packages,
        Err(error) => match error.downcast_ref::<Unavailable>() {
            Some(why) => {
                skipped(&why.to_string());
                return Ok(None);
            }
            None => return Err(error),
        },
    };
    let programs = packages.path("usr/bin");
    let uidmap = format!("UIDMAP={}", programs.to_str().context("UTF-8")?);
    let more = format!("MORE={more}");
    let place = place.to_str().context("UTF-8")?;
    let words = [
        "env",
        &uidmap,
        &more,
        "unshare",
        "--mount",
        "sh",
        "-c",
        WITH_A_RANGE,
        place,
    ];
    let maps = [
        "--uid-map=:0:1000:1:",
        "--uid-map=:1:200000:65536:",
        "--gid-map=:0:1000:1:",
        "--gid-map=:1:300000:65536:",
    ];
    let launch = Launch::new(share).through(words).owned_by(1000);
    Ok(Some(launch.args(&maps).sandbox("namespace")))
}

#[test]
fn a_range_of_ids_is_mapped_by_the_programs_that_may() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let (share, place) = (share_of(1000)?, tempfile::tempdir()?);
    let Some(launch) = with_a_range(share.path(), place.path(), "")? else {
        return Ok(());
    };
    let daemon = launch.start()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777))?;
    for (caller, host) in [
        (0, (1000, 1000)),
        (1, (200_000, 300_000)),
        (500, (200_499, 300_499)),
    ] {
        client.caller = Caller {
            uid: caller,
            gid: caller,
            pid: 1,
        };
        let name = format!("by-{caller}");
        let made = client.mkdir(ROOT, &name, 0o750);
        let made = made.with_context(|| format!("{caller}: {}", daemon.log()))?;
        ensure!((made.attr.uid, made.attr.gid) == (caller, caller));
        let found = fs::metadata(share.path().join(name))?;
        ensure!((found.uid(), found.gid()) == host, "{caller}: {found:?}");
    }
    Ok(())
}

#[test]
fn under_no_new_privileges_a_range_of_ids_ends_the_start_with_the_reason() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let (share, place) = (share_of(1000)?, tempfile::tempdir()?);
    let Some(launch) = with_a_range(share.path(), place.path(), "--no-new-privs")? else {
        return Ok(());
    };
    // The socket is there for a moment before the sandbox cannot be made.
    let said = match launch.start() {
        Err(said) => said.to_string(),
        Ok(mut daemon) => {
            daemon.expect_exit(1, common::LIMIT)?;
            daemon.log()
        }
    };
    for part in ["--gid-map", "newgidmap", "under no-new-privileges"] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}
