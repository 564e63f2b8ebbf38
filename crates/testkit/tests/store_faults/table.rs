//! Each request that asks the store something, with the calls that it makes.

use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{self, FileLock, LkIn, SetattrIn, fattr, opcode};
use virtiofs_testkit::fuse::{Caller, Failure, FuseClient, Request};

use crate::rig::{FILE_BYTES, GROUP, Gained, O_RDWR, Subject};

/// `F_RDLCK` (man 2 fcntl), as a guest's kernel sends it.
const READ_LOCK: u32 = 0;
/// `S_IFIFO` with permissions.
const FIFO: u32 = 0o010_644;
/// `FS_IOC_GETFLAGS` (linux/fs.h).
const GET_FLAGS: u32 = 0x8008_6601;
const SEEK_DATA: u32 = 3;

type Sent = Result<Gained, Failure>;

/// What comes of a call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The request is answered with that error, and nothing has happened.
    Whole,
    /// As [`Self::Whole`], but for this error: another way is then taken, or the same once more.
    Unless(Errno),
    /// There is another way to the same answer: told where that fails as well.
    OtherWay,
    /// A look at what was done already, which is taken twice. Where both fail the error is told, and what was done
    /// stands.
    Look,
    /// Nobody hears of it.
    Nothing,
}
use Failed::{Look, Nothing, OtherWay, Unless, Whole};

/// A request, and what comes of its calls' failures.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    /// What it asks of the store, in order, on a tmpfs.
    pub(crate) calls: &'static [(&'static str, Failed)],
    pub(crate) send: fn(&mut FuseClient, &Subject) -> Sent,
}

/// What a store may answer to a call.
///
/// Not EINTR, because no thread that makes these calls is sent a signal; nor a lack of descriptors, for which
/// `hostile_exhaustion` has tests.
pub(crate) fn errors(call: &str) -> &'static [Errno] {
    use Errno as E;
    const LOOKS: &[Errno] = &[E::IO, E::STALE, E::NOMEM];
    const CHANGES: &[Errno] = &[E::NOSPC, E::DQUOT, E::IO, E::ROFS, E::STALE, E::NOMEM];
    match call {
        "statx" | "fstat" | "fstatfs" | "readlinkat" | "getdents64" | "getxattr" | "listxattr"
        | "pread64" | "lseek" | "fcntl" | "flock" | "ioctl" => LOOKS,
        _ => CHANGES,
    }
}

fn nothing<T>(result: Result<T, Failure>) -> Sent {
    result.map(|_| Gained::default())
}

fn entry(result: Result<abi::EntryOut, Failure>) -> Sent {
    result.map(|entry| Gained {
        nodes: vec![entry.nodeid],
        ..Gained::default()
    })
}

fn created(result: Result<abi::CreateOut, Failure>) -> Sent {
    result.map(|made| Gained {
        nodes: vec![made.entry.nodeid],
        open: Some((made.entry.nodeid, made.open.fh)),
        listing: None,
    })
}

fn set(client: &mut FuseClient, node: u64, change: SetattrIn) -> Sent {
    nothing(client.setattr(node, &change))
}

