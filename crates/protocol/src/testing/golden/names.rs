//! Requests about names.

use super::{Bytes, Golden, golden};
use crate::flags::RenameFlags;
use crate::ids::NodeId;
use crate::name::{LookupName, Name};
use crate::op::{
    Create, Extras, KillPrivileges, Link, Lookup, Mkdir, Mknod, NodeKind, Op, OpenOptions,
    Permissions, Rename, Rmdir, Symlink, Tmpfile, Unlink,
};
use crate::opcode::Opcode;

/// `O_WRONLY | O_CREAT | O_EXCL | O_LARGEFILE` on x86.
const CREATE_FLAGS: u32 = 0o100_301;
/// `O_RDWR | O_TMPFILE | O_LARGEFILE` on x86.
const TMPFILE_FLAGS: u32 = 0o20_300_002;

pub(super) fn requests() -> Vec<Golden> {
    let mut requests = new_objects();
    requests.extend(new_files());
    requests.extend(known_names());
    requests
}

fn name(text: &'static std::ffi::CStr) -> Name<'static> {
    Name::new(text).unwrap()
}

fn new_objects() -> Vec<Golden> {
    vec![
        golden(
            Opcode::Mkdir,
            Bytes::new().u32(0o755).u32(0o022).raw(b"docs\0"),
            Op::Mkdir(Mkdir {
                name: name(c"docs"),
                mode: Permissions::from_wire(0o755),
                umask: Permissions::from_wire(0o022),
                extras: Extras::default(),
            }),
        ),
        golden(
            Opcode::Mknod,
            // crw-rw-rw- 1:3, as `mknod null c 1 3` asks for it.
            Bytes::new()
                .u32(0o020_666)
                .u32(0x103)
                .u32(0o022)
                .u32(0)
                .raw(b"null\0"),
            Op::Mknod(Mknod {
                name: name(c"null"),
                kind: NodeKind::CharDevice(0x103),
                mode: Permissions::from_wire(0o666),
                umask: Permissions::from_wire(0o022),
                extras: Extras::default(),
            }),
        ),
        golden(
            Opcode::Symlink,
            Bytes::new().raw(b"link\0../target\0"),
            Op::Symlink(Symlink {
                name: name(c"link"),
                target: c"../target",
                extras: Extras::default(),
            }),
        ),
        golden(
            Opcode::Link,
            Bytes::new().u64(7).raw(b"second\0"),
            Op::Link(Link {
                target: NodeId::from_raw(7),
                name: name(c"second"),
            }),
        ),
    ]
}

fn new_files() -> Vec<Golden> {
    let create = Bytes::new().u32(CREATE_FLAGS).u32(0o100_644).u32(0o022);
    let tmpfile = Bytes::new().u32(TMPFILE_FLAGS).u32(0o100_600).u32(0o077);
    vec![
        golden(
            Opcode::Create,
            create.u32(0).raw(b"file\0"),
            Op::Create(Create {
                name: name(c"file"),
                options: OpenOptions {
                    guest_flags: CREATE_FLAGS,
                    kill_privileges: KillPrivileges::No,
                },
                mode: Permissions::from_wire(0o644),
                umask: Permissions::from_wire(0o022),
                extras: Extras::default(),
            }),
        ),
        golden(
            Opcode::Tmpfile,
            // The name of the entry that `vfs_tmpfile` makes.
            tmpfile.u32(0).raw(b"/\0"),
            Op::Tmpfile(Tmpfile {
                options: OpenOptions {
                    guest_flags: TMPFILE_FLAGS,
                    kill_privileges: KillPrivileges::No,
                },
                mode: Permissions::from_wire(0o600),
                umask: Permissions::from_wire(0o077),
                extras: Extras::default(),
            }),
        ),
    ]
}

fn known_names() -> Vec<Golden> {
    let renamed = |flags| {
        Op::Rename(Rename {
            from: name(c"old"),
            to_parent: NodeId::from_raw(9),
            to: name(c"new"),
            flags,
        })
    };
    vec![
        golden(
            Opcode::Lookup,
            Bytes::new().raw(b"caf\xe9\0"),
            Op::Lookup(Lookup {
                name: LookupName::Name(name(c"caf\xe9")),
            }),
        ),
        golden(
            Opcode::Unlink,
            Bytes::new().raw(b"file\0"),
            Op::Unlink(Unlink {
                name: name(c"file"),
            }),
        ),
        golden(
            Opcode::Rmdir,
            Bytes::new().raw(b"docs\0"),
            Op::Rmdir(Rmdir {
                name: name(c"docs"),
            }),
        ),
        golden(
            Opcode::Rename,
            Bytes::new().u64(9).raw(b"old\0new\0"),
            renamed(RenameFlags::empty()),
        ),
        golden(
            Opcode::Rename2,
            Bytes::new().u64(9).u32(2).u32(0).raw(b"old\0new\0"),
            renamed(RenameFlags::EXCHANGE),
        ),
    ]
}
