mod options;

use super::*;
use crate::cli::{self, Stopped};

fn plan(line: &str) -> Result<Plan, PlanError> {
    let arguments = std::iter::once("virtiofsd")
        .chain(line.split_whitespace())
        .map(Into::into);
    let cli = cli::parse(arguments).map_err(|stopped| match stopped {
        Stopped::Mistake(why) | Stopped::Answered(why) | Stopped::NoArguments(why) => {
            PlanError::Usage(why)
        }
    })?;
    Plan::new(&cli)
}

#[test]
fn what_cannot_be_done_is_refused_in_one_line() {
    let cases = [
        ("--socket-path /s", "nothing to share"),
        ("--shared-dir /d", "no way to connect"),
        ("--shared-dir /d --fd 2", "--fd takes a descriptor above 2"),
        (
            "--shared-dir /d --fd 3 --socket-path /s",
            "exclude each other",
        ),
        (
            "--shared-dir /d --fd 3 --tag 1234567890123456789012345678901234567",
            "a tag has 1 to 36 bytes",
        ),
        (
            "--shared-dir /d --fd 3 --xattrmap=:good:all:::",
            "--xattrmap: rule 1 has the type 'good'",
        ),
        (
            "--shared-dir /d --fd 3 --migration-mode find-paths",
            "not built yet",
        ),
        (
            "--shared-dir /d --fd 3 --translate-uid map:0:100:5 --translate-uid forbid-guest:4:1",
            "--translate-uid: guest id 4 has more than one rule",
        ),
        (
            "--shared-dir /d --fd 3 --translate-gid guest:1:0:4294967295",
            "this one starts at 1 and holds 4294967295",
        ),
        (
            "--shared-dir /d --fd 3 --translate-gid map:0:100:5 --posix-acl=auto",
            "drop them or --posix-acl",
        ),
        (
            "--shared-dir /d --fd 3 -o max_write=4194305",
            "max_write= takes 4096 to 4194304 bytes",
        ),
        ("--shared-dir /d --fd 3 -o bogus", "unknown option 'bogus'"),
        (
            "--shared-dir /d --fd 3 --writeback --cache never",
            "--cache never forbids it",
        ),
        (
            "--shared-dir /d --fd 3 -o timeout=-1",
            "seconds are expected",
        ),
        (
            "--shared-dir /d --fd 3 --sandbox pivot",
            "invalid value 'pivot'",
        ),
    ];
    for (line, want) in cases {
        let refused = plan(line).unwrap_err().to_string();
        assert!(refused.contains(want), "{line}: {refused}");
    }
}

#[test]
fn lines_of_users_are_understood() {
    let socket = |path: &str| Listen::Socket {
        path: path.into(),
        group: None,
    };
    let cases = [
        (
            "--socket-path=/s -o source=/d -o chroot",
            socket("/s"),
            SandboxName::Chroot,
        ),
        (
            "--socket-path=/s -o source=/d,sandbox=chroot -f -d",
            socket("/s"),
            SandboxName::Chroot,
        ),
        (
            "--cache=auto --shared-dir=/d --fd=3 --thread-pool-size=1 --announce-submounts",
            Listen::Descriptor(3),
            SandboxName::Namespace,
        ),
        (
            "--socket-path=/s --shared-dir=/d --sandbox=none --cache=auto",
            socket("/s"),
            SandboxName::None,
        ),
        (
            "--fd=3 -o source=/d,cache=always,sandbox=namespace,xattr,flock,posix_lock",
            Listen::Descriptor(3),
            SandboxName::Namespace,
        ),
        (
            "--socket /s --shared-dir /d --sandbox NONE --sandbox Chroot",
            socket("/s"),
            SandboxName::Chroot,
        ),
    ];
    for (line, listen, sandbox) in cases {
        let plan = plan(line).unwrap();
        assert_eq!(
            (plan.listen, plan.sandbox, plan.shared_dir),
            (listen, sandbox, "/d".into()),
            "{line}"
        );
    }
}

#[test]
fn the_last_of_a_repeated_option_wins() {
    let plan = plan("--shared-dir /a --shared-dir /d --fd 3 --cache never --cache none --cache always --writeback -o no_writeback").unwrap();
    assert_eq!(plan.shared_dir, PathBuf::from("/d"));
    assert_eq!(plan.filesystem.cache, CachePolicy::Always);
    assert_eq!(plan.filesystem.writeback, Writeback::Off);
}

#[test]
fn a_weaker_choice_is_said_aloud() {
    let plan =
        plan("--shared-dir /d --fd 3 --sandbox none --seccomp none -o max_idle_threads=5,no_flock")
            .unwrap();
    assert_eq!(plan.warnings.len(), 3, "{:?}", plan.warnings);
}

#[test]
fn the_capability_that_opens_file_handles_is_never_the_servers_where_there_are_any() {
    let line = "--shared-dir /d --fd 3 --modcaps=+sys_nice:+dac_read_search";
    let read_search = CapabilitySet::DAC_READ_SEARCH;
    let alone = plan(line).unwrap().modcaps.keep;
    assert_eq!(alone, CapabilitySet::SYS_NICE | read_search);
    for when in ["prefer", "fallback", "mandatory"] {
        let with = plan(&format!("{line} --inode-file-handles={when}")).unwrap();
        assert_eq!(with.modcaps.keep, CapabilitySet::SYS_NICE, "{when}");
    }
}
