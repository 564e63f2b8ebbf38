//! The system calls that serving a share needs; at any other the process ends.
//!
//! Two filters lie on one another, and of their verdicts the stricter holds. The first is the list. The second answers
//! clone3 with ENOSYS, because its flags stand in memory where no filter can read them: the C library then uses
//! clone, whose flags can be read. Rules on arguments stand only where no request passes on its way: they cost
//! more than the list.

use std::collections::BTreeMap;

use rustix::fs::OFlags;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use virtiofs_hostfs::{Options, RemoteLocks, XattrPolicy};

use crate::cli::values::SeccompName;

/// Whose calls are filtered.
#[derive(Clone, Copy, Debug)]
pub enum Process<'a> {
    /// The one that serves the share, with these choices.
    Server(&'a Options),
    /// The one outside the sandbox, which waits for it.
    Helper,
    /// The one that opens file handles.
    Broker,
}

/// What the server calls, with any arguments; each has a use in this program or in the C library under it.
const SERVER: &[libc::c_long] = &[
    // Data, attributes and names of files.
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_preadv2,
    libc::SYS_pread64,
    libc::SYS_pwritev2,
    libc::SYS_pwrite64,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_readlinkat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_lseek,
    libc::SYS_copy_file_range,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_fstatfs,
    libc::SYS_close,
    // The caller's identity.
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // The front-end: messages, kicks and calls, its memory.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_munmap,
    // Threads and memory of our own.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_writev,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What extended attributes take on top.
const XATTR: &[libc::c_long] = &[
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
];

/// What locks of flock(2) take on top.
const FLOCK: &[libc::c_long] = &[libc::SYS_flock];

/// What a process needs to log, have memory, end and panic: all that helper and broker have in common.
const LIVING: &[libc::c_long] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What the helper calls beside that, with any arguments.
const HELPER: &[libc::c_long] = &[
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_pidfd_send_signal,
    libc::SYS_wait4,
    libc::SYS_unlinkat,
    libc::SYS_close,
    libc::SYS_sendto,
];

/// What the broker of file handles calls beside that, with any arguments.
const BROKER: &[libc::c_long] = &[
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_name_to_handle_at,
    libc::SYS_statx,
    libc::SYS_close,
];

/// Of the broker alone.
const BROKER_BY_ARGUMENT: &[ByArgument] = &[
    // By name it holds without opening, and never what a name points to.
    ByArgument {
        number: libc::SYS_openat,
        argument: 2,
        allowed: &[(NOT_LARGE, HELD)],
    },
    // By handle it makes nothing and empties nothing.
    ByArgument {
        number: libc::SYS_open_by_handle_at,
        argument: 2,
        allowed: &[(MAKES_OR_EMPTIES, 0)],
    },
];

/// A call whose argument decides.
struct ByArgument {
    number: libc::c_long,
    /// Which argument, from 0.
    argument: u8,
    /// Allowed are: these bits of it, with this value.
    allowed: &'static [(u64, u64)],
}

/// Of all processes.
const BY_ARGUMENT: &[ByArgument] = &[
    // Memory is never executable once the program runs.
    ByArgument {
        number: libc::SYS_mmap,
        argument: 2,
        allowed: &[(EXECUTABLE, 0)],
    },
    ByArgument {
        number: libc::SYS_mprotect,
        argument: 2,
        allowed: &[(EXECUTABLE, 0)],
    },
    // What the standard library asks about a descriptor before it closes it.
    ByArgument {
        number: libc::SYS_fcntl,
        argument: 1,
        allowed: &[(ALL_BITS, F_GETFD)],
    },
];

/// Of the server alone, or with more for it.
const SERVER_BY_ARGUMENT: &[ByArgument] = &[
    // Threads of this process, never a process or a namespace.
    ByArgument {
        number: libc::SYS_clone,
        argument: 0,
        allowed: &[(THREAD | NAMESPACES, THREAD)],
    },
    // A thread gets its name.
    ByArgument {
        number: libc::SYS_prctl,
        argument: 0,
        allowed: &[(ALL_BITS, PR_SET_NAME)],
    },
    // The commands of `hostfs::sys::ioctl`.
    ByArgument {
        number: libc::SYS_ioctl,
        argument: 1,
        allowed: &[
            (ALL_BITS, 0x8008_6601),
            (ALL_BITS, 0x4008_6602),
            (ALL_BITS, 0x8008_7601),
            (ALL_BITS, 0x801c_581f),
            (ALL_BITS, 0x401c_5820),
            (ALL_BITS, 0xc004_6686),
            (ALL_BITS, 0xc080_661a),
            (ALL_BITS, 0x8010_661b),
        ],
    },
    // The same, duplicates of descriptors, and O_NONBLOCK for those of a front-end.
    ByArgument {
        number: libc::SYS_fcntl,
        argument: 1,
        allowed: &[
            (ALL_BITS, F_GETFD),
            (ALL_BITS, F_GETFL),
            (ALL_BITS, F_SETFL),
            (ALL_BITS, F_DUPFD_CLOEXEC),
        ],
    },
];

/// What POSIX locks take on top: fcntl's commands for them, beside those above.
const POSIX_LOCK_COMMANDS: [(u64, u64); 3] = [
    (ALL_BITS, F_OFD_GETLK),
    (ALL_BITS, F_OFD_SETLK),
    (ALL_BITS, F_OFD_SETLKW),
];

const ALL_BITS: u64 = 0xffff_ffff;
/// `PROT_EXEC`.
const EXECUTABLE: u64 = 4;
/// `CLONE_VM`, `CLONE_SIGHAND` and `CLONE_THREAD` (man 2 clone).
const THREAD: u64 = 0x100 | 0x800 | 0x1_0000;
/// Every `CLONE_NEW...`, `CLONE_PTRACE`, `CLONE_VFORK` and `CLONE_PARENT`.
const NAMESPACES: u64 = 0x7e02_0080 | 0x2000 | 0x4000 | 0x8000;
/// Without opening, without following; `O_LARGEFILE` comes along or not.
const HELD: u64 = flags(OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC));
const NOT_LARGE: u64 = ALL_BITS & !flags(OFlags::LARGEFILE);
const MAKES_OR_EMPTIES: u64 = flags(OFlags::CREATE.union(OFlags::TRUNC));
const PR_SET_NAME: u64 = 15;
const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_SETFL: u64 = 4;
const F_DUPFD_CLOEXEC: u64 = 1030;
const F_OFD_GETLK: u64 = 36;
const F_OFD_SETLK: u64 = 37;
const F_OFD_SETLKW: u64 = 38;

