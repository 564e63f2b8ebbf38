//! Every option of both daemons with every value that is documented: it has an effect, is the default, warns, or ends
//! the start by name. None is accepted and ignored.

use super::*;
use rustix::thread::CapabilitySet as Capability;
use virtiofs_hostfs::{IdRange, IdRule};

use crate::cli::values::{FileHandlesName as Handles, LevelName as Level};
use crate::compat;

/// What an option comes to.
enum Comes {
    /// The plan is another one, in this respect.
    Effect(fn(&Plan) -> bool),
    /// The plan is what it would be without.
    Default,
    /// The plan is made, with one warning more that says this.
    Warning(&'static str),
    /// The start ends with exit code 1 and this name.
    Missing(&'static str),
}
use Comes::{Default, Effect, Missing, Warning};

const fn range(first: u32, count: u32) -> IdRange {
    IdRange { first, count }
}

fn users_by(plan: &Plan, rule: IdRule) -> bool {
    plan.filesystem.identities.users == IdMap::new([rule]).unwrap()
}

const WITHOUT: &str = "--shared-dir /d --fd 3";

#[rustfmt::skip]
const ROWS: &[(&str, Comes)] = &[
    ("--shared-dir /e", Effect(|plan| plan.shared_dir == std::path::Path::new("/e"))),
    ("-o source=/e=f", Effect(|plan| plan.shared_dir == std::path::Path::new("/e=f"))),
    ("--tag home", Effect(|plan| plan.tag.as_deref() == Some("home"))),
    ("--readonly", Effect(|plan| [plan.session.access, plan.filesystem.access] == [Access::ReadOnly; 2])),
    ("--announce-submounts", Default),
    ("-o announce_submounts", Default),
    ("--no-announce-submounts", Effect(|plan| plan.filesystem.submounts == Submounts::Hidden)),
    ("--preserve-noatime", Effect(|plan| plan.filesystem.no_atime == NoAtime::PassedOn)),
    ("--casefold ascii", Effect(|plan| plan.filesystem.casefold == CaseFold::Ascii)),
    ("--casefold unicode", Effect(|plan| plan.filesystem.casefold == CaseFold::Unicode)),
    ("--inode-file-handles=never", Default),
    ("--inode-file-handles=prefer", Effect(|plan| plan.file_handles == Handles::Prefer)),
    ("--inode-file-handles=fallback", Effect(|plan| plan.file_handles == Handles::Prefer)),
    ("--inode-file-handles=mandatory", Effect(|plan| plan.file_handles == Handles::Mandatory)),
    ("--fd 5", Effect(|plan| plan.listen == Listen::Descriptor(5))),
    ("--keep-listening", Effect(|plan| plan.after_disconnect == AfterDisconnect::Accept)),
    ("--cache auto", Default),
    ("--cache always", Effect(|plan| plan.filesystem.cache == CachePolicy::Always)),
    ("--cache never", Effect(|plan| plan.filesystem.cache == CachePolicy::Never)),
    ("--cache none", Effect(|plan| plan.filesystem.cache == CachePolicy::Never)),
    ("--cache metadata", Effect(|plan| plan.filesystem.cache == CachePolicy::Metadata)),
    ("--cache adaptive", Effect(|plan| plan.filesystem.cache == CachePolicy::Adaptive)),
    ("-o cache=always", Effect(|plan| plan.filesystem.cache == CachePolicy::Always)),
    ("--timeout 0", Effect(|plan| plan.filesystem.validity == Some(Validity { secs: 0, nanos: 0 }))),
    ("-o timeout=1.5", Effect(|plan| plan.filesystem.validity == Some(Validity { secs: 1, nanos: 500_000_000 }))),
    ("--writeback", Effect(|plan| plan.filesystem.writeback == Writeback::On)),
    ("-o writeback", Effect(|plan| plan.filesystem.writeback == Writeback::On)),
    ("-o no_writeback", Default),
    ("-o readdirplus", Default),
    ("--no-readdirplus", Effect(|plan| plan.filesystem.readdirplus == ReaddirPlus::Off)),
    ("-o no_readdirplus", Effect(|plan| plan.filesystem.readdirplus == ReaddirPlus::Off)),
    ("--allow-direct-io", Effect(|plan| plan.filesystem.direct_io == DirectIo::PassedOn)),
    ("-o allow_direct_io", Effect(|plan| plan.filesystem.direct_io == DirectIo::PassedOn)),
    ("-o no_allow_direct_io", Default),
    ("--allow-mmap", Effect(|plan| plan.filesystem.shared_mappings == SharedMappings::Always)),
    ("--xattr", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off)),
    ("-o xattr", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off)),
    ("-o xattr,no_xattr", Default),
    ("--xattrmap :ok:all:::", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off)),
    ("-o xattrmap=:ok:all:::", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off)),
    ("--posix-acl", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.posix_acl == PosixAcl::Required)),
    ("--posix-acl=never", Default),
    ("--posix-acl=auto", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.posix_acl == PosixAcl::IfOffered)),
    ("--posix-acl=always", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.posix_acl == PosixAcl::Required)),
    ("-o posix_acl", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.posix_acl == PosixAcl::Required)),
    ("-o no_posix_acl", Default),
    ("--security-label", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.security_labels == SecurityLabels::Required)),
    ("--security-label=never", Default),
    ("--security-label=auto", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.security_labels == SecurityLabels::IfPossible)),
    ("--security-label=always", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.security_labels == SecurityLabels::Required)),
    ("-o security_label", Effect(|plan| plan.filesystem.xattr != XattrPolicy::Off && plan.filesystem.security_labels == SecurityLabels::Required)),
    ("-o no_security_label", Default),
    ("--killpriv-v2", Default),
    ("-o killpriv_v2", Default),
    ("--no-killpriv-v2", Effect(|plan| plan.filesystem.kill_privileges == KillPrivilegesV2::Off)),
    ("-o no_killpriv_v2", Effect(|plan| plan.filesystem.kill_privileges == KillPrivilegesV2::Off)),
    ("--posix-lock", Effect(|plan| plan.filesystem.posix_locks == RemoteLocks::On && plan.filesystem.flocks == RemoteLocks::Off)),
    ("-o posix_lock", Effect(|plan| plan.filesystem.posix_locks == RemoteLocks::On && plan.filesystem.flocks == RemoteLocks::Off)),
    ("-o posix_lock,no_posix_lock", Default),
    ("-o no_posix_lock", Default),
    ("--flock", Effect(|plan| plan.filesystem.flocks == RemoteLocks::On && plan.filesystem.posix_locks == RemoteLocks::Off)),
    ("-o flock", Effect(|plan| plan.filesystem.flocks == RemoteLocks::On && plan.filesystem.posix_locks == RemoteLocks::Off)),
    ("-o flock,no_flock", Default),
    ("-o no_flock", Default),
    ("--sandbox namespace", Default),
    ("--sandbox CHROOT", Effect(|plan| plan.sandbox == SandboxName::Chroot)),
    ("--sandbox chroot", Effect(|plan| plan.sandbox == SandboxName::Chroot)),
    ("--sandbox none", Effect(|plan| plan.sandbox == SandboxName::None && plan.warnings.len() == 1)),
    ("--sandbox auto", Effect(|plan| plan.sandbox == SandboxName::Auto)),
    ("-o sandbox=namespace", Default),
    ("-o sandbox=chroot", Effect(|plan| plan.sandbox == SandboxName::Chroot)),
    ("-o chroot", Effect(|plan| plan.sandbox == SandboxName::Chroot)),
    ("-o no_chroot", Default),
    ("--seccomp none", Effect(|plan| plan.seccomp == SeccompName::None && plan.warnings.len() == 1)),
    ("--seccomp kill", Default),
    ("--seccomp log", Effect(|plan| plan.seccomp == SeccompName::Log)),
    ("--seccomp trap", Effect(|plan| plan.seccomp == SeccompName::Trap)),
    ("--modcaps=+sys_nice:-chown", Effect(|plan| (plan.modcaps.keep, plan.modcaps.give_up) == (Capability::SYS_NICE, Capability::CHOWN))),
    ("-o modcaps=-CAP_MKNOD", Effect(|plan| plan.modcaps.give_up == Capability::MKNOD)),
    ("--uid-map :0:100:5:", Effect(|plan| plan.uid_map.len() == 1)),
    ("--uid-map :0:100:1: --uid-map :1:200:9:", Effect(|plan| plan.uid_map.len() == 2)),
    ("--gid-map :0:100:5:", Effect(|plan| plan.gid_map.len() == 1)),
    ("--translate-uid guest:0:100:5", Effect(|plan| users_by(plan, IdRule::Guest(range(0, 5), 100)))),
    ("--translate-uid host:0:100:5", Effect(|plan| users_by(plan, IdRule::Host(range(0, 5), 100)))),
    ("--translate-uid squash-guest:0:100:5", Effect(|plan| users_by(plan, IdRule::SquashGuest(range(0, 5), 100)))),
    ("--translate-uid squash-host:0:100:4294967295", Effect(|plan| users_by(plan, IdRule::SquashHost(range(0, u32::MAX), 100)))),
    ("--translate-uid forbid-guest:0:4294967295", Effect(|plan| users_by(plan, IdRule::ForbidGuest(range(0, u32::MAX))))),
    ("--translate-uid map:0:100:5", Effect(|plan| users_by(plan, IdRule::Map(range(0, 5), 100)))),
    ("--translate-gid map:0:100:5", Effect(|plan| plan.filesystem.identities.groups == IdMap::new([IdRule::Map(range(0, 5), 100)]).unwrap())),
    ("--thread-pool-size 0", Default),
    ("--thread-pool-size 4", Effect(|plan| plan.store_threads == 4)),
    ("--rlimit-nofile 0", Effect(|plan| plan.rlimit_nofile == Some(0))),
    ("--rlimit-nofile 4096", Effect(|plan| plan.rlimit_nofile == Some(4096))),
    ("--max-inodes 77", Effect(|plan| plan.filesystem.max_inodes == Some(77))),
    ("--poll-us auto", Default),
    ("--poll-us 0", Effect(|plan| plan.polling == Polling::Off)),
    ("--poll-us 50", Effect(|plan| plan.polling == Polling::Fixed(Duration::from_micros(50)))),
    ("--allow-idmap", Effect(|plan| plan.filesystem.idmapped_mounts == IdmappedMounts::Allowed)),
    ("-o max_write=4194304", Effect(|plan| plan.session.max_write_bytes == 4 << 20)),
    ("--max-write 65536", Effect(|plan| plan.session.max_write_bytes == 65536)),
    ("-o max_write=65537", Effect(|plan| plan.session.max_write_bytes == 65536)),
    ("--max-readahead 4096", Effect(|plan| plan.session.max_readahead_bytes == Some(4096))),
    ("-o max_readahead=0", Effect(|plan| plan.session.max_readahead_bytes == Some(0))),
    ("--max-background 8", Effect(|plan| plan.session.max_background == 8)),
    ("-o max_background=9", Effect(|plan| plan.session.max_background == 9)),
    ("--migration-mode find-paths", Missing("--migration-mode")),
    ("--migration-mode file-handles", Missing("--migration-mode")),
    ("--migration-on-error abort", Missing("--migration-on-error")),
    ("--migration-on-error guest-error", Missing("--migration-on-error")),
    ("--migration-verify-handles", Missing("--migration-verify-handles")),
    ("--migration-confirm-paths", Missing("--migration-confirm-paths")),
    ("--log-level error", Effect(|plan| plan.log_level == Level::Error)),
    ("--log-level err", Effect(|plan| plan.log_level == Level::Error)),
    ("--log-level warn", Effect(|plan| plan.log_level == Level::Warn)),
    ("--log-level info", Default),
    ("--log-level debug", Effect(|plan| plan.log_level == Level::Debug)),
    ("--log-level trace", Effect(|plan| plan.log_level == Level::Trace)),
    ("--log-level off", Effect(|plan| plan.log_level == Level::Off)),
    ("-o log_level=err", Effect(|plan| plan.log_level == Level::Error)),
    ("-o loglevel=warn", Effect(|plan| plan.log_level == Level::Warn)),
    ("-d", Effect(|plan| plan.log_level == Level::Debug)),
    ("-o debug", Effect(|plan| plan.log_level == Level::Debug)),
    ("--debug", Effect(|plan| plan.log_level == Level::Debug)),
    ("--syslog", Effect(|plan| plan.log == Log::System)),
    ("--foreground", Default),
    ("-f", Default),
    ("--daemonize", Effect(|plan| plan.ground == Ground::Back && plan.warnings.len() == 1)),
    ("--without-effect allow_root", Warning("allow_root")),
    ("-o max_idle_threads=5", Warning("max_idle_threads")),
    ("-o allow_root,allow_root", Warning("'-o allow_root' no longer has an effect")),
    ("--print-capabilities", Default),
];

