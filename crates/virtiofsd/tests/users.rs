//! The command lines by which the daemon is started in the field, as they are given there.

mod common;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use common::{serves, share_of, skipped};
use virtiofs_testkit::frontend::daemon_path;
use virtiofs_testkit::fuse::Session;

/// Who starts it, as which user, and how; SHARE and SOCKET stand for paths.
const LINES: [(&str, u32, &str); 7] = [
    (
        "Kata Containers",
        0,
        "--syslog --cache=auto --shared-dir=SHARE --fd=3 --thread-pool-size=1 --announce-submounts",
    ),
    (
        "KubeVirt",
        107,
        "--socket-path=SOCKET --shared-dir=SHARE --sandbox=none --cache=auto",
    ),
    ("LXD", 0, "--fd=3 --shared-dir SHARE"),
    (
        "libvirt",
        0,
        "--fd=3 --shared-dir SHARE --cache always --sandbox chroot",
    ),
    (
        "libvirt, with an older daemon in mind",
        0,
        "--fd=3 -o source=SHARE,cache=always,sandbox=namespace",
    ),
    (
        "a script of old",
        0,
        "--socket-path=SOCKET -o source=SHARE -o cache=none -o no_posix_lock -o no_flock -f -d",
    ),
    (
        "a script of old, in a container",
        0,
        "--socket-path=SOCKET -o source=SHARE,chroot,timeout=0.5,log_level=warn,max_idle_threads=4",
    ),
];

#[test]
fn command_lines_of_the_field_start_and_serve() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can start daemons as others");
        return Ok(());
    }
    for (who, uid, line) in LINES {
        served(uid, line).context(who)?;
    }
    Ok(())
}

fn served(uid: u32, line: &str) -> Result<()> {
    let share = share_of(uid)?;
    let place = share_of(uid)?;
    let socket = place.path().join("socket");
    let text = |path: &std::path::Path| path.to_str().map(str::to_owned).context("UTF-8");
    let (share_path, socket_path) = (text(share.path())?, text(&socket)?);
    let words = line.split(' ').map(|word| {
        word.replace("SHARE", &share_path)
            .replace("SOCKET", &socket_path)
    });
    let mut command = Command::new("setpriv");
    if uid != 0 {
        let id = uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.args(["--no-new-privs", "--bounding-set=-all"]);
    }
    // The socket that is handed over comes as standard input, and goes on as descriptor 3.
    command.args(["sh", "-c", "exec \"$0\" \"$@\" 3<&0 0</dev/null"]);
    let input = if line.contains("--fd=3") {
        OwnedFd::from(UnixListener::bind(&socket)?).into()
    } else {
        Stdio::null()
    };
    let mut daemon = command
        .arg(daemon_path()?)
        .args(words)
        .stdin(input)
        .stderr(Stdio::null())
        .spawn()?;
    let used = Session::open(&socket).and_then(|mut session| serves(&mut session, share.path()));
    if used.is_err() {
        let _ = daemon.kill();
    }
    let code = daemon.wait()?.code();
    used?;
    ensure!(code == Some(0), "exit {code:?}");
    Ok(())
}
