//! What is left of the host in a running daemon, as the kernel tells it: each mode with each kind of privileges.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use common::{
    CONTAINER, Privileges, ROOT_USER, ROOT_WITH_NOTHING, ROOT_WITHOUT_ADMIN, USER, bits,
    capabilities, processes, serves, share_of, status,
};
use virtiofs_testkit::frontend::{Daemon, Options};
use virtiofs_testkit::fuse::{ClientOptions, Session};

const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const MKNOD: u32 = 27;
const SETFCAP: u32 = 31;
/// What serving a share that guests may change needs.
const NEEDED: &[u32] = &[CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD];

/// What is expected of a daemon beyond what holds for every one.
struct Expected {
    mode: &'static str,
    capabilities: &'static [u32],
    /// Supplementary groups that stay.
    groups: &'static str,
    root: Root,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    /// The share, and nothing above it.
    Share,
    /// The host's.
    Host,
}

const CONFINED: Expected = Expected {
    mode: "namespace",
    capabilities: NEEDED,
    groups: "",
    root: Root::Share,
};

/// Starts it, drives requests through it, and looks at each of its processes and threads meanwhile.
fn holds(privileges: &Privileges, expected: &Expected) -> Result<()> {
    if !privileges.available() {
        return Ok(());
    }
    let share = share_of(privileges.uid)?;
    let daemon = privileges
        .launch(share.path())
        .sandbox(expected.mode)
        .env("VIRTIOFSD_TEST_SECRET", "in the environment")
        .start()?;
    let two_queues = Options {
        request_queues: 2,
        ..Options::default()
    };
    let mut session = Session::open_with(daemon.socket(), &two_queues, &ClientOptions::default())?;
    serves(&mut session, share.path())?;
    let what = format!("{} in {}", privileges.name, expected.mode);
    look(&daemon, share.path(), (privileges, expected)).context(what)
}

fn look(
    daemon: &Daemon,
    share: &Path,
    (privileges, expected): (&Privileges, &Expected),
) -> Result<()> {
    let all = processes(daemon)?;
    let server = *all.last().context("no process")?;
    for pid in &all {
        everywhere(*pid, privileges.uid)?;
    }
    let of_server = PathBuf::from(format!("/proc/{server}"));
    let fields = status(&of_server)?;
    let effective = bits(fields.get("CapEff"))?;
    ensure!(
        effective == capabilities(expected.capabilities),
        "effective {effective:x}"
    );
    ensure!(bits(fields.get("CapBnd"))? == 0, "bounding set");
    ensure!(
        fields["Groups"] == expected.groups,
        "groups {:?}",
        fields["Groups"]
    );
    let root = fs::metadata(of_server.join("root/."))?;
    let want = match expected.root {
        Root::Share => fs::metadata(share)?,
        Root::Host => fs::metadata("/")?,
    };
    ensure!(
        (root.dev(), root.ino()) == (want.dev(), want.ino()),
        "another root"
    );
    let own = expected.mode == "namespace";
    ensure!((all.len() == 2) == own, "{} processes", all.len());
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}"));
        let differs = of(&server.to_string())? != of("self")?;
        ensure!(differs == own, "{kind} namespace of its own: {differs}");
    }
    Ok(())
}

/// What holds for each process of a daemon, whatever its mode.
fn everywhere(pid: u32, uid: u32) -> Result<()> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut threads = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let fields = status(&thread?.path())?;
        threads += 1;
        let set = |name: &str| bits(fields.get(name));
        ensure!(
            set("CapEff")? == set("CapPrm")?,
            "effective is not permitted"
        );
        ensure!(set("CapInh")? == 0 && set("CapAmb")? == 0, "passed on");
        ensure!(fields["NoNewPrivs"] == "1" && fields["Seccomp"] == "2");
        ensure!(
            fields["Seccomp_filters"] == "2",
            "{}",
            fields["Seccomp_filters"]
        );
        ensure!(fields["Uid"] == format!("{uid} {uid} {uid} {uid}"));
    }
    ensure!(threads > 0, "no thread");
    let environment = fs::read(process.join("environ"))?;
    ensure!(
        environment.iter().all(|byte| *byte == 0),
        "{:?}",
        String::from_utf8_lossy(&environment)
    );
    // A process that may be dumped belongs to its user; one that may not, to root (man 5 proc).
    ensure!(fs::metadata(process.join("stat"))?.uid() == 0, "dumpable");
    Ok(())
}

#[test]
fn root_in_namespaces() -> Result<()> {
    holds(&ROOT_USER, &CONFINED)
}

