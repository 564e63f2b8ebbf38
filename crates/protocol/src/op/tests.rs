//! Arguments become types, or the request is refused.

mod extensions;
mod refused;

use super::*;
use crate::flags::SetxattrFlags;
use crate::ids::{Fh, Gid, Guest, Uid};
use crate::offset::{FileOffset, Timestamp};
use crate::testing::golden::{self, Bytes, parse};

#[test]
fn every_kind_of_request_has_a_golden_one() {
    let all = golden::all();
    for opcode in Opcode::ALL {
        assert!(
            all.iter().any(|golden| golden.opcode == *opcode),
            "{opcode:?}"
        );
    }
}

#[test]
fn what_linux_sends_is_what_is_read() {
    for golden in golden::all() {
        let read = parse(golden.opcode, &golden.arguments.0, 0);
        assert_eq!(read, Ok(golden.op), "{:?}", golden.opcode);
    }
}

#[test]
fn a_request_cut_anywhere_is_malformed() {
    for golden in golden::all() {
        let whole = &golden.arguments.0;
        for end in 0..whole.len() {
            let read = parse(golden.opcode, &whole[..end], 0);
            assert!(read.is_err(), "{:?} took {end} bytes", golden.opcode);
        }
    }
}

/// Guests before 7.36 send the first sixteen bytes of INIT.
#[test]
fn init_of_older_guests_is_shorter() {
    let short = Bytes::new().u32(7).u32(31).u32(4096).u32(1 << 22);
    let Ok(Op::Init(init)) = parse(Opcode::Init, &short.0, 0) else {
        panic!("not an INIT");
    };
    assert_eq!((init.major, init.minor, init.max_readahead), (7, 31, 4096));
    assert_eq!(init.offered, InitFlags::MAX_PAGES);
}

#[test]
fn the_second_word_of_init_flags_counts_only_when_it_is_announced() {
    let silent = Bytes::new().u32(7).u32(38).u32(0).u32(0).u32(u32::MAX);
    let Ok(Op::Init(init)) = parse(Opcode::Init, &silent.raw(&[0; 44]).0, 0) else {
        panic!("not an INIT");
    };
    assert_eq!(init.offered, InitFlags::empty());
}

/// `fuse_setxattr_in` is eight bytes longer where SETXATTR_EXT was negotiated.
#[test]
fn setxattr_has_the_form_that_was_agreed_on() {
    let bytes = Bytes::new().u32(1).u32(2).u32(1).u32(0).raw(b"user.a\0v").0;
    let header = InHeader::default();
    let read = Op::parse(Opcode::Setxattr, &header, &bytes, InitFlags::SETXATTR_EXT);
    let want = Setxattr {
        name: c"user.a",
        value: b"v",
        flags: 2,
        extended_flags: SetxattrFlags::ACL_KILL_SGID,
    };
    assert_eq!(read, Ok(Op::Setxattr(want)));
    for end in 0..bytes.len() {
        let cut = &bytes[..end];
        let read = Op::parse(Opcode::Setxattr, &header, cut, InitFlags::SETXATTR_EXT);
        assert!(read.is_err(), "accepted {end} bytes");
    }
}

/// A SETATTR that states every field, of which `valid` says what counts.
fn setattr(valid: u32) -> Result<Setattr, Malformed> {
    let head = Bytes::new().u32(valid).u32(0).u64(5).u64(4096).u64(99);
    let times = head.u64(u64::MAX).u64(12).u64(13).u32(1).u32(2).u32(3);
    let bytes = times.u32(0o104_755).u32(0).u32(1000).u32(1001).u32(0).0;
    let Op::Setattr(setattr) = parse(Opcode::Setattr, &bytes, 0)? else {
        panic!("not a SETATTR");
    };
    Ok(setattr)
}

/// Each row is one `FATTR_*` flag and the only field it changes.
#[test]
fn setattr_changes_what_its_flags_say_and_nothing_else() {
    let none = Setattr::default;
    let to = |secs: u64, nanos| Timestamp::new(secs, nanos).ok().map(TimeChange::To);
    let now = Some(TimeChange::Now);
    #[rustfmt::skip]
    let cases = [
        ("nothing", 0, none()),
        ("MODE", 1 << 0, Setattr { mode: Some(Permissions::from_wire(0o4755)), ..none() }),
        ("UID", 1 << 1, Setattr { guest_uid: Some(Guest(Uid(1000))), ..none() }),
        ("GID", 1 << 2, Setattr { guest_gid: Some(Guest(Gid(1001))), ..none() }),
        ("SIZE", 1 << 3, Setattr { size: FileOffset::new(4096).ok(), ..none() }),
        ("ATIME before 1970", 1 << 4, Setattr { atime: to(u64::MAX, 1), ..none() }),
        ("MTIME", 1 << 5, Setattr { mtime: to(12, 2), ..none() }),
        ("FH", 1 << 6, Setattr { file: Some(Fh::from_raw(5)), ..none() }),
        ("ATIME_NOW with ATIME", 1 << 4 | 1 << 7, Setattr { atime: now, ..none() }),
        ("ATIME_NOW alone", 1 << 7, none()),
        ("MTIME_NOW with MTIME", 1 << 5 | 1 << 8, Setattr { mtime: now, ..none() }),
        ("MTIME_NOW alone", 1 << 8, none()),
        ("LOCKOWNER", 1 << 9, none()),
        ("CTIME", 1 << 10, Setattr { ctime: Timestamp::new(13, 3).ok(), ..none() }),
        ("KILL_SUIDGID", 1 << 11, Setattr { kill_privileges: KillPrivileges::Yes, ..none() }),
    ];
    for (what, valid, want) in cases {
        assert_eq!(setattr(valid), Ok(want), "{what}");
    }
}

#[test]
fn setattr_refuses_flags_that_nobody_defined() {
    for bit in 12..32 {
        assert!(setattr(1 << bit).is_err(), "bit {bit}");
    }
}

/// Types of MKNOD, `S_IFMT` of `man 7 inode`.
#[test]
fn mknod_makes_files_pipes_sockets_and_devices_only() {
    let cases = [
        (0o000_000, Some(NodeKind::File)),
        (0o100_000, Some(NodeKind::File)),
        (0o010_000, Some(NodeKind::Fifo)),
        (0o140_000, Some(NodeKind::Socket)),
        (0o020_000, Some(NodeKind::CharDevice(0x103))),
        (0o060_000, Some(NodeKind::BlockDevice(0x103))),
        (0o040_000, None),
        (0o120_000, None),
        (0o030_000, None),
        (0o170_000, None),
    ];
    for (file_type, want) in cases {
        let head = Bytes::new().u32(file_type | 0o644).u32(0x103).u32(0).u32(0);
        let bytes = head.raw(b"node\0").0;
        let kind = match parse(Opcode::Mknod, &bytes, 0) {
            Ok(Op::Mknod(mknod)) => Some(mknod.kind),
            _ => None,
        };
        assert_eq!(kind, want, "{file_type:o}");
    }
}
