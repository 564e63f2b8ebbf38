//! Values that mean nothing.

use rustix::io::Errno;

use super::*;

/// Each name-taking request with `name` where it takes one.
fn with_name(name: &[u8]) -> Vec<(Opcode, Bytes)> {
    vec![
        (Opcode::Lookup, Bytes::new().raw(name)),
        (Opcode::Unlink, Bytes::new().raw(name)),
        (Opcode::Rmdir, Bytes::new().raw(name)),
        (Opcode::Symlink, Bytes::new().raw(name).raw(b"target\0")),
        (Opcode::Mkdir, Bytes::new().u64(0).raw(name)),
        (Opcode::Mknod, Bytes::new().u64(0).u64(0).raw(name)),
        (Opcode::Create, Bytes::new().u64(0).u64(0).raw(name)),
        (Opcode::Link, Bytes::new().u64(7).raw(name)),
        (Opcode::Rename, Bytes::new().u64(9).raw(name).raw(b"b\0")),
        (Opcode::Rename, Bytes::new().u64(9).raw(b"a\0").raw(name)),
        (
            Opcode::Rename2,
            Bytes::new().u64(9).u64(0).raw(name).raw(b"b\0"),
        ),
        (
            Opcode::Rename2,
            Bytes::new().u64(9).u64(0).raw(b"a\0").raw(name),
        ),
    ]
}

/// Each row: a name, and what every request that takes a name answers to it.
#[test]
fn no_request_takes_a_name_that_leaves_its_directory() {
    let longest = [&[b'x'; 255][..], b"\0"].concat();
    let too_long = [&[b'x'; 256][..], b"\0"].concat();
    let cases: &[(&[u8], Option<Errno>)] = &[
        (b"file\0", None),
        (b"...\0", None),
        (b"\xff\xfe\n\0", None),
        (&longest, None),
        (&too_long, Some(Errno::NAMETOOLONG)),
        (b"\0", Some(Errno::NOENT)),
        (b"/\0", Some(Errno::INVAL)),
        (b"a/b\0", Some(Errno::INVAL)),
        (b"../a\0", Some(Errno::INVAL)),
        (b"/etc/passwd\0", Some(Errno::INVAL)),
    ];
    for (name, want) in cases {
        for (opcode, arguments) in with_name(name) {
            let errno = parse(opcode, &arguments.0, 0).err().map(Malformed::errno);
            assert_eq!(errno, *want, "{opcode:?} {:?}", name.escape_ascii());
        }
    }
}

#[test]
fn only_lookup_takes_the_dots() {
    for name in [&b".\0"[..], b"..\0"] {
        for (opcode, arguments) in with_name(name) {
            let read = parse(opcode, &arguments.0, 0);
            assert_eq!(read.is_ok(), opcode == Opcode::Lookup, "{opcode:?}");
        }
    }
}

#[test]
fn names_without_an_end_are_malformed() {
    for (opcode, arguments) in with_name(b"name\0") {
        // The last byte is the NUL of the only, or of the last, name or target.
        let (_, open_ended) = arguments.0.split_last().unwrap();
        let read = parse(opcode, open_ended, 0);
        assert_eq!(read, Err(Malformed::UnterminatedName), "{opcode:?}");
    }
}

#[test]
fn a_symlink_says_at_most_4095_bytes() {
    for (len, fits) in [(0, true), (4095, true), (4096, false)] {
        let target = vec![b't'; len];
        let bytes = Bytes::new().raw(b"link\0").raw(&target).raw(b"\0").0;
        let errno = parse(Opcode::Symlink, &bytes, 0)
            .err()
            .map(Malformed::errno);
        assert_eq!(errno, (!fits).then_some(Errno::NAMETOOLONG), "{len}");
    }
}

/// Replaces the four bytes at `at` of a golden request.
fn altered(opcode: Opcode, at: usize, value: u32) -> Vec<u8> {
    let mut bytes = golden::of(opcode).arguments.0;
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    bytes
}

/// Each row: where a 32-bit field stands, and the values of it that are defined.
#[test]
fn fields_with_a_few_values_take_no_other() {
    #[rustfmt::skip]
    let cases: &[(Opcode, usize, &[u32])] = &[
        (Opcode::Lseek, 16, &[0, 2, 3, 4]),
        (Opcode::Rename2, 8, &[0, 1, 2, 3, 4, 5, 6, 7]),
        (Opcode::Getlk, 32, &[0, 1, 2]),
        (Opcode::Setlk, 32, &[0, 1, 2]),
        (Opcode::Setlkw, 32, &[0, 1, 2]),
        (Opcode::CopyFileRange, 48, &[0]),
        (Opcode::CopyFileRange, 52, &[0]),
        (Opcode::CopyFileRange64, 48, &[0]),
        (Opcode::CopyFileRange64, 52, &[0]),
    ];
    for (opcode, at, defined) in cases {
        let tried = (0..64).chain((6..32).map(|bit| 1 << bit)).chain([u32::MAX]);
        for value in tried {
            let bytes = altered(*opcode, *at, value);
            let read = parse(*opcode, &bytes, 0);
            assert_eq!(
                read.is_ok(),
                defined.contains(&value),
                "{opcode:?} {value:#x}"
            );
        }
    }
}

