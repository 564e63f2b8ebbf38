//! What newer guests append to a creation.

use super::*;

/// MKDIR of `docs` with these extensions behind it, padded to a length in units of eight bytes.
fn mkdir(extensions: &Bytes) -> Result<Extras, Malformed> {
    let units = u16::try_from(extensions.0.len() / 8).unwrap();
    let arguments = golden::of(Opcode::Mkdir).arguments.raw(&extensions.0).0;
    let Op::Mkdir(mkdir) = parse(Opcode::Mkdir, &arguments, units)? else {
        panic!("not a MKDIR");
    };
    Ok(mkdir.extras)
}

/// `struct fuse_ext_header` of FUSE_EXT_GROUPS, then `struct fuse_supp_groups`.
fn groups(size: u32, count: u32, group: u32) -> Bytes {
    Bytes::new().u32(size).u32(32).u32(count).u32(group)
}

/// One security context of eight padded bytes, `struct fuse_secctx_header` and what it announces.
fn security_context() -> Bytes {
    Bytes::new()
        .u32(32)
        .u32(1)
        .u32(3)
        .u32(0)
        .raw(b"security.x\0abc\0\0")
}

/// Each row: extensions, and the group they bring; `Err` where they are refused.
#[test]
fn a_creation_brings_at_most_one_group() {
    let group = |raw| Ok(Some(Guest(Gid(raw))));
    let cases = [
        ("none", Bytes::new(), Ok(None)),
        ("the parent's group", groups(16, 1, 1000), group(1000)),
        ("no group", groups(16, 0, 1000), Ok(None)),
        (
            "a security context is passed over",
            security_context(),
            Ok(None),
        ),
        (
            "a group behind a security context",
            security_context().raw(&groups(16, 1, 1000).0),
            group(1000),
        ),
        (
            "a group before a security context",
            groups(16, 1, 1000).raw(&security_context().0),
            group(1000),
        ),
        ("two groups", groups(16, 2, 1000), Err(())),
        ("more groups than bytes", groups(16, u32::MAX, 0), Err(())),
        ("a group that is nobody", groups(16, 1, u32::MAX), Err(())),
        ("size zero", groups(0, 1, 1000), Err(())),
        ("size below its header", groups(7, 1, 1000), Err(())),
        ("size of its header alone", groups(8, 1, 1000), Err(())),
        ("size that cuts the group off", groups(12, 1, 1000), Err(())),
        ("size beyond the message", groups(24, 1, 1000), Err(())),
        ("the largest size", groups(u32::MAX, 1, 1000), Err(())),
        ("an unknown type", Bytes::new().u32(8).u32(33), Err(())),
        (
            "the largest type",
            Bytes::new().u32(8).u32(u32::MAX),
            Err(()),
        ),
    ];
    for (what, extensions, want) in cases {
        let read = mkdir(&extensions).map(|extras| extras.supplementary_group);
        assert_eq!(read.map_err(drop), want, "{what}");
    }
}

#[test]
fn every_request_that_creates_reads_its_extensions() {
    let want = Some(Guest(Gid(1000)));
    for opcode in [
        Opcode::Symlink,
        Opcode::Mknod,
        Opcode::Mkdir,
        Opcode::Create,
        Opcode::Tmpfile,
    ] {
        let arguments = golden::of(opcode).arguments.raw(&groups(16, 1, 1000).0).0;
        let extras = match parse(opcode, &arguments, 2) {
            Ok(Op::Symlink(op)) => op.extras,
            Ok(Op::Mknod(op)) => op.extras,
            Ok(Op::Mkdir(op)) => op.extras,
            Ok(Op::Create(op)) => op.extras,
            Ok(Op::Tmpfile(op)) => op.extras,
            other => panic!("{other:?}"),
        };
        assert_eq!(extras.supplementary_group, want, "{opcode:?}");
    }
}

/// `total_extlen` says where the arguments end, whatever the request.
#[test]
fn extensions_longer_than_the_request_are_malformed() {
    for golden in golden::all() {
        let too_many = u16::try_from(golden.arguments.0.len() / 8 + 1).unwrap();
        for units in [too_many, u16::MAX] {
            let read = parse(golden.opcode, &golden.arguments.0, units);
            assert_eq!(read, Err(Malformed::Extensions), "{:?}", golden.opcode);
        }
    }
}

/// Claiming the name's bytes as extensions leaves a name without its NUL.
#[test]
fn extensions_cannot_overlap_the_name() {
    let name = b"directory-name\0\0";
    assert!(parse(Opcode::Rmdir, name, 0).is_ok());
    let read = parse(Opcode::Rmdir, name, 1);
    assert_eq!(read, Err(Malformed::UnterminatedName));
}
