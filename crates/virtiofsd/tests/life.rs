//! How a daemon ends, and what it leaves: signals, front-ends that leave or misbehave, the background, the log.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{LIMIT, Privileges, ROOT_USER, USER, await_log, processes, serves, share_of, status};
use rustix::process::{Pid, Signal, kill_process};
use virtiofs_testkit::frontend::{Daemon, Launch, daemon_path};
use virtiofs_testkit::fuse::Session;
use virtiofs_testkit::fuse::abi::ROOT;

const MODES: [&str; 3] = ["namespace", "chroot", "none"];
const WAITS: &str = "Waiting for vhost-user socket connection...";
const SERVES: &str = "Client connected, servicing requests";
const LEAVES: &str = "Client disconnected, shutting down";

fn started(mode: &'static str) -> Result<Option<(tempfile::TempDir, Daemon)>> {
    if !ROOT_USER.available() {
        return Ok(None);
    }
    let share = share_of(0)?;
    let daemon = Launch::new(share.path()).sandbox(mode).start()?;
    Ok(Some((share, daemon)))
}

/// The socket and the pid file are gone where a process outside the sandbox removes them.
fn leftovers(daemon: &Daemon, mode: &str) -> Result<()> {
    let there = daemon.socket().exists();
    let pid_file = daemon.socket().with_extension("sock.pid");
    ensure!(there == (mode != "namespace"), "{mode}: socket {there}");
    ensure!(pid_file.exists() == there, "{mode}: pid file");
    Ok(())
}

#[test]
fn signals_end_an_idle_daemon_with_0() -> Result<()> {
    for mode in MODES {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let Some((_share, mut daemon)) = started(mode)? else {
                return Ok(());
            };
            await_log(&mut daemon, WAITS)?;
            daemon.signal(signal)?;
            daemon.expect_exit(0, LIMIT)?;
            leftovers(&daemon, mode)?;
        }
    }
    Ok(())
}

#[test]
fn signals_end_a_serving_daemon_with_0() -> Result<()> {
    for mode in MODES {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let Some((share, mut daemon)) = started(mode)? else {
                return Ok(());
            };
            let mut session = Session::open(daemon.socket())?;
            serves(&mut session, share.path())?;
            daemon.signal(signal)?;
            daemon.expect_exit(0, LIMIT)?;
            leftovers(&daemon, mode)?;
        }
    }
    Ok(())
}

#[test]
fn the_three_lines_that_scripts_look_for_are_said_in_order() -> Result<()> {
    for mode in MODES {
        let Some((share, mut daemon)) = started(mode)? else {
            return Ok(());
        };
        let mut session = Session::open(daemon.socket())?;
        serves(&mut session, share.path())?;
        drop(session);
        daemon.expect_exit(0, LIMIT)?;
        let log = daemon.log();
        let at = |line: &str| {
            log.find(line)
                .with_context(|| format!("no '{line}': {log}"))
        };
        ensure!(
            at(WAITS)? < at(SERVES)? && at(SERVES)? < at(LEAVES)?,
            "{log}"
        );
        leftovers(&daemon, mode)?;
    }
    Ok(())
}

#[test]
fn a_protocol_violation_ends_the_daemon_with_1() -> Result<()> {
    for mode in MODES {
        let Some((_share, mut daemon)) = started(mode)? else {
            return Ok(());
        };
        await_log(&mut daemon, WAITS)?;
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.write_all(&[0xff; 12])?;
        daemon.expect_exit(1, LIMIT)?;
        ensure!(
            daemon
                .log()
                .contains("ERROR vhost-user protocol violation: "),
            "{}",
            daemon.log()
        );
        leftovers(&daemon, mode)?;
    }
    Ok(())
}

#[test]
fn with_keep_listening_a_daemon_serves_one_front_end_after_another() -> Result<()> {
    for mode in MODES {
        if !ROOT_USER.available() {
            return Ok(());
        }
        let share = share_of(0)?;
        let launch = Launch::new(share.path()).sandbox(mode);
        let mut daemon = launch.arg("--keep-listening").start()?;
        for _ in 0..3 {
            let mut session = Session::open(daemon.socket())?;
            serves(&mut session, share.path())?;
            drop(session);
            let mut stream = UnixStream::connect(daemon.socket())?;
            stream.write_all(&[0xff; 12])?;
        }
        daemon.terminate()?;
        daemon.expect_exit(0, LIMIT)?;
    }
    Ok(())
}

