//! Replies have the length that Linux expects, or there is no room for them.

use super::*;
use crate::op::{HeldLock, LockRange, LockType};

/// Length of a successful reply's body, from the structs of `fuse.h`; `None` for what has no reply
/// or is not served.
fn body_bytes(opcode: Opcode) -> Option<usize> {
    match opcode {
        // struct fuse_entry_out.
        Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => {
            Some(128)
        }
        // struct fuse_entry_out and struct fuse_open_out.
        Opcode::Create | Opcode::Tmpfile => Some(144),
        // struct fuse_attr_out.
        Opcode::Getattr | Opcode::Setattr => Some(104),
        // struct fuse_open_out.
        Opcode::Open | Opcode::Opendir => Some(16),
        // struct fuse_write_out, fuse_lseek_out and fuse_copy_file_range_out.
        Opcode::Write | Opcode::Lseek | Opcode::CopyFileRange | Opcode::CopyFileRange64 => Some(8),
        // struct fuse_statfs_out and fuse_init_out.
        Opcode::Statfs => Some(80),
        Opcode::Init => Some(64),
        Opcode::Readlink => Some(stub_target_bytes()),
        Opcode::Read => Some(4096),
        // struct fuse_dirent, four bytes of name, four of padding; for the other behind an entry.
        Opcode::Readdir => Some(32),
        Opcode::Readdirplus => Some(160),
        Opcode::Unlink | Opcode::Rmdir | Opcode::Rename | Opcode::Rename2 => Some(0),
        Opcode::Flush | Opcode::Fsync | Opcode::Release | Opcode::Fsyncdir => Some(0),
        Opcode::Releasedir | Opcode::Syncfs | Opcode::Fallocate | Opcode::Destroy => Some(0),
        Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt => None,
        Opcode::Getxattr | Opcode::Listxattr => Some(stub_target_bytes()),
        Opcode::Setxattr | Opcode::Removexattr => Some(0),
        // struct fuse_statx_out; struct fuse_ioctl_out and the eight bytes that the golden request asks for.
        Opcode::Statx => Some(288),
        Opcode::Ioctl => Some(24),
        // struct fuse_lk_out.
        Opcode::Getlk => Some(24),
        Opcode::Setlk | Opcode::Setlkw => Some(0),
        Opcode::Access | Opcode::Poll | Opcode::Bmap => None,
        Opcode::Setupmapping | Opcode::Removemapping => None,
    }
}

fn stub_target_bytes() -> usize {
    crate::session::stub::TARGET.len()
}

/// Requests whose reply is as long as the guest left room for, or whose end is told by its length.
fn fits_its_room(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Read | Opcode::Readdir | Opcode::Readdirplus)
}

#[test]
fn replies_have_the_length_of_their_struct() {
    for &opcode in Opcode::ALL {
        let answered = Message::golden(opcode).serve(&active(Access::ReadWrite));
        assert_eq!(answered.body_bytes(), body_bytes(opcode), "{opcode:?}");
    }
}

#[test]
fn replies_fit_into_exactly_their_room() {
    for &opcode in Opcode::ALL {
        let Some(bytes) = body_bytes(opcode) else {
            continue;
        };
        let message = Message::golden(opcode).room(16 + bytes);
        let answered = message.serve(&active(Access::ReadWrite));
        assert_eq!(answered.body_bytes(), Some(bytes), "{opcode:?}");
    }
}

/// One byte short is refused; where the file system cannot take it back, before it hears of it.
#[test]
fn replies_one_byte_too_long_are_refused() {
    for &opcode in Opcode::ALL {
        let bytes = body_bytes(opcode).unwrap_or(0);
        if bytes == 0 || fits_its_room(opcode) {
            continue;
        }
        let session = active(Access::ReadWrite);
        let answered = Message::golden(opcode).room(16 + bytes - 1).serve(&session);
        assert_eq!(answered, Answered::Error(Errno::INVAL), "{opcode:?}");
        let heard = session.filesystem().calls();
        // These change nothing, and only the file system knows how long its answer is.
        let asks_for_text = matches!(
            opcode,
            Opcode::Readlink | Opcode::Getxattr | Opcode::Listxattr
        );
        assert_eq!(heard.is_empty(), !asks_for_text, "{opcode:?}");
    }
}

