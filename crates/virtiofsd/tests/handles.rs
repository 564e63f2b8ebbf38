//! `--inode-file-handles`: the process that opens file handles, what it finds, and what happens without it.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use common::{
    LIMIT, Privileges, ROOT_USER, USER, await_log, bits, capabilities, expect_end, serves,
    share_of, skipped, status,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, Signal, kill_process};
use virtiofs_testkit::frontend::Daemon;
use virtiofs_testkit::fuse::Session;
use virtiofs_testkit::fuse::abi::ROOT;

const MODES: [&str; 3] = ["namespace", "chroot", "none"];
const DAC_READ_SEARCH: u32 = 2;
const O_RDWR: u32 = 2;
/// More files than the daemon holds descriptors for, where it may have 300 of all kinds.
const OTHERS: usize = 100;

const WITHOUT_THE_CAPABILITY: Privileges = Privileges {
    name: "root without CAP_DAC_READ_SEARCH",
    through: &["setpriv", "--bounding-set=-dac_read_search"],
    uid: 0,
};

fn child_of(pid: u32) -> Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children.split_whitespace().next();
    Ok(first.map(str::parse).transpose()?)
}

/// The process that serves, and the one that opens handles for it.
fn server_and_broker(daemon: &Daemon, mode: &str) -> Result<(u32, u32)> {
    let server = match mode {
        "namespace" => child_of(daemon.pid())?.context("no server")?,
        _ => daemon.pid(),
    };
    let broker = child_of(server)?.with_context(|| format!("no broker: {}", daemon.log()))?;
    Ok((server, broker))
}

fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).context("no process")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

fn wait_until(what: &str, fact: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !fact() {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A share with more files than descriptors are kept for, none of them born just now.
fn fill(share: &Path) -> Result<()> {
    fs::create_dir(share.join("d"))?;
    fs::write(share.join("d/file"), "contents")?;
    for number in 0..OTHERS {
        fs::write(share.join(number.to_string()), "")?;
    }
    std::thread::sleep(Duration::from_millis(40));
    Ok(())
}

fn start(share: &Path, mode: &'static str, when: &str) -> Result<(Daemon, Session)> {
    let daemon = ROOT_USER
        .launch(share)
        .sandbox(mode)
        .arg(format!("--inode-file-handles={when}"))
        .arg("--rlimit-nofile=300")
        .start()?;
    let session = Session::open(daemon.socket()).with_context(|| daemon.log())?;
    Ok((daemon, session))
}

/// The node of `d/file`, whose descriptor has gone by then.
fn known(session: &mut Session) -> Result<u64> {
    let client = session.client();
    let directory = client.lookup(ROOT, "d")?.nodeid;
    let file = client.lookup(directory, "file")?.nodeid;
    // Twice around: what was used of late is spared once.
    for number in (0..OTHERS).chain(0..OTHERS) {
        client.lookup(ROOT, number.to_string())?;
    }
    Ok(file)
}

/// An empty file system of a kind, unmounted when it is dropped.
struct Store(tempfile::TempDir);

impl Store {
    fn mounted(arguments: &[&str]) -> Result<Self> {
        let place = tempfile::tempdir()?;
        run("mount", &[arguments, &[text(place.path())?]].concat())?;
        Ok(Self(place))
    }

    /// `None`, and said, where the machine has no loop devices.
    fn ext4(image: &Path) -> Result<Option<Self>> {
        run("truncate", &["-s", "64M", text(image)?])?;
        run("mkfs.ext4", &["-q", "-F", text(image)?])?;
        match Self::mounted(&["-o", "loop", text(image)?]) {
            Ok(store) => Ok(Some(store)),
            Err(why) => {
                skipped(&format!("no loop device: {why:#}"));
                Ok(None)
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("UTF-8")
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether a process of the same user that may trace nobody is kept from what this one has mapped.
fn closed_to_its_like(pid: u32) -> Result<bool> {
    let read = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "readlink"])
        .arg(format!("/proc/{pid}/fd/0"))
        .output()?;
    Ok(!read.status.success())
}

#[test]
fn the_broker_alone_has_the_capability_and_nothing_else() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    for mode in MODES {
        let share = share_of(0)?;
        fill(share.path())?;
        let (daemon, mut session) = start(share.path(), mode, "mandatory")?;
        serves(&mut session, share.path())?;
        let (server, broker) = server_and_broker(&daemon, mode)?;
        let one = capabilities(&[DAC_READ_SEARCH]);
        for thread in fs::read_dir(format!("/proc/{server}/task"))? {
            let fields = status(&thread?.path())?;
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
                ensure!(
                    bits(fields.get(set))? & one == 0,
                    "{mode}: {set} of the server"
                );
            }
            ensure!(fields["Seccomp_filters"] == "2", "{mode}");
        }
        let of_broker = PathBuf::from(format!("/proc/{broker}"));
        let fields = status(&of_broker)?;
        for (set, want) in [
            ("CapEff", one),
            ("CapPrm", one),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("CapBnd", 0),
        ] {
            ensure!(
                bits(fields.get(set))? == want,
                "{mode}: {set} of the broker"
            );
        }
        ensure!(fields["NoNewPrivs"] == "1" && fields["Seccomp_filters"] == "2");
        ensure!(fields["Threads"] == "1" && fields["Groups"].is_empty());
        let maps = closed_to_its_like(broker)?;
        ensure!(maps, "{mode}: memory can be looked at");
        let environment = fs::read(of_broker.join("environ"))?;
        ensure!(environment.iter().all(|byte| *byte == 0));
        for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
            let of = |process: u32| fs::read_link(format!("/proc/{process}/ns/{kind}"));
            ensure!(
                of(server)? == of(broker)?,
                "{mode}: another {kind} namespace"
            );
        }
        // Standard input, output and error, its end of the socket, the share.
        let open = fs::read_dir(of_broker.join("fd"))?.count();
        ensure!(open == 5, "{mode}: {open} descriptors");
    }
    Ok(())
}

#[test]
fn what_the_host_renames_is_found_in_each_mode_with_handles_and_stale_without() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    for mode in MODES {
        for when in ["never", "prefer", "mandatory"] {
            let share = share_of(0)?;
            fill(share.path())?;
            let (daemon, mut session) = start(share.path(), mode, when)?;
            let file = known(&mut session)?;
            fs::rename(share.path().join("d/file"), share.path().join("moved"))?;
            let client = session.client();
            let found = client.getattr(file).map(|attributes| attributes.size);
            let what = format!("{mode}, {when}: {}", daemon.log());
            if when == "never" {
                ensure!(found == Err(Errno::STALE.into()), "{found:?} {what}");
                continue;
            }
            ensure!(found == Ok(8), "{found:?} {what}");
            let open = client.open(file, O_RDWR)?;
            client.write(file, open.fh, 0, b"CONTENTS")?;
            client.release(file, open.fh)?;
            ensure!(
                fs::read(share.path().join("moved"))? == b"CONTENTS",
                "{what}"
            );
            ensure!(!daemon.log().contains("handles"), "{what}");
        }
    }
    Ok(())
}