#[test]
fn a_socket_is_for_its_owner_and_with_a_group_for_the_group() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let share = share_of(0)?;
    let cases: [(&[&str], u32, u32); 2] =
        [(&[], 0o600, 0), (&["--socket-group=4242"], 0o660, 4242)];
    for (arguments, mode, group) in cases {
        let mut launch = Launch::new(share.path());
        for argument in arguments {
            launch = launch.arg(argument);
        }
        let mut daemon = launch.start()?;
        await_log(&mut daemon, WAITS)?;
        let metadata = fs::metadata(daemon.socket())?;
        ensure!(
            metadata.permissions().mode() & 0o777 == mode,
            "{:o}",
            metadata.mode()
        );
        ensure!(metadata.gid() == group);
    }
    Ok(())
}

/// Waits until a process has ended, whether or not somebody has asked how.
fn gone(pid: u32) -> Result<()> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let lives = || status(&process).is_ok_and(|fields| !fields["State"].starts_with('Z'));
    let deadline = Instant::now() + LIMIT;
    while lives() {
        ensure!(Instant::now() < deadline, "{pid} lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).context("a pid")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

#[test]
fn the_two_processes_of_namespaces_die_together() -> Result<()> {
    for privileges in [ROOT_USER, USER] {
        if !privileges.available() {
            return Ok(());
        }
        let daemon = || -> Result<(tempfile::TempDir, Daemon, u32)> {
            let share = share_of(privileges.uid)?;
            let daemon = privileges
                .launch(share.path())
                .sandbox("namespace")
                .start()?;
            let mut session = Session::open(daemon.socket())?;
            serves(&mut session, share.path())?;
            std::mem::forget(session);
            let server = *processes(&daemon)?.last().context("a server")?;
            ensure!(server != daemon.pid());
            Ok((share, daemon, server))
        };
        let (_share, first, server) = daemon()?;
        kill(first.pid())?;
        gone(server)?;
        let (_share, mut second, server) = daemon()?;
        kill(server)?;
        // 128 and the number of the signal, as shells have it.
        second.expect_exit(137, LIMIT)?;
        leftovers(&second, "namespace")?;
    }
    Ok(())
}

/// The shell hands a listening socket over as descriptor 7, as libvirt and container runtimes do.
#[test]
fn a_listening_socket_that_is_handed_over_is_served() -> Result<()> {
    for mode in MODES {
        if !ROOT_USER.available() {
            return Ok(());
        }
        let share = share_of(0)?;
        let place = share_of(0)?;
        let socket = place.path().join("socket");
        let listener = UnixListener::bind(&socket)?;
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 7<&0 0</dev/null"])
            .arg(daemon_path()?)
            .args(["--fd=7", "--sandbox", mode, "--shared-dir"])
            .arg(share.path())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .stderr(Stdio::null())
            .spawn()?;
        let mut session = Session::open(&socket)?;
        serves(&mut session, share.path())?;
        drop(session);
        ensure!(child.wait()?.code() == Some(0), "{mode}");
        ensure!(socket.exists(), "{mode}: the socket is not the daemon's");
        ensure!(
            fs::read_dir(place.path())?.count() == 1,
            "{mode}: a pid file"
        );
    }
    Ok(())
}

#[test]
fn a_daemon_in_the_background_is_ready_when_its_starter_ends() -> Result<()> {
    for mode in MODES {
        if !ROOT_USER.available() {
            return Ok(());
        }
        let share = share_of(0)?;
        let place = share_of(0)?;
        let socket = place.path().join("socket");
        let output = Command::new(daemon_path()?)
            .args(["--daemonize", "--sandbox", mode, "--shared-dir"])
            .arg(share.path())
            .arg("--socket-path")
            .arg(&socket)
            .output()?;
        // The output has ended, so nobody in the background holds it.
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(0), "{said}");
        ensure!(said.contains("messages are lost"), "{said}");
        let pid: u32 = fs::read_to_string(place.path().join("socket.pid"))?
            .trim()
            .parse()?;
        let mut session = Session::open(&socket)?;
        serves(&mut session, share.path())?;
        for descriptor in ["0", "1", "2"] {
            let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}"))?;
            ensure!(target == Path::new("/dev/null"), "{}", target.display());
        }
        drop(session);
        gone(pid)?;
    }
    Ok(())
}

