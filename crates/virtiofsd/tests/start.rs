//! How a start goes wrong: exit code, one line that says what, where, why and what to do, and nothing left behind.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::{LIMIT, ROOT_USER, USER, ended, expect_end, run, run_through, share_of};
use virtiofs_testkit::frontend::{Launch, daemon_path};
use virtiofs_testkit::fuse::Session;

/// A share and a place for a socket, as words of a command line.
struct Place {
    directory: tempfile::TempDir,
    share: String,
    socket: String,
}

impl Place {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let share = directory.path().join("share");
        fs::create_dir(&share)?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("UTF-8");
        Ok(Self {
            share: text(&share)?,
            socket: text(&directory.path().join("socket"))?,
            directory,
        })
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["--socket-path", &self.socket, "--shared-dir", &self.share];
        arguments.extend(more);
        arguments
    }

    fn is_untouched(&self) -> Result<bool> {
        Ok(fs::read_dir(self.directory.path())?.count() == 1)
    }
}

#[test]
fn a_usage_error_is_one_line_and_exit_code_2() -> Result<()> {
    let place = Place::new()?;
    let cases: [(&[&str], &str); 11] = [
        (&["--no-such-option"], "'--no-such-option'"),
        (&["-o", "no_such"], "unknown option 'no_such' in '-o'"),
        (&["-o", "cache"], "'-o cache' takes a value"),
        (&["-o", "xattr=1"], "'-o xattr' takes no value"),
        (
            &["--sandbox", "pivot"],
            "[possible values: namespace, chroot, none, auto]",
        ),
        (
            &["--cache", "sometimes"],
            "'sometimes' for '--cache <POLICY>'",
        ),
        (&["--tag", ""], "a tag has 1 to 36 bytes"),
        (
            &["--rlimit-nofile", "many"],
            "'many' for '--rlimit-nofile <N>'",
        ),
        (&["--fd", "7"], "--fd and --socket-path exclude each other"),
        (&["--uid-map", "0:1"], "':INSIDE:HOST:COUNT:' is expected"),
        (&["--modcaps", "+fly"], "'fly' is not a capability"),
    ];
    for (arguments, says) in cases {
        let (code, said) = ended(&place.arguments(arguments))?;
        ensure!(code == Some(2), "{arguments:?}: {code:?}: {said}");
        ensure!(said.contains(says), "{arguments:?}: {said}");
        ensure!(said.lines().count() == 1, "{arguments:?}: {said}");
        ensure!(said.starts_with("virtiofsd: "), "{said}");
        ensure!(said.trim_end().ends_with("; try '--help'"), "{said}");
        ensure!(place.is_untouched()?, "{arguments:?}");
    }
    expect_end(&["--socket-path", &place.socket], 2, "nothing to share")?;
    expect_end(&["--shared-dir", &place.share], 2, "no way to connect")
}

#[test]
fn without_arguments_the_help_is_an_error() -> Result<()> {
    let output = run(&[])?;
    ensure!(output.status.code() == Some(2) && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr)?;
    for heading in ["Share:", "Connection:", "Confinement:", "--shared-dir"] {
        ensure!(said.contains(heading), "{said}");
    }
    Ok(())
}

#[test]
fn help_version_and_capabilities_are_answers() -> Result<()> {
    for (argument, says) in [
        ("--help", "--shared-dir"),
        ("-h", "--shared-dir"),
        ("--version", "virtiofsd "),
        ("-V", "virtiofsd "),
    ] {
        let output = run(&[argument])?;
        ensure!(output.status.code() == Some(0) && output.stderr.is_empty());
        ensure!(
            String::from_utf8(output.stdout)?.contains(says),
            "{argument}"
        );
    }
    Ok(())
}

