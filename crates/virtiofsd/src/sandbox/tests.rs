//! From inside: a process that has entered the sandbox, as one that was taken over, tries to get out.
//!
//! Each attempt is a process of its own. First without the filter, to see that the other layers hold by themselves;
//! then with it, where most attempts end the process.

mod calls;
mod handles;
mod labels;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags, openat, renameat};
use rustix::io::Errno;

use super::{Broker, Confined, Kind, Role, choose, enter, filter, prepare};
use crate::cli;
use crate::plan::Plan;
use crate::sys::{self, Forked};

/// Modes that a test can enter, from the strongest.
const MODES: [&str; 3] = ["namespace", "chroot", "none"];
/// How a process ends that makes a call which is not on the list: 128 and SIGSYS.
const KILLED: i32 = 128 + libc::SIGSYS;
/// The sandbox could not be entered.
const NOT_THERE: u8 = 255;

/// What a process inside tries.
type Attempt<'a> = &'a dyn Fn(&Confined) -> Result<(), Errno>;

/// A share with a neighbour that nobody inside may reach.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("share/inner")).unwrap();
        fs::write(directory.path().join("share/file"), "shared").unwrap();
        fs::write(directory.path().join("secret"), "not shared").unwrap();
        Self { directory }
    }

    fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    fn secret(&self) -> PathBuf {
        self.directory.path().join("secret")
    }

    /// Runs an attempt inside: 0 when it works, the errno when it is refused, 128 and more when it kills.
    fn attempt(
        &self,
        (mode, seccomp): (&str, &str),
        attempt: impl FnOnce(&Confined) -> Result<(), Errno>,
    ) -> i32 {
        self.attempt_with(&["--sandbox", mode, "--seccomp", seccomp], attempt)
    }

    /// As [`Place::attempt`], with any options.
    fn attempt_with(
        &self,
        options: &[&str],
        attempt: impl FnOnce(&Confined) -> Result<(), Errno>,
    ) -> i32 {
        let share = self.share();
        let line = ["virtiofsd", "--socket-path=/s"];
        let line = line.iter().chain(options).chain(&["--shared-dir"]);
        let words = line.map(Into::into).chain([share.into()]);
        let plan = Plan::new(&cli::parse(words).unwrap()).unwrap();
        match sys::fork().unwrap() {
            Forked::Parent(child) => sys::wait_for(child).unwrap(),
            Forked::Child => sys::exit_now(go_in(&plan, attempt)),
        }
    }
}

fn go_in(plan: &Plan, attempt: impl FnOnce(&Confined) -> Result<(), Errno>) -> u8 {
    let code = |number: i32| u8::try_from(number).unwrap_or(NOT_THERE);
    let mode = choose(plan);
    let wanted = mode
        .as_ref()
        .is_ok_and(|mode| matches!(crate::broker::wanted(plan, Kind::Directory, mode), Ok(true)));
    let broker = if wanted { Broker::Wanted } else { Broker::None };
    match mode.and_then(prepare) {
        Ok(Role::Helper(helper)) => {
            let released = helper.map_ids().and_then(|()| helper.release());
            sys::wait_for(helper.server).map_or(NOT_THERE, |ended| {
                released.map_or(NOT_THERE, |()| code(ended))
            })
        }
        Ok(Role::Server(server)) => match enter(plan, Kind::Directory, (server, broker))
            .and_then(|confined| filter(plan).map(|()| confined))
        {
            Ok(confined) => {
                attempt(&confined).map_or_else(|errno| code(errno.raw_os_error()), |()| 0)
            }
            Err(_) => NOT_THERE,
        },
        Err(_) => NOT_THERE,
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("VIRTIOFSD_NO_SKIP").is_none(),
            "only root can enter every mode"
        );
        println!("SKIPPED: only root can enter every mode");
    }
    root
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

fn open(
    at: impl std::os::fd::AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
) -> Result<std::os::fd::OwnedFd, Errno> {
    openat(at, path.as_ref(), flags, FileMode::empty())
}

/// As many steps up as it takes to be at the top, then down again.
fn from_the_top(path: &Path) -> PathBuf {
    let up: PathBuf = std::iter::repeat_n("..", 20).collect();
    up.join(path.strip_prefix("/").unwrap())
}

const NOENT: i32 = libc::ENOENT;
const ACCES: i32 = libc::EACCES;
const PERM: i32 = libc::EPERM;

/// What is refused without the filter, by which errno in each mode.
#[test]
fn no_way_by_name_leads_out_of_the_share() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let secret = place.secret();
    let way = from_the_top(&secret);
    let cases: [(&str, Attempt<'_>, [i32; 3]); 6] = [
        (
            "by its path",
            &|_| open(rustix::fs::CWD, &secret, READ).map(drop),
            [NOENT, NOENT, ACCES],
        ),
        (
            "up from the share",
            &|inside| open(&inside.root, &way, READ).map(drop),
            [NOENT, NOENT, ACCES],
        ),
        (
            "up from the kept /proc/self/fd",
            &|inside| open(&inside.proc_self_fd, &way, READ).map(drop),
            [NOENT, ACCES, ACCES],
        ),
        (
            "up from a descriptor through it",
            &|inside| {
                let through = Path::new(&inside.root.as_raw_fd().to_string()).join(&way);
                open(&inside.proc_self_fd, through, READ).map(drop)
            },
            [NOENT, NOENT, ACCES],
        ),
        (
            "by the root of the first process",
            &|inside| {
                let through = Path::new("../../1/root").join(secret.strip_prefix("/").unwrap());
                open(&inside.proc_self_fd, through, READ).map(drop)
            },
            [NOENT, ACCES, ACCES],
        ),
        (
            "by looking first and reopening what was found",
            &|inside| {
                let found = open(&inside.proc_self_fd, &way, LOOK)?;
                let number = found.as_raw_fd().to_string();
                open(&inside.proc_self_fd, number, READ).map(drop)
            },
            [NOENT, ACCES, ACCES],
        ),
    ];
    refused_alike(&place, &cases);
}