/// Each row: a request whose reply is cut to its room, the room, and the bytes that came.
#[test]
fn contents_are_cut_to_the_room() {
    let cases = [
        (Opcode::Read, 4095, 4095),
        (Opcode::Read, 0, 0),
        (Opcode::Readdir, 31, 0),
        (Opcode::Readdirplus, 159, 0),
    ];
    for (opcode, room, want) in cases {
        let message = Message::golden(opcode).room(16 + room);
        let answered = message.serve(&active(Access::ReadWrite));
        assert_eq!(answered.body_bytes(), Some(want), "{opcode:?} {room}");
    }
}

#[test]
fn contents_are_cut_to_the_size_asked_for() {
    for size in [0_u32, 1, 4095] {
        let mut read = Message::golden(Opcode::Read);
        read.arguments[16..20].copy_from_slice(&size.to_ne_bytes());
        let answered = read.serve(&active(Access::ReadWrite));
        assert_eq!(answered.body_bytes(), usize::try_from(size).ok());
    }
}

/// `struct fuse_getxattr_out`: the length, and four bytes of padding.
#[test]
fn attributes_asked_for_without_room_are_answered_with_their_length() {
    let length = u32::try_from(stub_target_bytes()).unwrap();
    for opcode in [Opcode::Getxattr, Opcode::Listxattr] {
        let mut ask = Message::golden(opcode);
        ask.arguments[..4].copy_from_slice(&0_u32.to_ne_bytes());
        let answered = ask.serve(&active(Access::ReadWrite));
        let want = Answered::Body(Bytes::new().u32(length).u32(0).0);
        assert_eq!(answered, want, "{opcode:?}");
    }
}

/// Nothing fits without a header: the chain is completed empty, whatever was asked.
#[test]
fn without_room_for_a_header_completions_are_empty() {
    for &opcode in Opcode::ALL {
        for room in [0, 1, 8, 15] {
            let answered = Message::golden(opcode)
                .room(room)
                .serve(&active(Access::ReadWrite));
            let want = if has_no_reply(opcode) {
                Answered::NoReply
            } else {
                Answered::Empty
            };
            assert_eq!(answered, want, "{opcode:?} with {room} bytes");
        }
    }
}

#[test]
fn a_header_alone_tells_success_or_the_error() {
    for &opcode in Opcode::ALL {
        let session = active(Access::ReadWrite);
        let answered = Message::golden(opcode).room(16).serve(&session);
        let want = match body_bytes(opcode) {
            _ if has_no_reply(opcode) => Answered::NoReply,
            Some(0) => Answered::Body(Vec::new()),
            Some(_) if fits_its_room(opcode) => Answered::Body(Vec::new()),
            Some(_) => Answered::Error(Errno::INVAL),
            None => Answered::Error(Errno::NOSYS),
        };
        assert_eq!(answered, want, "{opcode:?}");
    }
}

/// The 32-bit reply cannot count further than a page below 4 GiB; the other form can.
#[test]
fn a_copy_counts_as_far_as_its_reply_can() {
    let session = active(Access::ReadWrite);
    let short = Message::golden(Opcode::CopyFileRange).serve(&session);
    assert_eq!(
        short,
        Answered::Body(Bytes::new().u32(0xffff_f000).u32(0).0)
    );
    let long = Message::golden(Opcode::CopyFileRange64).serve(&session);
    assert_eq!(long, Answered::Body(Bytes::new().u64(1 << 40).0));
}

#[test]
fn getlk_tells_who_holds_the_lock_or_that_nobody_does() {
    let session = active(Access::ReadWrite);
    let getlk = Message::golden(Opcode::Getlk);
    let free = Bytes::new().u64(0).u64(0).u32(2).u32(0);
    assert_eq!(getlk.serve(&session), Answered::Body(free.0));
    let held = HeldLock {
        lock_type: LockType::Write,
        range: LockRange { start: 3, end: 9 },
        pid: 44,
    };
    *session.filesystem().held.lock().unwrap() = Some(held);
    let taken = Bytes::new().u64(3).u64(9).u32(1).u32(44);
    assert_eq!(getlk.serve(&session), Answered::Body(taken.0));
}