fn lock(subject: &Subject, lk_flags: u32) -> LkIn {
    LkIn {
        fh: subject.fh,
        owner: 7,
        lk: FileLock {
            start: 0,
            end: 99,
            kind: READ_LOCK,
            pid: 1,
        },
        lk_flags,
        padding: 0,
    }
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        what: "LOOKUP, inode new",
        calls: &[("openat", Whole), ("statx", Whole)],
        send: |c, s| entry(c.lookup(s.directory, "known")),
    },
    Row {
        what: "LOOKUP, inode known",
        calls: &[("statx", Whole)],
        send: |c, s| entry(c.lookup(s.directory, "file")),
    },
    Row {
        what: "GETATTR",
        calls: &[("fstat", Whole)],
        send: |c, s| nothing(c.getattr(s.file)),
    },
    Row {
        what: "GETATTR, no descriptor",
        calls: &[("statx", OtherWay)],
        send: |c, s| nothing(c.getattr(s.made)),
    },
    Row {
        what: "STATX",
        calls: &[("statx", Whole)],
        send: |c, s| nothing(c.call(&Request::statx(s.file, &abi::StatxIn::default()))),
    },
    Row {
        what: "SETATTR, mode",
        calls: &[("fchmodat", Whole), ("statx", Look)],
        send: |c, s| {
            set(
                c,
                s.file,
                SetattrIn {
                    valid: fattr::MODE,
                    mode: 0o600,
                    ..SetattrIn::default()
                },
            )
        },
    },
    Row {
        what: "SETATTR, owner",
        calls: &[("fchownat", Whole), ("statx", Look)],
        send: |c, s| {
            set(
                c,
                s.file,
                SetattrIn {
                    valid: fattr::UID,
                    uid: 12,
                    ..SetattrIn::default()
                },
            )
        },
    },
    Row {
        what: "SETATTR, size",
        calls: &[("truncate", Whole), ("statx", Look)],
        send: |c, s| {
            set(
                c,
                s.file,
                SetattrIn {
                    valid: fattr::SIZE,
                    size: 5,
                    ..SetattrIn::default()
                },
            )
        },
    },
    Row {
        what: "SETATTR, size of an open file",
        calls: &[("ftruncate", Whole), ("statx", Look)],
        send: |c, s| {
            set(
                c,
                s.file,
                SetattrIn {
                    valid: fattr::SIZE | fattr::FH,
                    fh: s.fh,
                    size: 5,
                    ..SetattrIn::default()
                },
            )
        },
    },
    Row {
        what: "SETATTR, times",
        calls: &[("utimensat", Whole), ("statx", Look)],
        send: |c, s| {
            set(
                c,
                s.file,
                SetattrIn {
                    valid: fattr::MTIME,
                    mtime: 1,
                    ..SetattrIn::default()
                },
            )
        },
    },
    Row {
        what: "READLINK",
        calls: &[("readlinkat", Whole)],
        send: |c, s| nothing(c.readlink(s.symlink)),
    },
    Row {
        what: "SYMLINK",
        calls: &[("symlinkat", Whole), ("openat", Look), ("statx", Look)],
        send: |c, s| entry(c.symlink(s.directory, "new", "target")),
    },
    Row {
        what: "MKNOD",
        calls: &[("mknodat", Whole), ("openat", Look), ("statx", Look)],
        send: |c, s| entry(c.mknod(s.directory, "new", FIFO, 0)),
    },
    Row {
        what: "MKDIR",
        calls: &[("mkdirat", Whole), ("openat", Look), ("statx", Look)],
        send: |c, s| entry(c.mkdir(s.directory, "new", 0o755)),
    },
    Row {
        what: "MKDIR, uid 1000",
        calls: &[
            ("mkdirat", Whole),
            ("mkdirat", Whole),
            ("openat", Look),
            ("statx", Look),
        ],
        send: |c, s| {
            c.caller = SOMEBODY;
            entry(c.mkdir(s.directory, "new", 0o755))
        },
    },
    Row {
        what: "CREATE",
        calls: &[("openat", Whole), ("statx", Look)],
        send: |c, s| created(c.create(s.directory, "new", O_RDWR, 0o640)),
    },
    Row {
        what: "CREATE, uid 1000",
        // What hands its group down is looked at each time.
        calls: &[
            ("statx", Whole),
            ("openat", Whole),
            ("fchownat", Whole),
            ("statx", Look),
        ],
        send: |c, s| {
            c.caller = SOMEBODY;
            created(c.create(s.groups, "new", O_RDWR, 0o640))
        },
    },
    Row {
        what: "CREATE, uid 1000, set-id",
        calls: &[("openat", Whole), ("openat", Whole), ("statx", Look)],
        send: |c, s| {
            c.caller = SOMEBODY;
            created(c.create(s.directory, "new", O_RDWR, 0o4755))
        },
    },
    Row {
        what: "CREATE of what is there",
        calls: &[
            ("openat", Whole),
            ("openat", Whole),
            ("statx", Whole),
            ("openat", Whole),
            ("statx", Nothing),
        ],
        send: |c, s| created(c.create(s.directory, "file", O_RDWR, 0o640)),
    },
    Row {
        what: "TMPFILE",
        calls: &[
            ("statx", Whole),
            ("openat", Whole),
            ("statx", Whole),
            ("openat", Whole),
        ],
        send: |c, s| {
            let arguments = abi::CreateIn {
                flags: O_RDWR,
                mode: 0o600,
                ..abi::CreateIn::default()
            };
            created(c.call_for(&Request::tmpfile(s.directory, b"new", &arguments)))
        },
    },
    Row {
        what: "LINK",
        calls: &[("linkat", Whole), ("statx", Look)],
        send: |c, s| entry(c.link(s.file, s.directory, "new")),
    },
    Row {
        what: "UNLINK",
        calls: &[("unlinkat", Whole)],
        send: |c, s| nothing(c.unlink(s.directory, "victim")),
    },
    Row {
        what: "UNLINK, no descriptor",
        calls: &[("openat", Whole), ("unlinkat", Whole)],
        send: |c, s| nothing(c.unlink(s.directory, "made")),
    },
    Row {
        what: "RMDIR",
        calls: &[("unlinkat", Whole)],
        send: |c, s| nothing(c.rmdir(s.directory, "empty")),
    },
    Row {
        what: "RENAME2",
        calls: &[("renameat2", Whole)],
        send: |c, s| nothing(c.rename((s.directory, b"victim"), (s.directory, b"moved"), 0)),
    },
    Row {
        what: "OPEN",
        calls: &[("openat", Whole)],
        send: |c, s| {
            let open = c.open(s.file, O_RDWR)?;
            Ok(Gained {
                open: Some((s.file, open.fh)),
                ..Gained::default()
            })
        },
    },
    Row {
        what: "OPEN, no descriptor",
        calls: &[
            ("openat", Unless(Errno::STALE)),
            ("statx", Unless(Errno::STALE)),
            ("openat", Whole),
        ],
        send: |c, s| {
            let open = c.open(s.made, O_RDWR)?;
            Ok(Gained {
                open: Some((s.made, open.fh)),
                ..Gained::default()
            })
        },
    },
    Row {
        what: "READ",
        calls: &[("pread64", Whole)],
        send: |c, s| nothing(c.read(s.file, s.fh, 0, 4096)),
    },
    Row {
        what: "WRITE",
        calls: &[("pwrite64", Whole)],
        send: |c, s| nothing(c.write(s.file, s.fh, 0, b"bytes")),
    },
    Row {
        what: "FALLOCATE",
        calls: &[("fallocate", Whole)],
        send: |c, s| {
            let space = abi::FallocateIn {
                fh: s.fh,
                length: 2 * FILE_BYTES,
                ..abi::FallocateIn::default()
            };
            nothing(c.fallocate(s.file, &space))
        },
    },
    Row {
        what: "LSEEK",
        calls: &[("lseek", Whole)],
        send: |c, s| nothing(c.lseek(s.file, s.fh, 0, SEEK_DATA)),
    },
    Row {
        what: "COPY_FILE_RANGE",
        calls: &[("copy_file_range", Whole)],
        send: |c, s| {
            let copy = abi::CopyFileRangeIn {
                fh_in: s.fh,
                nodeid_out: s.file,
                fh_out: s.other_fh,
                off_out: FILE_BYTES,
                len: 100,
                ..abi::CopyFileRangeIn::default()
            };
            nothing(c.copy_file_range(s.file, &copy))
        },
    },
    Row {
        what: "FSYNC",
        calls: &[("fsync", Whole)],
        send: |c, s| nothing(c.fsync(s.file, s.fh)),
    },
    Row {
        what: "FSYNC, data only",
        calls: &[("fdatasync", Whole)],
        send: |c, s| nothing(c.call(&Request::fsync(s.file, s.fh, abi::FSYNC_FDATASYNC))),
    },
    Row {
        what: "FSYNCDIR",
        calls: &[("fsync", Whole)],
        send: |c, s| nothing(c.call(&Request::fsyncdir(s.directory, s.listing, 0))),
    },
    Row {
        what: "SYNCFS",
        calls: &[("openat", Whole), ("syncfs", Whole)],
        send: |c, s| nothing(c.call(&Request::syncfs(s.directory))),
    },
    Row {
        what: "STATFS",
        calls: &[("fstatfs", Whole)],
        send: |c, s| nothing(c.statfs(s.file)),
    },
    Row {
        what: "OPENDIR",
        calls: &[("openat", Whole)],
        send: |c, s| {
            let open = c.opendir(s.directory)?;
            Ok(Gained {
                listing: Some(open.fh),
                ..Gained::default()
            })
        },
    },
    Row {
        what: "READDIR",
        calls: &[("getdents64", Whole), ("getdents64", Nothing)],
        send: |c, s| nothing(c.readdir(s.directory, s.listing, 0)),
    },
    Row {
        what: "READDIRPLUS",
        calls: &[
            ("getdents64", Whole),
            ("statx", Nothing),
            ("getdents64", Nothing),
        ],
        send: |c, s| {
            let entries = c.readdirplus(s.listed, s.listed_fh, 0)?;
            let nodes = entries.iter().filter_map(|listed| listed.entry);
            let nodes = nodes.map(|entry| entry.nodeid).filter(|node| *node != 0);
            Ok(Gained {
                nodes: nodes.collect(),
                ..Gained::default()
            })
        },
    },
    Row {
        what: "SETXATTR",
        calls: &[("setxattr", Whole)],
        send: |c, s| {
            // The form of a guest without SETXATTR_EXT: size and flags.
            let request = Request::new(opcode::SETXATTR, s.file).with(&[3_u32, 0]);
            nothing(c.call(&request.name(b"user.known").payload(b"new")))
        },
    },
    Row {
        what: "GETXATTR",
        calls: &[("getxattr", Whole)],
        send: |c, s| nothing(c.call(&Request::getxattr(s.file, b"user.known", 64))),
    },
    Row {
        what: "LISTXATTR",
        calls: &[("listxattr", Whole)],
        send: |c, s| nothing(c.call(&Request::listxattr(s.file, 512))),
    },
    Row {
        what: "REMOVEXATTR",
        calls: &[("removexattr", Whole)],
        send: |c, s| nothing(c.call(&Request::removexattr(s.file, b"user.known"))),
    },
    Row {
        what: "IOCTL",
        calls: &[("ioctl", Whole)],
        send: |c, s| {
            let arguments = abi::IoctlIn {
                fh: s.fh,
                cmd: GET_FLAGS,
                out_size: 4,
                ..abi::IoctlIn::default()
            };
            nothing(c.call(&Request::ioctl(s.file, &arguments, b"")))
        },
    },
    Row {
        what: "GETLK",
        calls: &[("fcntl", Whole)],
        send: |c, s| nothing(c.call(&Request::getlk(s.file, &lock(s, 0)))),
    },
    Row {
        what: "SETLK",
        calls: &[("openat", Unless(Errno::ROFS)), ("fcntl", Whole)],
        send: |c, s| nothing(c.call(&Request::setlk(s.file, &lock(s, 0)))),
    },
    Row {
        what: "SETLK, flock",
        calls: &[("flock", Whole)],
        send: |c, s| nothing(c.call(&Request::setlk(s.file, &lock(s, abi::LK_FLOCK)))),
    },
];

/// Not the daemon's user.
const SOMEBODY: Caller = Caller {
    uid: 1000,
    gid: GROUP,
    pid: 1,
};