#[test]
fn nothing_outside_is_given_a_name_inside_or_made() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let way = from_the_top(&place.secret());
    let cases: [(&str, Attempt<'_>, [i32; 3]); 2] = [
        (
            "by making a name for it inside",
            &|inside| {
                rustix::fs::linkat(
                    &inside.proc_self_fd,
                    &way,
                    &inside.root,
                    "stolen",
                    rustix::fs::AtFlags::empty(),
                )
            },
            // Landlock calls a link across its border a link across devices.
            [NOENT, libc::EXDEV, libc::EXDEV],
        ),
        (
            "by making a file beside it",
            &|inside| {
                let beside = way.with_file_name("planted");
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&inside.proc_self_fd, &beside, flags, FileMode::RUSR).map(drop)
            },
            [NOENT, ACCES, ACCES],
        ),
    ];
    refused_alike(&place, &cases);
    assert!(!place.share().join("stolen").exists());
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 2);
}

/// Each attempt is refused with the errno of its mode, with the filter and without.
fn refused_alike(place: &Place, cases: &[(&str, Attempt<'_>, [i32; 3])]) {
    for (name, attempt, wanted) in cases {
        for (mode, want) in MODES.into_iter().zip(wanted) {
            for seccomp in ["none", "kill"] {
                let got = place.attempt((mode, seccomp), attempt);
                assert_eq!(got, *want, "{name}, {mode}, --seccomp {seccomp}");
            }
        }
    }
}

#[test]
fn files_of_the_share_are_reopened_and_renamed_as_ever() {
    if !is_root() {
        return;
    }
    for mode in MODES {
        let place = Place::new();
        let got = place.attempt((mode, "kill"), |inside| {
            let found = open(&inside.root, "file", LOOK)?;
            let number = found.as_raw_fd().to_string();
            open(
                &inside.proc_self_fd,
                &number,
                OFlags::RDWR | OFlags::CLOEXEC,
            )?;
            let inner = open(&inside.root, "inner", LOOK)?;
            rustix::fs::renameat_with(
                &inside.root,
                "file",
                &inner,
                "moved",
                rustix::fs::RenameFlags::NOREPLACE,
            )?;
            open(
                &inside.proc_self_fd,
                &number,
                OFlags::RDWR | OFlags::CLOEXEC,
            )
            .map(drop)
        });
        assert_eq!(got, 0, "{mode}");
        assert!(place.share().join("inner/moved").exists());
    }
}

/// The second layer behind the filter, for what it refuses first.
#[test]
fn without_the_filter_privileges_and_landlock_still_refuse() {
    if !is_root() {
        return;
    }
    let mount =
        || rustix::mount::mount("t", "/", "tmpfs", rustix::mount::MountFlags::empty(), None);
    let run = || {
        let spawned = std::process::Command::new("/bin/true").spawn().map(drop);
        spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let cases: [(&str, Attempt<'_>, [i32; 3]); 8] = [
        ("mount", &|_| mount(), [PERM; 3]),
        (
            "umount",
            &|_| rustix::mount::unmount("/", rustix::mount::UnmountFlags::DETACH),
            [PERM; 3],
        ),
        (
            "pivot_root",
            &|_| rustix::process::pivot_root(".", "."),
            [PERM; 3],
        ),
        ("chroot", &|_| rustix::process::chroot("/"), [PERM; 3]),
        (
            "namespace",
            &|_| sys::attempt(libc::SYS_unshare, [0x2_0000, 0, 0, 0, 0]),
            [PERM; 3],
        ),
        (
            "reboot",
            &|_| sys::attempt(libc::SYS_reboot, [0; 5]),
            [PERM; 3],
        ),
        (
            "signal to the first process of the host",
            &|_| sys::attempt(libc::SYS_kill, [1, 0, 0, 0, 0]),
            // In a pid namespace that is the daemon itself.
            [0, PERM, PERM],
        ),
        ("a program", &|_| run(), [NOENT, NOENT, ACCES]),
    ];
    let place = Place::new();
    for (name, attempt, wanted) in cases {
        for (mode, want) in MODES.into_iter().zip(wanted) {
            let got = place.attempt((mode, "none"), attempt);
            assert_eq!(got, want, "{name}, {mode}");
        }
    }
}

/// Landlock allows what the guest may do and no more.
#[test]
fn a_share_that_is_only_read_cannot_be_written_from_inside() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let share = place.share();
    for mode in MODES {
        let line = [
            "virtiofsd",
            "--socket-path=/s",
            "--readonly",
            "--sandbox",
            mode,
            "--seccomp=none",
            "--shared-dir",
        ];
        let words = line.iter().map(Into::into).chain([share.clone().into()]);
        let plan = Plan::new(&cli::parse(words).unwrap()).unwrap();
        let code = match sys::fork().unwrap() {
            Forked::Parent(child) => sys::wait_for(child).unwrap(),
            Forked::Child => sys::exit_now(go_in(&plan, |inside| {
                open(&inside.root, "file", READ)?;
                let written = open(&inside.root, "file", OFlags::WRONLY | OFlags::CLOEXEC);
                let renamed = renameat(&inside.root, "file", &inside.root, "other");
                match (written.err(), renamed.err()) {
                    (Some(Errno::ACCESS), Some(Errno::ACCESS)) => Ok(()),
                    (other, _) => Err(other.unwrap_or(Errno::IO)),
                }
            })),
        };
        assert_eq!(code, 0, "{mode}");
    }
}
