//! Requests about open files and directories.

use super::{Bytes, Golden, golden};
use crate::flags::FallocateMode;
use crate::ids::{Fh, LockOwner, NodeId};
use crate::offset::{DirOffset, FileOffset};
use crate::op::{
    CopyFileRange, Durability, Fallocate, Flush, Fsync, KillPrivileges, Lock, LockKind, LockRange,
    LockType, Lseek, Op, Open, OpenOptions, Opendir, Read, Readdir, Release, Releasedir, Whence,
    Write, WriteOrigin,
};
use crate::opcode::Opcode;

/// `O_RDONLY | O_LARGEFILE` on x86, read-only so that every gate lets it pass.
const OPEN_FLAGS: u32 = 0o100_000;
/// `O_RDONLY | O_NONBLOCK | O_DIRECTORY | O_LARGEFILE` on x86.
const OPENDIR_FLAGS: u32 = 0o304_000;
const FILE: Fh = Fh::from_raw(5);
const OWNER: LockOwner = LockOwner(0xfeed_f00d_dead_beef);

pub(super) fn requests() -> Vec<Golden> {
    let mut requests = opened_and_closed();
    requests.extend(contents());
    requests.extend(directories());
    requests.extend(ranges());
    requests.extend(locks());
    requests
}

fn at(offset: u64) -> FileOffset {
    FileOffset::new(offset).unwrap()
}

fn opened_and_closed() -> Vec<Golden> {
    let release = |flags| Bytes::new().u64(5).u32(flags).u32(0).u64(OWNER.0);
    vec![
        golden(
            Opcode::Open,
            Bytes::new().u32(OPEN_FLAGS).u32(0),
            Op::Open(Open {
                options: OpenOptions {
                    guest_flags: OPEN_FLAGS,
                    kill_privileges: KillPrivileges::No,
                },
            }),
        ),
        golden(
            Opcode::Release,
            release(OPEN_FLAGS),
            Op::Release(Release {
                file: FILE,
                owner: OWNER,
            }),
        ),
        golden(
            Opcode::Flush,
            release(0),
            Op::Flush(Flush {
                file: FILE,
                owner: OWNER,
            }),
        ),
        golden(
            Opcode::Opendir,
            Bytes::new().u32(OPENDIR_FLAGS).u32(0),
            Op::Opendir(Opendir {
                guest_flags: OPENDIR_FLAGS,
            }),
        ),
        golden(
            Opcode::Releasedir,
            release(OPENDIR_FLAGS),
            Op::Releasedir(Releasedir { directory: FILE }),
        ),
    ]
}

/// `struct fuse_read_in`, and by the same layout `struct fuse_write_in`.
fn io(offset: u64, size: u32, flags: u32) -> Bytes {
    let bytes = Bytes::new().u64(5).u64(offset).u32(size).u32(flags);
    bytes.u64(OWNER.0).u32(OPEN_FLAGS).u32(0)
}

fn contents() -> Vec<Golden> {
    let sync = |flags| Bytes::new().u64(5).u32(flags).u32(0);
    vec![
        golden(
            Opcode::Read,
            io(1 << 33, 4096, 0),
            Op::Read(Read {
                file: FILE,
                offset: at(1 << 33),
                size_bytes: 4096,
            }),
        ),
        Golden {
            opcode: Opcode::Write,
            // FUSE_WRITE_CACHE and FUSE_WRITE_KILL_SUIDGID.
            arguments: io(1 << 33, 100, 0b101),
            payload_bytes: 100,
            op: Op::Write(Write {
                file: FILE,
                offset: at(1 << 33),
                size_bytes: 100,
                origin: WriteOrigin::PageCache,
                kill_privileges: KillPrivileges::Yes,
            }),
        },
        golden(
            Opcode::Fsync,
            sync(1),
            Op::Fsync(Fsync {
                file: FILE,
                durability: Durability::DataOnly,
            }),
        ),
        golden(
            Opcode::Fsyncdir,
            sync(0),
            Op::Fsyncdir(Fsync {
                file: FILE,
                durability: Durability::Full,
            }),
        ),
    ]
}

fn directories() -> Vec<Golden> {
    let readdir = Readdir {
        directory: FILE,
        offset: DirOffset(u64::MAX),
        size_bytes: 4096,
    };
    vec![
        golden(Opcode::Readdir, io(u64::MAX, 4096, 0), Op::Readdir(readdir)),
        golden(
            Opcode::Readdirplus,
            io(u64::MAX, 4096, 0),
            Op::Readdirplus(readdir),
        ),
    ]
}

fn ranges() -> Vec<Golden> {
    // fh_in, off_in, nodeid_out, fh_out, off_out, len, flags.
    let copy = || {
        let bytes = Bytes::new().u64(5).u64(4096).u64(9).u64(6);
        bytes.u64(8192).u64(1 << 40).u64(0)
    };
    let copied = CopyFileRange {
        from: FILE,
        from_offset: at(4096),
        to_node: NodeId::from_raw(9),
        to: Fh::from_raw(6),
        to_offset: at(8192),
        len_bytes: 1 << 40,
    };
    vec![
        golden(
            Opcode::Fallocate,
            // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
            Bytes::new().u64(5).u64(4096).u64(8192).u32(3).u32(0),
            Op::Fallocate(Fallocate {
                file: FILE,
                offset: at(4096),
                length: at(8192),
                mode: FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE,
            }),
        ),
        golden(
            Opcode::Lseek,
            // SEEK_HOLE.
            Bytes::new().u64(5).u64(4096).u32(4).u32(0),
            Op::Lseek(Lseek {
                file: FILE,
                offset: at(4096),
                whence: Whence::Hole,
            }),
        ),
        golden(Opcode::CopyFileRange, copy(), Op::CopyFileRange(copied)),
        golden(Opcode::CopyFileRange64, copy(), Op::CopyFileRange64(copied)),
    ]
}

fn locks() -> Vec<Golden> {
    const END: u64 = i64::MAX.unsigned_abs();
    // fh, owner, start, end, type, pid, lk_flags, padding.
    let wire = |lock_type, lk_flags| {
        let bytes = Bytes::new().u64(5).u64(OWNER.0).u64(10).u64(END);
        bytes.u32(lock_type).u32(77).u32(lk_flags).u32(0)
    };
    let lock = |lock_type, kind| Lock {
        file: FILE,
        owner: OWNER,
        kind,
        lock_type,
        range: LockRange {
            start: 10,
            end: END,
        },
        pid: 77,
    };
    vec![
        golden(
            Opcode::Getlk,
            wire(0, 0),
            Op::Getlk(lock(LockType::Read, LockKind::Posix)),
        ),
        golden(
            Opcode::Setlk,
            wire(2, 1),
            Op::Setlk(lock(LockType::Unlock, LockKind::Flock)),
        ),
        golden(
            Opcode::Setlkw,
            wire(1, 0),
            Op::Setlkw(lock(LockType::Write, LockKind::Posix)),
        ),
    ]
}