/// A store that forgot in which directory a file is: where the share is no mount's root, Landlock refuses the server
/// to open it.
#[test]
fn a_file_whose_directory_the_kernel_has_forgotten_is_opened_by_the_broker() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    for mode in MODES {
        let place = tempfile::tempdir()?;
        let Some(store) = Store::ext4(&place.path().join("image"))? else {
            return Ok(());
        };
        let share = store.0.path().join("share");
        fs::create_dir(&share)?;
        fs::write(share.join("foreign"), "foreign!")?;
        chown(share.join("foreign"), Some(1000), Some(1000))?;
        fs::set_permissions(share.join("foreign"), fs::Permissions::from_mode(0o600))?;
        // Last, because it waits until nothing is newly born: that would keep its descriptor.
        fill(&share)?;
        let (daemon, mut session) = start(&share, mode, "mandatory")?;
        let foreign = session.client().lookup(ROOT, "foreign")?.nodeid;
        let file = known(&mut session)?;
        fs::rename(share.join("d/file"), share.join("moved"))?;
        fs::rename(share.join("foreign"), share.join("d/foreign"))?;
        // The kernel drops names that nobody uses when a file system is mounted anew.
        mount_remount(store.0.path(), MountFlags::empty(), c"")?;
        let client = session.client();
        let open = client
            .open(file, O_RDWR)
            .with_context(|| format!("{mode}: {}", daemon.log()))?;
        ensure!(client.read(file, open.fh, 0, 100)? == b"contents", "{mode}");
        client.write(file, open.fh, 0, b"CONTENTS")?;
        client.release(file, open.fh)?;
        // Of somebody else's file the broker may read everything and write nothing.
        let open = client.open(foreign, 0)?;
        ensure!(
            client.read(foreign, open.fh, 0, 100)? == b"foreign!",
            "{mode}"
        );
        client.release(foreign, open.fh)?;
        let written = client.open(foreign, O_RDWR).map(drop);
        // Where the share is a mount's root, newer kernels count a file without a directory as below it.
        let is_root = mode == "namespace" && written.is_ok();
        ensure!(
            is_root || written == Err(Errno::STALE.into()),
            "{mode}: {written:?}"
        );
        ensure!(fs::read(share.join("moved"))? == b"CONTENTS", "{mode}");
    }
    Ok(())
}