#[test]
fn capabilities_are_json_that_names_what_works() -> Result<()> {
    let output = run(&["--print-capabilities"])?;
    ensure!(output.status.code() == Some(0) && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout)?;
    let shown: serde_json::Value = serde_json::from_str(&text)?;
    let want = serde_json::json!({"type": "fs", "features": [
        "posix-acl-negotiation-mode",
        "security-label-negotiation-mode",
        "separate-options",
    ]});
    ensure!(shown == want, "{text}");
    ensure!(
        text.starts_with("{\n  \"type\": \"fs\",\n  \"features\": [\n    \""),
        "{text}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_started_is_one_line_and_exit_code_1() -> Result<()> {
    let place = Place::new()?;
    let gone = place.directory.path().join("gone");
    let gone = gone.to_str().context("UTF-8")?;
    let below = format!("{gone}/socket");
    let long = format!("{gone}{}", "x".repeat(100));
    let socket = |path, more: &[&'static str]| {
        let mut arguments = vec!["--shared-dir", &place.share, "--socket-path", path];
        arguments.push("--log-level=error");
        arguments.extend(more);
        ended(&arguments)
    };
    let cases = [
        (
            ended(&["--socket-path", &place.socket, "--shared-dir", gone])?,
            "No such file or directory",
            gone,
        ),
        (
            ended(&["--socket-path", &place.socket, "--shared-dir", "/dev/null"])?,
            "neither a directory nor a regular file",
            "/dev/null",
        ),
        (socket(&below, &[])?, "is its directory there", &below),
        (socket(&long, &[])?, "SUN_LEN", &long),
        (
            socket(&place.socket, &["--socket-group", "no-such-group"])?,
            "is not in /etc/group",
            "no-such-group",
        ),
        (
            socket(&place.socket, &["--writeback", "--cache=never"])?,
            "drop one of them",
            "--writeback",
        ),
        (
            socket(&place.socket, &["--sandbox=none", "--uid-map=:0:1:1:"])?,
            "drop one of them",
            "--uid-map",
        ),
        (
            socket(&place.socket, &["--rlimit-nofile=3"])?,
            "too few",
            "--rlimit-nofile 3",
        ),
        (
            socket(&place.socket, &["--rlimit-nofile=99999999999"])?,
            "the hard limit is",
            "--rlimit-nofile 99999999999",
        ),
        (
            socket(&place.socket, &["--migration-mode=find-paths"])?,
            "not built yet",
            "--migration-mode",
        ),
    ];
    for ((code, said), why, on) in cases {
        ensure!(code == Some(1), "{code:?}: {said}");
        ensure!(said.contains(why) && said.contains(on), "{said}");
        ensure!(said.lines().count() == 1, "{said}");
    }
    ensure!(place.is_untouched()?);
    Ok(())
}

#[test]
fn a_share_that_cannot_be_read_is_refused() -> Result<()> {
    if !USER.available() {
        return Ok(());
    }
    let closed = share_of(0)?;
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700))?;
    let place = share_of(1000)?;
    let socket = place.path().join("socket");
    for mode in ["namespace", "none"] {
        let output = run_through(
            USER.through,
            &[
                "--sandbox",
                mode,
                "--shared-dir",
                closed.path().to_str().context("UTF-8")?,
                "--socket-path",
                socket.to_str().context("UTF-8")?,
            ],
        )?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{said}");
        ensure!(
            said.contains("Permission denied") && said.contains("another user"),
            "{said}"
        );
        ensure!(!socket.exists());
    }
    Ok(())
}

#[test]
fn a_mode_without_its_privilege_says_what_to_do() -> Result<()> {
    if !USER.available() {
        return Ok(());
    }
    let cases: [(&[&str], u32, &str, &str); 3] = [
        (
            USER.through,
            1000,
            "chroot",
            "it needs CAP_SYS_CHROOT; try --sandbox none or auto",
        ),
        (
            &["setpriv", "--bounding-set=-sys_chroot"],
            0,
            "chroot",
            "it needs CAP_SYS_CHROOT; try --sandbox none or auto",
        ),
        (
            // No user namespace may be made there.
            &[
                "unshare",
                "--map-root-user",
                "sh",
                "-c",
                "echo 0 > /proc/sys/user/max_user_namespaces; \
                 exec setpriv --bounding-set=-sys_admin \"$0\" \"$@\"",
            ],
            0,
            "namespace",
            "try --sandbox chroot or auto",
        ),
    ];
    for (through, uid, mode, says) in cases {
        let place = share_of(uid)?;
        let path = place.path().to_str().context("UTF-8")?;
        let socket = format!("{path}/socket");
        let output = run_through(
            through,
            &[
                "--sandbox",
                mode,
                "--shared-dir",
                path,
                "--socket-path",
                &socket,
            ],
        )?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{mode}: {said}");
        ensure!(said.contains(says), "{mode}: {said}");
        ensure!(!Path::new(&socket).exists(), "{mode} left its socket");
    }
    Ok(())
}