#[test]
fn a_daemon_that_fails_in_the_background_fails_in_the_foreground() -> Result<()> {
    let place = share_of(rustix::process::geteuid().as_raw())?;
    let path = place.path().to_str().context("UTF-8")?;
    let socket = format!("{path}/socket");
    let common = ["--daemonize", "--socket-path", &socket];
    let with = |more: [&'static str; 2]| common::ended(&[&common[..], &more].concat());
    let (code, said) = with(["--shared-dir", "/nowhere/at/all"])?;
    ensure!(
        code == Some(1) && said.contains("No such file"),
        "{code:?} {said}"
    );
    let (code, said) = with(["--shared-dir", "/dev/null"])?;
    ensure!(
        code == Some(1) && said.contains("neither a directory"),
        "{code:?} {said}"
    );
    Ok(())
}

/// In a mount namespace of the test's own, where `/dev/log` is a socket of the test.
fn with_system_log(share: &Path, log: &Path, mode: &'static str) -> Launch {
    let script = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && ln -s \"$0\" /dev/log && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-c", script];
    let through = words.into_iter().map(std::ffi::OsString::from);
    Launch::new(share)
        .through(through.chain([log.into()]))
        .sandbox(mode)
        .arg("--syslog")
}

#[test]
fn messages_reach_the_systems_log_from_inside_each_sandbox() -> Result<()> {
    for mode in MODES {
        if !ROOT_USER.available() {
            return Ok(());
        }
        let share = share_of(0)?;
        let place = share_of(0)?;
        let log = place.path().join("log");
        let system = UnixDatagram::bind(&log)?;
        system.set_read_timeout(Some(LIMIT))?;
        let mut daemon = with_system_log(share.path(), &log, mode).start()?;
        let mut session = Session::open(daemon.socket())?;
        serves(&mut session, share.path())?;
        drop(session);
        daemon.expect_exit(0, LIMIT)?;
        let mut heard = Vec::new();
        let mut packet = [0; 4096];
        while !heard
            .last()
            .is_some_and(|line: &String| line.ends_with(LEAVES))
        {
            let len = system.recv(&mut packet)?;
            heard.push(String::from_utf8_lossy(&packet[..len]).into_owned());
        }
        let prefix = format!("<30>virtiofsd[{}]: ", daemon.pid());
        for line in [WAITS, SERVES, LEAVES] {
            let whole = format!("{prefix}{line}");
            ensure!(heard.contains(&whole), "{mode}: no '{whole}' in {heard:?}");
        }
        ensure!(daemon.log().is_empty(), "{}", daemon.log());
    }
    Ok(())
}

#[test]
fn without_a_systems_log_messages_go_to_standard_error() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let share = share_of(0)?;
    let mut daemon = with_system_log(share.path(), Path::new("/nowhere/log"), "none").start()?;
    await_log(&mut daemon, WAITS)?;
    ensure!(
        daemon.log().contains("WARN --syslog: /dev/log: "),
        "{}",
        daemon.log()
    );
    Ok(())
}