/// Each row: where a 64-bit position stands; positions end at 2^63-1 (`off_t`).
#[test]
fn positions_that_no_file_has_are_refused() {
    let cases = [
        (Opcode::Read, 8),
        (Opcode::Write, 8),
        (Opcode::Fallocate, 8),
        (Opcode::Fallocate, 16),
        (Opcode::Lseek, 8),
        (Opcode::CopyFileRange, 8),
        (Opcode::CopyFileRange, 32),
        (Opcode::CopyFileRange64, 8),
        (Opcode::CopyFileRange64, 32),
    ];
    for (opcode, at) in cases {
        let last = i64::MAX.unsigned_abs();
        for (raw, fits) in [(last, true), (last + 1, false), (u64::MAX, false)] {
            let mut bytes = golden::of(opcode).arguments.0;
            bytes[at..at + 8].copy_from_slice(&raw.to_ne_bytes());
            let read = parse(opcode, &bytes, 0);
            assert_eq!(read.is_ok(), fits, "{opcode:?} {raw:#x}");
        }
    }
}

/// Each row: a SETATTR flag, where its 32-bit field stands, a value that fits and one that does not.
#[test]
fn setattr_refuses_times_and_owners_that_cannot_be() {
    const SECOND: u32 = 1_000_000_000;
    #[rustfmt::skip]
    let cases = [
        ("atime", 1 << 4, 56, SECOND - 1, SECOND),
        ("mtime", 1 << 5, 60, SECOND - 1, SECOND),
        ("ctime", 1 << 10, 64, SECOND - 1, SECOND),
        ("UTIME_NOW as atime", 1 << 4, 56, 0, (1 << 30) - 1),
        ("UTIME_OMIT as mtime", 1 << 5, 60, 0, (1 << 30) - 2),
        ("owner", 1 << 1, 76, u32::MAX - 1, u32::MAX),
        ("group", 1 << 2, 80, u32::MAX - 1, u32::MAX),
    ];
    for (what, flag, at, good, bad) in cases {
        for (value, fits) in [(good, true), (bad, false)] {
            let mut bytes = altered(Opcode::Setattr, at, value);
            bytes[..4].copy_from_slice(&u32::to_ne_bytes(flag));
            let read = parse(Opcode::Setattr, &bytes, 0);
            assert_eq!(read.is_ok(), fits, "{what} {value}");
            bytes[..4].copy_from_slice(&[0; 4]);
            let read = parse(Opcode::Setattr, &bytes, 0);
            assert!(read.is_ok(), "{what} without its flag has no meaning");
        }
    }
}

#[test]
fn a_size_beyond_off_t_cannot_be_set() {
    let mut bytes = golden::of(Opcode::Setattr).arguments.0;
    bytes[16..24].copy_from_slice(&(1_u64 << 63).to_ne_bytes());
    let read = parse(Opcode::Setattr, &bytes, 0);
    assert_eq!(read, Err(Malformed::Offset { raw: 1 << 63 }));
}

#[test]
fn a_lock_does_not_end_before_it_begins() {
    let mut bytes = golden::of(Opcode::Setlk).arguments.0;
    for (end, fits) in [(10_u64, true), (9, false), (0, false)] {
        bytes[24..32].copy_from_slice(&end.to_ne_bytes());
        assert_eq!(parse(Opcode::Setlk, &bytes, 0).is_ok(), fits, "{end}");
    }
}

/// Each row: a stated count or length, with two elements or three bytes behind it.
#[test]
fn counts_and_lengths_that_lie_are_malformed() {
    let cases = [
        (Opcode::BatchForget, 0, 2),
        (Opcode::Removemapping, 0, 1),
        (Opcode::Setxattr, 0, 5),
        (Opcode::Ioctl, 24, 3),
    ];
    for (opcode, at, truth) in cases {
        for stated in [truth + 1, 1 << 28, u32::MAX] {
            let bytes = altered(opcode, at, stated);
            assert!(parse(opcode, &bytes, 0).is_err(), "{opcode:?} {stated}");
        }
        for stated in 0..=truth {
            let bytes = altered(opcode, at, stated);
            assert!(parse(opcode, &bytes, 0).is_ok(), "{opcode:?} {stated}");
        }
    }
}

/// A count below the truth forgets that many and no more.
#[test]
fn batch_forget_forgets_as_many_as_it_says() {
    for count in 0..=2_u32 {
        let bytes = altered(Opcode::BatchForget, 0, count);
        let Ok(Op::BatchForget(forget)) = parse(Opcode::BatchForget, &bytes, 0) else {
            panic!("not a BATCH_FORGET");
        };
        assert_eq!(forget.nodes().count(), usize::try_from(count).unwrap());
    }
}
