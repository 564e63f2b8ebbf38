//! Requests about attributes, the session, and what is not served.

use super::{Bytes, Golden, golden};
use crate::abi::ForgetOne;
use crate::flags::{InitFlags, SetxattrFlags};
use crate::ids::{Fh, Unique};
use crate::offset::FileOffset;
use crate::op::{
    BatchForget, Bmap, Forget, Getattr, Getxattr, Init, Interrupt, Ioctl, IoctlCommand, Listxattr,
    Op, Permissions, Poll, Removexattr, Setattr, Setxattr, Statx,
};
use crate::opcode::Opcode;

pub(super) fn requests() -> Vec<Golden> {
    let mut requests = attributes();
    requests.extend(extended_attributes());
    requests.extend(session());
    requests.extend(whole_file_system());
    requests.extend(commands());
    requests.extend(unserved());
    requests
}

fn attributes() -> Vec<Golden> {
    // valid, padding, fh, size, lock_owner, atime, mtime, ctime, three times nanoseconds,
    // mode, unused4, uid, gid, unused5.
    let head = Bytes::new().u32(0b100_1001).u32(0).u64(5).u64(4096).u64(0);
    let times = head.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
    let setattr = times.u32(0o100_640).u32(0).u32(0).u32(0).u32(0);
    vec![
        golden(
            Opcode::Getattr,
            Bytes::new().u32(1).u32(0).u64(5),
            Op::Getattr(Getattr {
                file: Some(Fh::from_raw(5)),
            }),
        ),
        golden(
            Opcode::Setattr,
            setattr,
            Op::Setattr(Setattr {
                file: Some(Fh::from_raw(5)),
                mode: Some(Permissions::from_wire(0o640)),
                size: Some(FileOffset::new(4096).unwrap()),
                ..Setattr::default()
            }),
        ),
        golden(
            Opcode::Statx,
            Bytes::new().u32(0).u32(0).u64(0).u32(0).u32(0xfff),
            Op::Statx(Statx {
                file: None,
                mask: 0xfff,
            }),
        ),
        golden(
            Opcode::Access,
            Bytes::new().u32(4).u32(0),
            Op::Access { mask: 4 },
        ),
    ]
}

fn extended_attributes() -> Vec<Golden> {
    vec![
        golden(
            Opcode::Setxattr,
            // XATTR_CREATE, in the short form.
            Bytes::new().u32(5).u32(1).raw(b"user.a\0va\0ue"),
            Op::Setxattr(Setxattr {
                name: c"user.a",
                value: b"va\0ue",
                flags: 1,
                extended_flags: SetxattrFlags::empty(),
            }),
        ),
        golden(
            Opcode::Getxattr,
            Bytes::new().u32(64).u32(0).raw(b"user.a\0"),
            Op::Getxattr(Getxattr {
                name: c"user.a",
                size_bytes: 64,
            }),
        ),
        golden(
            Opcode::Listxattr,
            Bytes::new().u32(64).u32(0),
            Op::Listxattr(Listxattr { size_bytes: 64 }),
        ),
        golden(
            Opcode::Removexattr,
            Bytes::new().raw(b"user.a\0"),
            Op::Removexattr(Removexattr { name: c"user.a" }),
        ),
    ]
}

/// The nodes of the golden BATCH_FORGET.
fn forgotten() -> &'static [ForgetOne] {
    Vec::leak(vec![
        ForgetOne {
            nodeid: 7.into(),
            nlookup: 1.into(),
        },
        ForgetOne {
            nodeid: 8.into(),
            nlookup: u64::MAX.into(),
        },
    ])
}

fn session() -> Vec<Golden> {
    let flags = (InitFlags::MAX_PAGES | InitFlags::INIT_EXT).bits();
    let low = u32::try_from(flags).unwrap();
    // major, minor, max_readahead, flags, flags2, unused[11]; flags2 is CREATE_SUPP_GROUP.
    let init = Bytes::new().u32(7).u32(38).u32(1 << 17).u32(low).u32(4);
    let two = Bytes::new().u32(2).u32(0).u64(7).u64(1);
    vec![
        golden(
            Opcode::Init,
            init.raw(&[0; 44]),
            Op::Init(Init {
                major: 7,
                minor: 38,
                max_readahead: 1 << 17,
                offered: InitFlags::MAX_PAGES | InitFlags::INIT_EXT | InitFlags::CREATE_SUPP_GROUP,
            }),
        ),
        golden(Opcode::Destroy, Bytes::new(), Op::Destroy),
        golden(
            Opcode::Forget,
            Bytes::new().u64(3),
            Op::Forget(Forget { count: 3 }),
        ),
        golden(
            Opcode::BatchForget,
            two.u64(8).u64(u64::MAX),
            Op::BatchForget(BatchForget { nodes: forgotten() }),
        ),
        golden(
            Opcode::Interrupt,
            Bytes::new().u64(42),
            Op::Interrupt(Interrupt {
                target: Unique::from_raw(42),
            }),
        ),
    ]
}

fn whole_file_system() -> Vec<Golden> {
    vec![
        golden(Opcode::Readlink, Bytes::new(), Op::Readlink),
        golden(Opcode::Statfs, Bytes::new(), Op::Statfs),
        golden(Opcode::Syncfs, Bytes::new().u64(0), Op::Syncfs),
    ]
}

fn commands() -> Vec<Golden> {
    // fh, flags, cmd, arg, in_size, out_size.
    let ioctl = Bytes::new().u64(5).u32(0).u32(0x8008_6601).u64(0x7fff_0000);
    vec![golden(
        Opcode::Ioctl,
        ioctl.u32(3).u32(8).raw(b"abc"),
        Op::Ioctl(Ioctl {
            file: Fh::from_raw(5),
            command: Some(IoctlCommand::GetFlags),
            input: b"abc",
            output_bytes: 8,
        }),
    )]
}

fn unserved() -> Vec<Golden> {
    let mapping = Bytes::new().u64(5).u64(0).u64(1 << 21).u64(1).u64(0);
    vec![
        golden(
            Opcode::Poll,
            Bytes::new().u64(5).u64(1).u32(0).u32(0x45),
            Op::Poll(Poll {
                file: Fh::from_raw(5),
                events: 0x45,
            }),
        ),
        golden(
            Opcode::Bmap,
            Bytes::new().u64(12).u32(4096).u32(0),
            Op::Bmap(Bmap {
                block: 12,
                block_bytes: 4096,
            }),
        ),
        golden(Opcode::Setupmapping, mapping, Op::Setupmapping),
        golden(
            Opcode::Removemapping,
            Bytes::new().u32(1).u64(0).u64(1 << 21),
            Op::Removemapping,
        ),
    ]
}
