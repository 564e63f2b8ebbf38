//! What newer guests append to a creation.

use std::ffi::CStr;

use super::*;
use crate::testing::golden::parse_as_agreed;

const NOTHING: InitFlags = InitFlags::empty();
const LABELS: InitFlags = InitFlags::SECURITY_CTX;

/// What a MKDIR of `docs` brings with these extensions behind it, padded to a length in units of eight bytes.
fn mkdir<T>(
    agreed: InitFlags,
    extensions: &Bytes,
    look: impl FnOnce(Extras<'_>) -> T,
) -> Result<T, Malformed> {
    let units = u16::try_from(extensions.0.len() / 8).unwrap();
    of(Opcode::Mkdir, agreed, extensions, units, look)
}

fn of<T>(
    opcode: Opcode,
    agreed: InitFlags,
    extensions: &Bytes,
    units: u16,
    look: impl FnOnce(Extras<'_>) -> T,
) -> Result<T, Malformed> {
    let arguments = golden::of(opcode).arguments.raw(&extensions.0).0;
    Ok(look(extras_of(parse_as_agreed(
        agreed, opcode, &arguments, units,
    )?)))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other request has extensions"
)]
fn extras_of(op: Op<'_>) -> Extras<'_> {
    match op {
        Op::Symlink(op) => op.extras,
        Op::Mknod(op) => op.extras,
        Op::Mkdir(op) => op.extras,
        Op::Create(op) => op.extras,
        Op::Tmpfile(op) => op.extras,
        other => panic!("{other:?}"),
    }
}

const CREATIONS: [Opcode; 5] = [
    Opcode::Symlink,
    Opcode::Mknod,
    Opcode::Mkdir,
    Opcode::Create,
    Opcode::Tmpfile,
];

/// `struct fuse_ext_header` of FUSE_EXT_GROUPS, then `struct fuse_supp_groups`.
fn groups(size: u32, count: u32, group: u32) -> Bytes {
    Bytes::new().u32(size).u32(32).u32(count).u32(group)
}

const SELINUX: &[u8] = b"system_u:object_r:etc_t:s0\0";

/// What `get_selinux()` in Linux fills in for a file of `etc_t` under SELinux: `struct fuse_secctx_header`,
/// `struct fuse_secctx`, the name, the label with its NUL, and padding to a multiple of eight.
fn selinux() -> Bytes {
    Bytes::new()
        .u32(64)
        .u32(1)
        .u32(27)
        .u32(0)
        .raw(b"security.selinux\0")
        .raw(SELINUX)
        .raw(&[0; 4])
}

/// As many contexts as stated, of a name, a stated size and bytes for it.
fn context(count: u32, name: &[u8], size: u32, value: &[u8]) -> Bytes {
    let body = Bytes::new().u32(size).u32(0).raw(name).raw(value).0;
    let padded = (8 + body.len()).next_multiple_of(8);
    let whole = Bytes::new().u32(u32::try_from(padded).unwrap()).u32(count);
    let mut whole = whole.raw(&body);
    whole.0.resize(padded, 0);
    whole
}

/// Each row: extensions, and the group they bring; `Err` where they are refused.
#[test]
fn a_creation_brings_at_most_one_group() {
    let group = |raw| Ok(Some(Guest(Gid(raw))));
    let cases = [
        ("none", Bytes::new(), Ok(None)),
        ("the parent's group", groups(16, 1, 1000), group(1000)),
        ("no group", groups(16, 0, 1000), Ok(None)),
        ("a security context is passed over", selinux(), Ok(None)),
        (
            "a group behind a security context",
            selinux().raw(&groups(16, 1, 1000).0),
            group(1000),
        ),
        (
            "a group before a security context",
            groups(16, 1, 1000).raw(&selinux().0),
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
        for agreed in [NOTHING, LABELS] {
            let read = mkdir(agreed, &extensions, |extras| extras.supplementary_group);
            assert_eq!(read.map_err(drop), want, "{what}, {agreed:?}");
        }
    }
}

/// Each row: extensions of a session that has agreed on labels, and the label they bring.
#[test]
fn a_creation_brings_at_most_one_label_of_a_security_module() {
    let label = SecurityLabel::new;
    let etc = || label(c"security.selinux", SELINUX);
    let long = [b"security.", [b'x'; 246].as_slice(), b"\0"].concat();
    let cases = [
        ("nothing", Bytes::new(), None),
        ("no context", Bytes::new().u32(8).u32(0), None),
        ("SELinux's", selinux(), etc()),
        ("before a group", selinux().raw(&groups(16, 1, 7).0), etc()),
        ("behind a group", groups(16, 1, 7).raw(&selinux().0), etc()),
        (
            "Smack's, which ends without NUL",
            context(1, b"security.SMACK64\0", 1, b"_"),
            label(c"security.SMACK64", b"_"),
        ),
        (
            "padding that is longer than it has to be",
            context(1, b"security.x\0", 1, &[b'y'; 30]),
            label(c"security.x", b"y"),
        ),
        (
            "the longest name",
            context(1, &long, 1, b"y"),
            label(CStr::from_bytes_with_nul(&long).unwrap(), b"y"),
        ),
    ];
    for (what, extensions, want) in cases {
        let read = mkdir(LABELS, &extensions, |extras| extras.label == want);
        assert_eq!(read, Ok(true), "{what}");
    }
}

/// Each row is a context that no Linux sends.
#[test]
fn a_context_that_is_no_label_is_malformed() {
    let longer = [b"security.", [b'x'; 247].as_slice(), b"\0"].concat();
    let cases = [
        ("a longer name", context(1, &longer, 1, b"y")),
        ("two contexts", context(2, b"security.x\0", 1, b"y")),
        ("31 contexts", context(31, b"security.x\0", 1, b"y")),
        ("twice", selinux().raw(&selinux().0)),
        ("another name", context(1, b"trusted.x\0", 1, b"y")),
        ("a user's", context(1, b"user.security.x\0", 1, b"y")),
        ("the prefix alone", context(1, b"security.\0", 1, b"y")),
        ("no name", context(1, b"\0", 1, b"y")),
        ("a name without NUL", context(1, b"security.x", 0, b"")),
        ("an empty label", context(1, b"security.x\0", 0, b"")),
        ("a label cut off", context(1, b"security.x\0", 99, b"y")),
        (
            "the largest size",
            context(1, b"security.x\0", u32::MAX, b"y"),
        ),
        ("no room for its sizes", Bytes::new().u32(8).u32(1)),
        ("a header that is cut off", Bytes::new().u32(4).u32(1)),
    ];
    for (what, extensions) in cases {
        let read = mkdir(LABELS, &extensions, |extras| extras.label.is_some());
        assert!(read.is_err(), "{what}: {read:?}");
    }
}

/// Linux 5.17 to 6.2 (7.36 and 7.37) states no length of extensions: the context stands behind the last name.
#[test]
fn a_label_behind_the_last_name_is_read_whether_its_place_is_stated_or_not() {
    let want = SecurityLabel::new(c"security.selinux", SELINUX);
    assert!(want.is_some());
    for opcode in CREATIONS {
        for units in [0, 8] {
            let same = of(opcode, LABELS, &selinux(), units, |extras| {
                extras.label == want
            });
            assert_eq!(same, Ok(true), "{opcode:?} {units}");
            let none = of(opcode, NOTHING, &selinux(), units, |extras| {
                extras.label.is_none()
            });
            assert_eq!(none, Ok(true), "{opcode:?} {units}");
        }
        let whole = golden::of(opcode).arguments.raw(&selinux().0).0;
        let without = whole.len() - selinux().0.len();
        for end in without + 1..whole.len() {
            let read = parse_as_agreed(LABELS, opcode, &whole[..end], 0);
            assert!(
                read.is_err(),
                "{opcode:?} took {end} of {} bytes",
                whole.len()
            );
        }
    }
}

#[test]
fn every_request_that_creates_reads_its_extensions() {
    let want = Some(Guest(Gid(1000)));
    for opcode in CREATIONS {
        let group = |extras: Extras<'_>| extras.supplementary_group;
        let read = of(opcode, NOTHING, &groups(16, 1, 1000), 2, group);
        assert_eq!(read, Ok(want), "{opcode:?}");
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
