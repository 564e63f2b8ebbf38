//! What the tests of the binary share: privileges to start it with, and what /proc says about it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use virtiofs_testkit::frontend::{Daemon, Launch, daemon_path};
use virtiofs_testkit::fuse::Session;
use virtiofs_testkit::fuse::abi::ROOT;

/// How long anything may take here.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
const O_RDWR: u32 = 2;

/// What a daemon is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Privileges {
    pub(crate) name: &'static str,
    /// The program and its arguments that take the rest away, or nothing.
    pub(crate) through: &'static [&'static str],
    pub(crate) uid: u32,
}

/// Everything that this machine's root has.
pub(crate) const ROOT_USER: Privileges = Privileges {
    name: "root",
    through: &[],
    uid: 0,
};

/// A container's root that may not mount.
pub(crate) const ROOT_WITHOUT_ADMIN: Privileges = Privileges {
    name: "root without CAP_SYS_ADMIN",
    through: &["setpriv", "--bounding-set=-sys_admin"],
    uid: 0,
};

/// The fourteen capabilities that container engines leave to root.
pub(crate) const CONTAINER: Privileges = Privileges {
    name: "root with the capabilities of a container",
    through: &[
        "setpriv",
        "--bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,\
         +setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write",
    ],
    uid: 0,
};

/// The three capabilities that the usual container runtime gives by itself.
pub(crate) const BARE_CONTAINER: Privileges = Privileges {
    name: "root with audit_write, kill and net_bind_service",
    through: &[
        "setpriv",
        "--bounding-set=-all,+audit_write,+kill,+net_bind_service",
    ],
    uid: 0,
};

/// Root of a user namespace that an ordinary user has made.
pub(crate) const ROOT_OF_A_USER: Privileges = Privileges {
    name: "root of a user namespace",
    through: &[
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "unshare",
        "--user",
        "--map-root-user",
    ],
    uid: 1000,
};

/// As a container with a root file system that is only read.
pub(crate) const READ_ONLY_ROOT: Privileges = Privileges {
    name: "root on a read-only root",
    through: &[
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount --bind /tmp /tmp && mount -o remount,ro,bind / && exec \"$0\" \"$@\"",
    ],
    uid: 0,
};

/// Root in name only.
pub(crate) const ROOT_WITH_NOTHING: Privileges = Privileges {
    name: "root without any capability",
    through: &["setpriv", "--no-new-privs", "--bounding-set=-all"],
    uid: 0,
};

/// An ordinary user of an unprivileged container, with a group that its files have.
pub(crate) const USER: Privileges = Privileges {
    name: "uid 1000 without any capability",
    through: &[
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--groups=4242",
        "--no-new-privs",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ],
    uid: 1000,
};

impl Privileges {
    /// A daemon with these privileges.
    pub(crate) fn launch(&self, share: &Path) -> Launch {
        Launch::new(share)
            .through(self.through.iter().copied())
            .owned_by(self.uid)
    }

    /// Whether this machine can start it; says so if not.
    pub(crate) fn available(&self) -> bool {
        rustix::process::geteuid().is_root() || skipped("only root can start daemons as others")
    }
}

/// Says why a test cannot do its work; fails where nothing may be skipped.
pub(crate) fn skipped(why: &str) -> bool {
    assert!(std::env::var_os("VIRTIOFSD_NO_SKIP").is_none(), "{why}");
    println!("SKIPPED: {why}");
    false
}

/// A directory that belongs to a user.
pub(crate) fn share_of(uid: u32) -> Result<tempfile::TempDir> {
    let share = tempfile::tempdir()?;
    std::os::unix::fs::chown(share.path(), Some(uid), Some(uid))?;
    Ok(share)
}

/// Starts the daemon with these arguments and waits for it to end by itself.
pub(crate) fn run(arguments: &[&str]) -> Result<Output> {
    run_through(&[], arguments)
}

/// As [`run`], through another program.
pub(crate) fn run_through(through: &[&str], arguments: &[&str]) -> Result<Output> {
    let program = daemon_path()?;
    let timeout = ["timeout", "--signal=KILL", "10"];
    let mut command = Command::new(timeout[0]);
    command.args(&timeout[1..]).args(through).arg(program);
    Ok(command.args(arguments).stdin(Stdio::null()).output()?)
}

/// The exit code and what was said on standard error.
pub(crate) fn ended(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = run(arguments)?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

/// The fields of `/proc/PID/status` or of one of its threads.
pub(crate) fn status(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path.join("status"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            (
                name.to_owned(),
                value.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect())
}

/// The processes of a daemon: itself, and the server inside its namespaces if there is one.
pub(crate) fn processes(daemon: &Daemon) -> Result<Vec<u32>> {
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut all = vec![pid];
    for child in children.split_whitespace() {
        all.push(child.parse()?);
    }
    Ok(all)
}

/// Waits until a line is in the daemon's log.
pub(crate) fn await_log(daemon: &mut Daemon, line: &str) -> Result<()> {
    let deadline = std::time::Instant::now() + LIMIT;
    while !daemon.log().contains(line) {
        ensure!(daemon.is_running(), "it has ended: {}", daemon.log());
        ensure!(std::time::Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A file is made, written and read through the daemon, and the host sees it.
pub(crate) fn serves(session: &mut Session, share: &Path) -> Result<()> {
    let client = session.client();
    let made = client.create(ROOT, "made", O_RDWR, 0o640)?;
    let (node, fh) = (made.entry.nodeid, made.open.fh);
    client.write(node, fh, 0, b"through the sandbox")?;
    client.fsync(node, fh)?;
    ensure!(client.read(node, fh, 0, 100)? == b"through the sandbox");
    client.release(node, fh)?;
    let opened = client.open(node, O_RDWR)?;
    ensure!(client.read(node, opened.fh, 0, 7)? == b"through");
    client.release(node, opened.fh)?;
    client.mkdir(ROOT, "directory", 0o750)?;
    ensure!(fs::read(share.join("made"))? == b"through the sandbox");
    ensure!(share.join("directory").is_dir());
    client.unlink(ROOT, "made")?;
    client.rmdir(ROOT, "directory")?;
    Ok(())
}

/// Parses a capability set of /proc.
pub(crate) fn bits(field: Option<&String>) -> Result<u64> {
    let text = field.context("no such field")?;
    u64::from_str_radix(text, 16).with_context(|| text.clone())
}

/// The bits of capabilities by number (linux/capability.h).
pub(crate) fn capabilities(numbers: &[u32]) -> u64 {
    numbers.iter().fold(0, |set, number| set | 1 << number)
}

/// Fails with what was said unless the daemon ends with that code and says that.
pub(crate) fn expect_end(arguments: &[&str], code: i32, says: &str) -> Result<()> {
    let (ended, said) = ended(arguments)?;
    if ended != Some(code) || !said.contains(says) {
        bail!("{arguments:?}: exit {ended:?}, not {code} and '{says}': {said}");
    }
    Ok(())
}