#[test]
fn a_level_of_the_log_hides_what_is_below_it() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let share = share_of(0)?;
    let cases: [(&[&str], &[&str], &[&str]); 5] = [
        (&[], &["INFO", "WARN"], &["DEBUG"]),
        (&["--log-level=warn"], &["WARN"], &["INFO", "DEBUG"]),
        (&["--log-level=off"], &[], &["INFO", "WARN", "DEBUG"]),
        (
            &["-d"],
            &["INFO", "WARN", "DEBUG Landlock: FullyEnforced"],
            &[],
        ),
        (&["-o", "log_level=debug"], &["INFO", "WARN", "DEBUG"], &[]),
    ];
    for (arguments, shown, hidden) in cases {
        let mut launch = Launch::new(share.path());
        for argument in arguments {
            launch = launch.arg(argument);
        }
        let mut daemon = launch.start()?;
        Session::open(daemon.socket())?.client().getattr(ROOT)?;
        daemon.expect_exit(0, LIMIT)?;
        let log = daemon.log();
        ensure!(
            shown.iter().all(|word| log.contains(word)),
            "{arguments:?}: {log}"
        );
        ensure!(
            !hidden.iter().any(|word| log.contains(word)),
            "{arguments:?}: {log}"
        );
    }
    Ok(())
}

/// Which privileges a limit of open files needs: none to lower it.
#[test]
fn the_limit_of_open_files_is_what_was_asked_for() -> Result<()> {
    let limit_of = |privileges: &Privileges, argument: Option<&str>| -> Result<String> {
        let share = share_of(privileges.uid)?;
        let mut launch = privileges.launch(share.path());
        if let Some(argument) = argument {
            launch = launch.arg(argument);
        }
        let mut daemon = launch.start()?;
        await_log(&mut daemon, WAITS)?;
        let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid()))?;
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words = line.context("no such limit")?.split_whitespace().skip(3);
        Ok(words.take(2).collect::<Vec<_>>().join(" "))
    };
    for privileges in [ROOT_USER, USER] {
        if !privileges.available() {
            return Ok(());
        }
        let (soft, hard) = {
            let now = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            (
                now.current.unwrap_or(u64::MAX),
                now.maximum.unwrap_or(u64::MAX),
            )
        };
        let wish = hard.min(1_000_000);
        ensure!(limit_of(&privileges, None)? == format!("{wish} {hard}"));
        ensure!(limit_of(&privileges, Some("--rlimit-nofile=0"))? == format!("{soft} {hard}"));
        ensure!(limit_of(&privileges, Some("--rlimit-nofile=500"))? == format!("500 {hard}"));
    }
    Ok(())
}

/// While there is no descriptor for it, a front-end waits; nothing ends, and nothing turns in a circle.
#[test]
fn a_front_end_waits_while_descriptors_are_lacking() -> Result<()> {
    const WAITING: &str = "a front-end cannot be accepted yet: Too many open files";
    for mode in MODES {
        let Some((share, mut daemon)) = started(mode)? else {
            return Ok(());
        };
        await_log(&mut daemon, WAITS)?;
        let server = *processes(&daemon)?.last().context("a process")?;
        let limit = |current: u64, maximum: Option<u64>| {
            let new = rustix::process::Rlimit {
                current: Some(current),
                maximum,
            };
            let pid = Pid::from_raw(server.cast_signed());
            rustix::process::prlimit(pid, rustix::process::Resource::Nofile, new)
        };
        let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let before = limit(3, maximum)?;
        let early = UnixStream::connect(daemon.socket())?;
        await_log(&mut daemon, WAITING)?;
        let path = PathBuf::from(format!("/proc/{server}"));
        let waits = |name: &str| -> Result<u64> { Ok(status(&path)?[name].parse()?) };
        let woken = waits("voluntary_ctxt_switches")?;
        std::thread::sleep(Duration::from_secs(1));
        let woken = waits("voluntary_ctxt_switches")? - woken;
        ensure!(woken < 30, "{mode}: {woken} times in a second");
        ensure!(
            daemon.log().matches(WAITING).count() == 1,
            "{}",
            daemon.log()
        );
        drop(early);
        if mode == "none" {
            // A signal ends it all the same.
            let _late = UnixStream::connect(daemon.socket())?;
            daemon.terminate()?;
            daemon.expect_exit(0, LIMIT)?;
            continue;
        }
        limit(before.current.context("a limit")?, before.maximum)?;
        await_log(&mut daemon, LEAVES)?;
        drop(share);
    }
    Ok(())
}