#[test]
fn root_in_chroot() -> Result<()> {
    let expected = Expected {
        mode: "chroot",
        ..CONFINED
    };
    holds(&ROOT_USER, &expected)
}

#[test]
fn root_without_sandbox() -> Result<()> {
    let expected = Expected {
        mode: "none",
        root: Root::Host,
        ..CONFINED
    };
    holds(&ROOT_USER, &expected)
}

#[test]
fn chroot_needs_no_cap_sys_admin() -> Result<()> {
    let expected = Expected {
        mode: "chroot",
        ..CONFINED
    };
    holds(&ROOT_WITHOUT_ADMIN, &expected)?;
    holds(&CONTAINER, &expected)
}

#[test]
fn none_starts_with_the_capabilities_of_a_container() -> Result<()> {
    let expected = Expected {
        mode: "none",
        root: Root::Host,
        ..CONFINED
    };
    holds(&ROOT_WITHOUT_ADMIN, &expected)?;
    holds(&CONTAINER, &expected)
}

#[test]
fn none_starts_without_any_capability() -> Result<()> {
    let expected = Expected {
        mode: "none",
        capabilities: &[],
        root: Root::Host,
        ..CONFINED
    };
    holds(&ROOT_WITH_NOTHING, &expected)?;
    let keeps_groups = Expected {
        groups: "4242",
        ..expected
    };
    holds(&USER, &keeps_groups)
}

#[test]
fn auto_starts_with_whatever_there_is() -> Result<()> {
    let cases = [
        (&ROOT_USER, "namespace, because CAP_SYS_ADMIN"),
        (&ROOT_WITHOUT_ADMIN, "chroot, because"),
        (&CONTAINER, "chroot, because"),
        (&USER, "namespace in a user namespace, because"),
    ];
    for (privileges, says) in cases {
        if !privileges.available() {
            return Ok(());
        }
        let share = share_of(privileges.uid)?;
        let daemon = privileges.launch(share.path()).sandbox("auto").start()?;
        let mut session = Session::open(daemon.socket())?;
        serves(&mut session, share.path())?;
        let log = daemon.log();
        ensure!(log.contains("sandbox auto: "), "{log}");
        ensure!(log.contains(says), "{}: {log}", privileges.name);
    }
    Ok(())
}

#[test]
fn namespaces_of_an_ordinary_user() -> Result<()> {
    // With one id of its own there is nobody to act as.
    let expected = Expected {
        capabilities: &[CHOWN, DAC_OVERRIDE, FOWNER, FSETID],
        groups: "4242",
        ..CONFINED
    };
    holds(&USER, &expected)
}

/// With CAP_SETUID and CAP_SETGID every id is itself inside, so only device nodes are lost.
#[test]
fn namespaces_of_a_root_that_may_not_mount() -> Result<()> {
    let expected = Expected {
        capabilities: &[CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID],
        ..CONFINED
    };
    holds(&ROOT_WITHOUT_ADMIN, &expected)
}

#[test]
fn options_decide_which_capabilities_are_kept() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let cases: [(&[&str], u64); 4] = [
        (&["--readonly"], capabilities(&[DAC_OVERRIDE])),
        (
            &["--readonly", "--modcaps=+sys_nice"],
            capabilities(&[DAC_OVERRIDE, 23]),
        ),
        (
            &["--xattr"],
            capabilities(NEEDED) | capabilities(&[SETFCAP]),
        ),
        (
            &["--modcaps=-mknod:-cap_setuid"],
            capabilities(&[CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID]),
        ),
    ];
    for (arguments, want) in cases {
        let share = share_of(0)?;
        let mut launch = ROOT_USER.launch(share.path());
        for argument in arguments {
            launch = launch.arg(argument);
        }
        let daemon = launch.start()?;
        drop(Session::open(daemon.socket())?);
        let fields = status(&PathBuf::from(format!("/proc/{}", daemon.pid())))?;
        ensure!(bits(fields.get("CapEff"))? == want, "{arguments:?}");
    }
    Ok(())
}

/// Which descriptors stay open in each process while nobody is connected.
#[test]
fn inherited_descriptors_are_closed() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    for mode in ["namespace", "chroot", "none"] {
        let share = share_of(0)?;
        // The shell leaves two descriptors open, and another file in the terminal's place.
        let through = [
            "sh",
            "-c",
            "exec \"$0\" \"$@\" 7</etc/passwd 9</ 0</etc/hostname",
        ];
        let mut daemon = virtiofs_testkit::frontend::Launch::new(share.path())
            .through(through)
            .sandbox(mode)
            .start()?;
        common::await_log(&mut daemon, "Waiting for vhost-user socket connection...")?;
        for pid in processes(&daemon)? {
            for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
                let entry = entry?;
                let target = fs::read_link(entry.path())?;
                let shown = target.to_string_lossy();
                ensure!(
                    !shown.starts_with("/etc/")
                        && (target != Path::new("/") || mode == "namespace"),
                    "{mode}: {} is {shown}",
                    entry.path().display()
                );
            }
            let input = fs::read_link(format!("/proc/{pid}/fd/0"))?;
            ensure!(input == Path::new("/dev/null"), "{}", input.display());
        }
    }
    Ok(())
}