#[test]
fn a_second_daemon_on_one_socket_is_told_the_pid_of_the_first() -> Result<()> {
    let place = Place::new()?;
    for mode in ["namespace", "chroot", "none"] {
        if !ROOT_USER.available() {
            return Ok(());
        }
        let daemon = Launch::new(Path::new(&place.share)).sandbox(mode).start()?;
        let socket = daemon.socket().to_str().context("UTF-8")?;
        let pid_file = format!("{socket}.pid");
        let wanted = format!("{}\n", daemon.pid());
        let written = || fs::read_to_string(&pid_file).is_ok_and(|text| text == wanted);
        let deadline = std::time::Instant::now() + LIMIT;
        while !written() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        ensure!(written(), "{mode}");
        let mode_of_file = fs::metadata(&pid_file)?.permissions().mode();
        ensure!(mode_of_file & 0o777 == 0o600, "{mode_of_file:o}");
        let says = format!("belongs to the daemon with pid {}", daemon.pid());
        expect_end(
            &["--socket-path", socket, "--shared-dir", &place.share],
            1,
            &says,
        )?;
        // The first one has not been disturbed.
        drop(Session::open(daemon.socket())?);
    }
    Ok(())
}

#[test]
fn a_socket_of_another_program_is_left_alone() -> Result<()> {
    let place = Place::new()?;
    let listener = UnixListener::bind(&place.socket)?;
    expect_end(&place.arguments(&["--sandbox=none"]), 1, "is busy")?;
    ensure!(Path::new(&place.socket).exists());
    drop(listener);
    Ok(())
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_refused() -> Result<()> {
    let place = Place::new()?;
    let program = daemon_path()?;
    let cases = [
        ("exec \"$0\" \"$@\"", "no such descriptor was handed over"),
        (
            "exec \"$0\" \"$@\" 7</etc/passwd",
            "not a UNIX stream socket that listens",
        ),
    ];
    for (shell, says) in cases {
        let output = Command::new("sh")
            .args(["-c", shell])
            .arg(&program)
            .args(["--fd=7", "--sandbox=none", "--shared-dir", &place.share])
            .output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(1) && said.contains(says),
            "{said}"
        );
    }
    expect_end(&["--fd=2", "--shared-dir", &place.share], 2, "above 2")?;
    Ok(())
}

/// The kernel refuses the map, not we: nothing of the daemon stays behind.
#[test]
fn maps_that_this_user_may_not_write_end_the_start() -> Result<()> {
    if !USER.available() {
        return Ok(());
    }
    let place = share_of(1000)?;
    let path = place.path().to_str().context("UTF-8")?;
    let socket = format!("{path}/socket");
    let output = run_through(
        &["env", "PATH=/nowhere:/usr/bin", USER.through[0]]
            .iter()
            .chain(&USER.through[1..])
            .copied()
            .collect::<Vec<_>>(),
        &[
            "--uid-map=:0:100000:10:",
            "--shared-dir",
            path,
            "--socket-path",
            &socket,
        ],
    )?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("--uid-map: "), "{said}");
    ensure!(
        said.lines().filter(|line| line.contains("ERROR")).count() == 1,
        "{said}"
    );
    ensure!(!Path::new(&socket).exists(), "the socket stays");
    Ok(())
}
