//! What is refused before the file system hears of it.

use super::*;

#[test]
fn nothing_but_init_is_served_before_init() {
    for &opcode in Opcode::ALL {
        let session = fresh(Access::ReadWrite);
        let answered = Message::golden(opcode).serve(&session);
        if opcode == Opcode::Init {
            assert_eq!(answered.body_bytes(), Some(64));
            continue;
        }
        let want = if has_no_reply(opcode) {
            Answered::NoReply
        } else {
            Answered::Error(Errno::INVAL)
        };
        assert_eq!(answered, want, "{opcode:?}");
        assert!(session.filesystem().calls().is_empty(), "{opcode:?}");
        assert_eq!(session.malformed_count(), 1, "{opcode:?}");
    }
}

/// Holes in the numbering, requests of other devices (CUSE_INIT), and the future.
#[test]
fn unknown_requests_are_not_implemented() {
    let session = active(Access::ReadWrite);
    for opcode in [0, 7, 19, 41, 54, 4096, 0x0100_0000, u32::MAX] {
        let message = Message {
            opcode,
            ..Message::golden(Opcode::Getattr)
        };
        let answered = message.serve(&session);
        assert_eq!(answered, Answered::Error(Errno::NOSYS), "{opcode}");
    }
    assert!(session.filesystem().calls().is_empty());
}

/// Each row of SEMANTICS.md that says "not yet".
const UNSERVED: &[Opcode] = &[
    Opcode::Access,
    Opcode::Poll,
    Opcode::Bmap,
    Opcode::Setupmapping,
    Opcode::Removemapping,
];

#[test]
fn requests_without_an_implementation_say_so() {
    for &opcode in Opcode::ALL {
        let session = active(Access::ReadWrite);
        let answered = Message::golden(opcode).serve(&session);
        let absent = answered == Answered::Error(Errno::NOSYS);
        assert_eq!(absent, UNSERVED.contains(&opcode), "{opcode:?}");
        assert_eq!(session.malformed_count(), 0, "{opcode:?}");
    }
}

/// A guest that did not agree keeps its locks to itself.
#[test]
fn locks_that_were_not_agreed_on_are_not_implemented() {
    for opcode in [Opcode::Getlk, Opcode::Setlk, Opcode::Setlkw] {
        let session = after_init(Access::ReadWrite);
        let answered = Message::golden(opcode).serve(&session);
        assert_eq!(answered, Answered::Error(Errno::NOSYS), "{opcode:?}");
        assert!(session.filesystem().calls().is_empty(), "{opcode:?}");
    }
}

/// Requests that change something, in the order of `fuse.h`.
const CHANGING: &[Opcode] = &[
    Opcode::Setattr,
    Opcode::Symlink,
    Opcode::Mknod,
    Opcode::Mkdir,
    Opcode::Unlink,
    Opcode::Rmdir,
    Opcode::Rename,
    Opcode::Link,
    Opcode::Write,
    Opcode::Setxattr,
    Opcode::Removexattr,
    Opcode::Create,
    Opcode::Fallocate,
    Opcode::Rename2,
    Opcode::CopyFileRange,
    Opcode::Tmpfile,
    Opcode::CopyFileRange64,
];

/// FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR; those that only look, and unknown ones, pass.
#[test]
fn commands_that_change_a_file_are_refused_on_a_read_only_share() {
    let cases: [(u32, bool); 6] = [
        (0x4008_6602, true),
        (0x4004_6602, true),
        (0x401c_5820, true),
        (0x8008_6601, false),
        (0x801c_581f, false),
        (0x5401, false),
    ];
    for (command, changes) in cases {
        let mut ask = Message::golden(Opcode::Ioctl);
        ask.arguments[12..16].copy_from_slice(&command.to_ne_bytes());
        let answered = ask.serve(&active(Access::ReadOnly));
        let refused = answered == Answered::Error(Errno::ROFS);
        assert_eq!(refused, changes, "{command:#x}");
    }
}

#[test]
fn a_read_only_share_is_not_changed() {
    for &opcode in Opcode::ALL {
        let session = active(Access::ReadOnly);
        let answered = Message::golden(opcode).serve(&session);
        let refused = answered == Answered::Error(Errno::ROFS);
        assert_eq!(refused, CHANGING.contains(&opcode), "{opcode:?}");
        let heard = !session.filesystem().calls().is_empty();
        assert!(!(refused && heard), "{opcode:?} reached the file system");
    }
}