#[test]
fn a_daemon_whose_broker_has_died_goes_on_without_and_says_so_once() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    for mode in MODES {
        for (when, level) in [("prefer", "WARN"), ("mandatory", "ERROR")] {
            let share = share_of(0)?;
            fill(share.path())?;
            let (daemon, mut session) = start(share.path(), mode, when)?;
            let file = known(&mut session)?;
            let (server, broker) = server_and_broker(&daemon, mode)?;
            kill(broker)?;
            let gone = || !Path::new(&format!("/proc/{broker}")).exists();
            wait_until("a zombie stays", gone)?;
            ensure!(child_of(server)?.is_none(), "{mode}: another child");
            // By name everything is found as ever; by handle nothing.
            ensure!(session.client().getattr(file)?.size == 8);
            known(&mut session)?;
            fs::rename(share.path().join("d/file"), share.path().join("moved"))?;
            let lost = session.client().getattr(file).map(drop);
            ensure!(lost == Err(Errno::STALE.into()), "{mode}, {when}: {lost:?}");
            ensure!(session.client().lookup(ROOT, "moved")?.nodeid == file);
            serves(&mut session, share.path())?;
            let log = daemon.log();
            let said: Vec<_> = log
                .lines()
                .filter(|line| line.contains("the broker of file handles has ended"))
                .collect();
            ensure!(said.len() == 1 && said[0].contains(level), "{mode}: {log}");
        }
    }
    Ok(())
}

#[test]
fn the_broker_dies_with_its_server() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    for mode in MODES {
        for killed in [true, false] {
            let share = share_of(0)?;
            fill(share.path())?;
            let (mut daemon, session) = start(share.path(), mode, "prefer")?;
            let (server, broker) = server_and_broker(&daemon, mode)?;
            if killed {
                kill(server)?;
            } else {
                drop(session);
            }
            daemon.exit(LIMIT)?;
            let gone = || {
                // Taken over by the first process, which may take a moment to notice.
                let status = fs::read_to_string(format!("/proc/{broker}/status"));
                status.map_or(true, |status| status.contains("State:\tZ"))
            };
            wait_until(&format!("{mode}: the broker lives on"), gone)?;
        }
    }
    Ok(())
}

/// Who starts a daemon, on which share, and what it says to that.
type Lack = (&'static Privileges, PathBuf, &'static str);

/// Each way in which handles can be lacking; one of them on a store that lives as long as this.
fn lacks() -> Result<(Store, Vec<Lack>)> {
    let store = Store::mounted(&["-t", "ramfs", "ramfs"])?;
    let tmp = std::env::temp_dir();
    let cases = vec![
        (
            &WITHOUT_THE_CAPABILITY,
            tmp.clone(),
            "needs CAP_DAC_READ_SEARCH",
        ),
        (
            &ROOT_USER,
            store.0.path().into(),
            "the store of the share has none",
        ),
        (&USER, tmp, "from a user namespace"),
    ];
    Ok((store, cases))
}

#[test]
fn mandatory_handles_that_cannot_be_had_end_the_start_with_one_line() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let (_store, cases) = lacks()?;
    for (privileges, share, says) in cases {
        let place = share_of(privileges.uid)?;
        let socket = format!("{}/socket", text(place.path())?);
        let arguments = [
            "--inode-file-handles=mandatory",
            "--log-level=error",
            "--shared-dir",
            text(&share)?,
            "--socket-path",
            &socket,
        ];
        let output = common::run_through(privileges.through, &arguments)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(1),
            "{}: {said}",
            privileges.name
        );
        ensure!(said.contains(says) && said.lines().count() == 1, "{said}");
        ensure!(said.contains("--inode-file-handles=mandatory: "), "{said}");
        ensure!(
            fs::read_dir(place.path())?.next().is_none(),
            "something stays"
        );
    }
    expect_end(&["--inode-file-handles=sometimes"], 2, "sometimes")
}

#[test]
fn preferred_handles_that_cannot_be_had_are_one_warning() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let (_store, cases) = lacks()?;
    for (privileges, share, says) in cases {
        for when in ["prefer", "fallback"] {
            let of_a_user = share_of(privileges.uid)?;
            let share = match privileges.uid {
                0 => share.clone(),
                _ => of_a_user.path().to_owned(),
            };
            let mut daemon = privileges
                .launch(&share)
                .sandbox("namespace")
                .arg(format!("--inode-file-handles={when}"))
                .start()?;
            await_log(&mut daemon, "Waiting for vhost-user")?;
            let log = daemon.log();
            let warned = log.matches("--inode-file-handles=prefer: ").count();
            ensure!(
                log.contains(says) && warned == 1,
                "{}: {log}",
                privileges.name
            );
            let mut session = Session::open(daemon.socket()).with_context(|| daemon.log())?;
            ensure!(session.client().getattr(ROOT).is_ok());
        }
    }
    Ok(())
}