#[test]
fn every_option_has_an_effect_or_says_that_it_has_none() {
    let without = plan(WITHOUT).unwrap();
    for (words, comes) in ROWS {
        let made = plan(&format!("{WITHOUT} {words}"));
        match (comes, made) {
            (Effect(has), Ok(made)) => {
                assert!(has(&made), "{words}: {made:?}");
                assert!(!has(&without), "{words} is the default");
            }
            (Default, Ok(made)) => {
                assert_eq!(format!("{made:?}"), format!("{without:?}"), "{words}")
            }
            (Warning(says), Ok(made)) => {
                assert_eq!(made.warnings.len(), 1, "{words}: {made:?}");
                assert!(made.warnings[0].contains(says), "{words}: {made:?}");
            }
            (Missing(name), Err(PlanError::Configuration(why))) => {
                assert_eq!(
                    why,
                    format!("{name} is not built yet; start without it"),
                    "{words}"
                );
            }
            (_, made) => panic!("{words}: {made:?}"),
        }
    }
}

#[test]
fn a_socket_is_named_by_either_option() {
    for (words, group) in [
        ("--socket-path /s", None),
        ("--socket /s", None),
        (
            "--socket-path=/s --socket-group=kvm",
            Some("kvm".to_owned()),
        ),
    ] {
        let made = plan(&format!("--shared-dir /d {words}")).unwrap();
        let path = "/s".into();
        assert_eq!(made.listen, Listen::Socket { path, group }, "{words}");
    }
}