/// Each row: flags of OPEN as Linux numbers them on x86, and whether they change something.
#[test]
fn a_read_only_share_opens_for_reading_only() {
    let cases = [
        ("O_RDONLY", 0, false),
        ("O_RDONLY | O_APPEND", 0o2000, false),
        ("O_RDONLY | O_NOFOLLOW | O_CLOEXEC", 0o2_400_000, false),
        ("O_WRONLY", 1, true),
        ("O_RDWR", 2, true),
        ("access mode 3", 3, true),
        ("O_RDONLY | O_TRUNC", 0o1000, true),
        ("O_WRONLY | O_TRUNC", 0o1001, true),
    ];
    for (what, flags, changes) in cases {
        let open = Message::new(Opcode::Open, Bytes::new().u32(flags).u32(0));
        let refused = open.serve(&active(Access::ReadOnly)) == Answered::Error(Errno::ROFS);
        assert_eq!(refused, changes, "{what}");
        let answered = open.serve(&active(Access::ReadWrite));
        assert_eq!(answered.body_bytes(), Some(16), "{what}");
    }
}

/// Each row: `len` of a GETATTR header whose message has 56 bytes; the largest makes no sense.
#[test]
fn the_stated_length_covers_the_request_and_not_more_than_the_message() {
    let cases = [
        (0, false),
        (1, false),
        (39, false),
        (40, false),
        (55, false),
        (56, true),
        (57, false),
        (4096, false),
        (u32::MAX, false),
    ];
    for (stated, fits) in cases {
        let session = active(Access::ReadWrite);
        let message = Message {
            stated_len: Some(stated),
            ..Message::golden(Opcode::Getattr)
        };
        let answered = message.serve(&session);
        assert_eq!(answered.body_bytes().is_some(), fits, "{stated}");
        if !fits {
            assert_eq!(answered, Answered::Error(Errno::INVAL), "{stated}");
            assert_eq!(session.malformed_count(), 1);
        }
    }
}

/// A name may be followed by anything up to the limit of what is copied for one request.
#[test]
fn arguments_beyond_every_request_are_refused() {
    let session = active(Access::ReadWrite);
    for (bytes, fits) in [(72 << 10, true), ((72 << 10) + 1, false)] {
        let padded = Bytes::new().raw(b"file\0").raw(&vec![0; bytes - 5]);
        let answered = Message::new(Opcode::Lookup, padded).serve(&session);
        assert_eq!(answered.body_bytes().is_some(), fits, "{bytes}");
    }
}

/// Whatever is wrong with them: the guest waits for no answer and left no room for one.
#[test]
fn forget_and_interrupt_are_never_answered() {
    for opcode in [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt] {
        let good = Message::golden(opcode);
        let session = active(Access::ReadWrite);
        assert_eq!(good.serve(&session), Answered::NoReply);
        assert_eq!(session.malformed_count(), 0);
        session.filesystem().calls();
        for stated_len in [0, 39, 40, 44, 4096, u32::MAX] {
            let bad = Message {
                stated_len: Some(stated_len),
                ..good.clone()
            };
            assert_eq!(bad.serve(&session), Answered::NoReply, "{opcode:?}");
        }
        assert_eq!(session.malformed_count(), 6, "{opcode:?}");
        assert!(session.filesystem().calls().is_empty(), "{opcode:?}");
    }
}

#[test]
fn forgets_arrive_node_by_node() {
    let session = active(Access::ReadWrite);
    Message::golden(Opcode::Forget).serve(&session);
    Message::golden(Opcode::BatchForget).serve(&session);
    let calls = session.filesystem().calls();
    let most = format!("forget 8 {}", u64::MAX);
    assert_eq!(calls, ["forget 3 3", "forget 7 1", &most]);
}

/// Each row: the size that WRITE states, the data there is, the header's length; and what is written.
#[test]
fn a_write_takes_the_data_it_states_or_nothing() {
    let cases = [
        ("as stated", 100, 100, 180, Some(100)),
        ("nothing", 0, 0, 80, Some(0)),
        ("more data than stated", 100, 300, 380, Some(100)),
        ("less data than stated", 100, 99, 179, None),
        ("no data", 100, 0, 80, None),
        ("the largest size", u32::MAX, 100, 180, None),
        ("data behind the stated length", 100, 100, 179, None),
        ("a length without the data", 100, 100, 80, None),
    ];
    for (what, size, payload_bytes, stated_len, want) in cases {
        let session = active(Access::ReadWrite);
        let mut message = Message::golden(Opcode::Write);
        message.arguments[16..20].copy_from_slice(&u32::to_ne_bytes(size));
        message.payload_bytes = payload_bytes;
        message.stated_len = Some(stated_len);
        let answered = message.serve(&session);
        let calls = session.filesystem().calls();
        if let Some(written) = want {
            let body = Bytes::new().u32(written).u32(0).0;
            assert_eq!(answered, Answered::Body(body), "{what}");
            assert_eq!(calls, [format!("write {written}")], "{what}");
        } else {
            assert_eq!(answered, Answered::Error(Errno::INVAL), "{what}");
            assert!(calls.is_empty(), "{what}");
        }
    }
}