/// A process with the same identity and capabilities may look at one that can be dumped, and not at the daemon.
#[test]
fn memory_is_closed_to_processes_of_the_same_user() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    let share = share_of(0)?;
    let daemon = ROOT_USER.launch(share.path()).start()?;
    drop(Session::open(daemon.socket())?);
    let same = ["setpriv", "--bounding-set=-sys_ptrace"];
    let mut open_book = Command::new(same[0])
        .args(&same[1..])
        .args(["sleep", "60"])
        .spawn()?;
    let comm = format!("/proc/{}/comm", open_book.id());
    while fs::read_to_string(&comm)? != "sleep\n" {
        std::thread::yield_now();
    }
    let reads = |pid: u32| -> Result<bool> {
        let status = Command::new(same[0])
            .args(&same[1..])
            .args(["readlink", &format!("/proc/{pid}/fd/0")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(status.success())
    };
    let (of_other, of_daemon) = (reads(open_book.id())?, reads(daemon.pid())?);
    open_book.kill()?;
    open_book.wait()?;
    ensure!(
        of_other && !of_daemon,
        "other {of_other}, daemon {of_daemon}"
    );
    Ok(())
}

fn has_strace() -> bool {
    Command::new("strace").arg("-V").output().is_ok() || common::skipped("strace is not installed")
}

/// strace answers for a kernel that has no Landlock.
#[test]
fn without_landlock_one_warning_says_so_and_auto_ranks_chroot_lower() -> Result<()> {
    if !ROOT_USER.available() || !has_strace() {
        return Ok(());
    }
    const WITHOUT: [&str; 6] = [
        "strace",
        "-f",
        "-qq",
        "--output=/dev/null",
        "--trace=landlock_create_ruleset",
        "--inject=landlock_create_ruleset:error=ENOSYS",
    ];
    let namespaces = "auto: namespace in a user namespace, because";
    let cases = [
        (&ROOT_USER, "namespace", "no Landlock: "),
        (&ROOT_USER, "chroot", "no Landlock: "),
        (&ROOT_USER, "none", "no Landlock: "),
        (&CONTAINER, "auto", namespaces),
    ];
    for (privileges, mode, says) in cases {
        let share = share_of(0)?;
        let daemon = virtiofs_testkit::frontend::Launch::new(share.path())
            .through(privileges.through.iter().copied().chain(WITHOUT))
            .sandbox(mode)
            .start()?;
        let mut session = Session::open(daemon.socket()).with_context(|| daemon.log())?;
        serves(&mut session, share.path())?;
        let log = daemon.log();
        ensure!(log.contains(says), "{mode}: {log}");
        ensure!(log.matches("no Landlock: ").count() == 1, "{mode}: {log}");
    }
    Ok(())
}

/// Each step of giving up rights comes before the first accept, as strace saw it.
#[test]
fn the_sandbox_is_complete_before_the_socket_accepts() -> Result<()> {
    if !ROOT_USER.available() {
        return Ok(());
    }
    if !has_strace() {
        return Ok(());
    }
    for mode in ["namespace", "chroot", "none"] {
        let share = share_of(0)?;
        let place = share_of(0)?;
        let log = place.path().join("calls");
        let log = log.to_str().context("UTF-8")?;
        let through = ["strace", "-f", "-qq", "-o", log];
        let mut daemon = virtiofs_testkit::frontend::Launch::new(share.path())
            .through(through)
            .sandbox(mode)
            .start()?;
        drop(Session::open(daemon.socket())?);
        daemon.expect_exit(0, common::LIMIT)?;
        let calls = fs::read_to_string(log)?;
        let accepts = calls.find("accept4(").context("no accept")?;
        let steps = [
            "PR_SET_NO_NEW_PRIVS",
            "landlock_restrict_self(",
            "capset(",
            "PR_SET_DUMPABLE, SUID_DUMP_DISABLE",
            "seccomp(SECCOMP_SET_MODE_FILTER",
        ];
        for step in steps {
            let last = calls.rfind(step).with_context(|| format!("no {step}"))?;
            ensure!(last < accepts, "{mode}: {step} after the first accept");
        }
    }
    Ok(())
}