/// The two answers of [`crate::cli::parse`] itself, and what the tests above have rows for by other means.
const ELSEWHERE: [&str; 4] = ["help", "version", "socket-path", "socket-group"];

/// A new option, value or legacy name without a row fails here.
#[test]
fn no_option_is_without_a_row() {
    let lines: Vec<String> = ROWS
        .iter()
        .map(|(words, _)| {
            let words = std::iter::once("v").chain(words.split_whitespace());
            let expanded = compat::expand(words.map(Into::into)).unwrap();
            let expanded: Vec<_> = expanded.iter().map(|word| word.to_string_lossy()).collect();
            format!("{} ", expanded.join(" ").replace('=', " "))
        })
        .collect();
    let mut known = crate::cli::command();
    known.build();
    for option in known.get_arguments() {
        let Some(long) = option.get_long().filter(|long| !ELSEWHERE.contains(long)) else {
            continue;
        };
        let with = |value: &str| {
            lines
                .iter()
                .any(|line| line.contains(&format!("--{long} {value}")))
        };
        assert!(with(""), "--{long}");
        for value in option
            .get_possible_values()
            .iter()
            .filter(|_| option.get_action().takes_values())
        {
            for name in value.get_name_and_aliases() {
                assert!(
                    with(&format!("{name} ")) || long == "without-effect",
                    "--{long} {name}"
                );
            }
        }
    }
    for name in compat::names() {
        let has = ROWS.iter().any(|(words, _)| {
            words
                .strip_prefix("-o ")
                .is_some_and(|list| list.split([',', '=']).any(|word| word == name))
        });
        assert!(has, "-o {name}");
    }
}