/// As a register holds them.
const fn flags(of: OFlags) -> u64 {
    of.bits() as u64
}

// fcntl stands in both tables.
const _: () = assert!(
    SERVER.len() + XATTR.len() + FLOCK.len() + BY_ARGUMENT.len() + SERVER_BY_ARGUMENT.len() <= 76
);

/// Filters every thread from here on.
///
/// # Errors
///
/// What the filter's compiler or the kernel says.
pub fn install(mode: SeccompName, process: Process<'_>) -> Result<(), String> {
    let refused = match mode {
        SeccompName::None => return Ok(()),
        SeccompName::Kill => SeccompAction::KillProcess,
        SeccompName::Log => SeccompAction::Log,
        SeccompName::Trap => SeccompAction::Trap,
    };
    let unsupported = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    apply(clone3, SeccompAction::Allow, unsupported)?;
    apply(rules(process)?, refused, SeccompAction::Allow)
}

fn rules(process: Process<'_>) -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let (lists, more, locks) = match process {
        Process::Server(options) => {
            let xattr = optional(options.xattr != XattrPolicy::Off, XATTR);
            let flock = optional(options.flocks == RemoteLocks::On, FLOCK);
            let locks = optional(options.posix_locks == RemoteLocks::On, &POSIX_LOCK_COMMANDS);
            ([SERVER, xattr, flock], SERVER_BY_ARGUMENT, locks)
        }
        Process::Helper => ([HELPER, LIVING, &[]], [].as_slice(), [].as_slice()),
        Process::Broker => ([BROKER, LIVING, &[]], BROKER_BY_ARGUMENT, [].as_slice()),
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = lists
        .into_iter()
        .flatten()
        .map(|number| (*number, Vec::new()))
        .collect();
    for call in BY_ARGUMENT.iter().chain(more) {
        let commands = optional(call.number == libc::SYS_fcntl, locks);
        let alternatives = call
            .allowed
            .iter()
            .chain(commands)
            .map(|(mask, value)| {
                let bits = SeccompCmpOp::MaskedEq(*mask);
                SeccompCondition::new(call.argument, SeccompCmpArgLen::Qword, bits, *value)
                    .and_then(|condition| SeccompRule::new(vec![condition]))
                    .map_err(|error| error.to_string())
            })
            .collect::<Result<_, _>>()?;
        rules.insert(call.number, alternatives);
    }
    Ok(rules)
}

fn optional<T>(wanted: bool, list: &[T]) -> &[T] {
    if wanted { list } else { &[] }
}

fn apply(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<(), String> {
    let target: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|error| format!("{error}"))?;
    let filter = SeccompFilter::new(rules, otherwise, matching, target)
        .map_err(|error| error.to_string())?;
    let program: BpfProgram = filter
        .try_into()
        .map_err(|error: seccompiler::BackendError| error.to_string())?;
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_waits_signals_and_removes_and_does_nothing_else() {
        let helper = rules(Process::Helper).unwrap();
        let server = rules(Process::Server(&Options::default())).unwrap();
        assert_eq!(helper.len(), 30);
        let others = [
            libc::SYS_openat,
            libc::SYS_clone,
            libc::SYS_ioctl,
            libc::SYS_accept4,
            libc::SYS_setresuid,
        ];
        for call in others {
            assert!(
                !helper.contains_key(&call) && server.contains_key(&call),
                "{call}"
            );
        }
        assert_eq!(helper[&libc::SYS_fcntl].len(), 1);
        assert_eq!(server[&libc::SYS_fcntl].len(), 4);
    }

    #[test]
    fn the_broker_holds_by_name_opens_by_handle_and_does_nothing_else() {
        let broker = rules(Process::Broker).unwrap();
        assert_eq!(
            broker.len(),
            BROKER.len() + LIVING.len() + BROKER_BY_ARGUMENT.len() + BY_ARGUMENT.len()
        );
        assert_eq!(broker.len(), 29);
        let others = [
            libc::SYS_clone,
            libc::SYS_ioctl,
            libc::SYS_recvmsg,
            libc::SYS_unlinkat,
            libc::SYS_fchmodat,
            libc::SYS_pwritev2,
            libc::SYS_preadv2,
            libc::SYS_setresuid,
        ];
        for call in others {
            assert!(!broker.contains_key(&call), "{call}");
        }
        let server = rules(Process::Server(&Options::default())).unwrap();
        for call in [libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at] {
            assert!(!server.contains_key(&call) && broker.contains_key(&call));
        }
    }

    #[test]
    fn the_calls_of_extended_attributes_are_there_with_them_only() {
        let with = Options {
            xattr: XattrPolicy::On(virtiofs_hostfs::XattrRules::parse(b":ok:all:::").unwrap()),
            ..Options::default()
        };
        let (with, without) = (
            rules(Process::Server(&with)).unwrap(),
            rules(Process::Server(&Options::default())).unwrap(),
        );
        for call in XATTR {
            assert!(
                with.contains_key(call) && !without.contains_key(call),
                "{call}"
            );
        }
    }

    #[test]
    fn the_calls_of_locks_are_there_with_them_only() {
        let (on, off) = (RemoteLocks::On, RemoteLocks::Off);
        for (posix_locks, flocks) in [(off, off), (on, off), (off, on), (on, on)] {
            let options = Options {
                posix_locks,
                flocks,
                ..Options::default()
            };
            let rules = rules(Process::Server(&options)).unwrap();
            assert_eq!(rules.contains_key(&libc::SYS_flock), flocks == on);
            let commands = if posix_locks == on { 7 } else { 4 };
            assert_eq!(rules[&libc::SYS_fcntl].len(), commands);
        }
    }

    #[test]
    fn with_everything_on_there_are_75_calls() {
        let everything = Options {
            xattr: XattrPolicy::On(virtiofs_hostfs::XattrRules::parse(b":ok:all:::").unwrap()),
            posix_locks: RemoteLocks::On,
            flocks: RemoteLocks::On,
            ..Options::default()
        };
        let calls = rules(Process::Server(&everything)).unwrap().len();
        assert!(calls <= 75, "{calls}");
    }
}
