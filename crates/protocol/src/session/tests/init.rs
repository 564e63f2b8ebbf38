//! INIT and the end of a session.

use super::*;
use crate::abi::InitOut;
use crate::flags::InitFlags;
use crate::session::stub::WANTED;

fn init(major: u32, minor: u32, flags: u64) -> Message {
    let [low, high] =
        [flags & u64::from(u32::MAX), flags >> 32].map(|word| u32::try_from(word).unwrap());
    let words = Bytes::new().u32(major).u32(minor).u32(1 << 17).u32(low);
    Message::new(Opcode::Init, words.u32(high).raw(&[0; 44]))
}

fn answer(answered: &Answered) -> InitOut {
    let Answered::Body(body) = answered else {
        panic!("{answered:?}");
    };
    InitOut::read_from_bytes(body).unwrap()
}

/// Each row: the guest's version, and the minor agreed on; an errno where there is none.
#[test]
fn init_agrees_on_the_lesser_version() {
    let cases = [
        ((7, 0), Err(Errno::PROTO)),
        ((7, 26), Err(Errno::PROTO)),
        ((7, 27), Ok(27)),
        ((7, 31), Ok(31)),
        ((7, 38), Ok(38)),
        ((7, 45), Ok(45)),
        ((7, 46), Ok(45)),
        ((7, 99), Ok(45)),
        ((7, 256 + 27), Ok(45)),
        ((7, u32::MAX), Ok(45)),
        ((6, 38), Err(Errno::PROTO)),
        ((0, 0), Err(Errno::PROTO)),
    ];
    for ((major, minor), want) in cases {
        let session = fresh(Access::ReadWrite);
        let answered = init(major, minor, 0).serve(&session);
        match want {
            Ok(agreed) => {
                let answer = answer(&answered);
                assert_eq!((answer.major.get(), answer.minor.get()), (7, agreed));
                let begin = format!("begin 7.{agreed}");
                assert_eq!(session.filesystem().calls(), [begin]);
            }
            Err(errno) => {
                assert_eq!(answered, Answered::Error(errno), "{major}.{minor}");
                assert!(session.filesystem().calls().is_empty());
                let getattr = Message::golden(Opcode::Getattr).serve(&session);
                assert_eq!(getattr, Answered::Error(Errno::INVAL));
            }
        }
    }
}

/// The guest then repeats INIT with the major version it was told.
#[test]
fn a_newer_major_version_is_told_ours_and_begins_nothing() {
    let session = fresh(Access::ReadWrite);
    let answer = answer(&init(8, 0, u64::from(u32::MAX)).serve(&session));
    assert_eq!((answer.major.get(), answer.flags.get()), (7, 0));
    assert!(session.filesystem().calls().is_empty());
    let getattr = Message::golden(Opcode::Getattr).serve(&session);
    assert_eq!(getattr, Answered::Error(Errno::INVAL));
    assert_eq!(init(7, 38, 0).serve(&session).body_bytes(), Some(64));
}

/// Each row: what the guest offers, and what both agree on.
#[test]
fn flags_are_agreed_on_when_offered_and_wanted() {
    let form = InitFlags::MAX_PAGES | InitFlags::INIT_EXT | InitFlags::BIG_WRITES;
    let cases = [
        ("nothing", 0, InitFlags::empty()),
        (
            "everything: of two forms of one thing, the newer",
            u64::MAX,
            (WANTED - InitFlags::HANDLE_KILLPRIV) | form,
        ),
        (
            "the older form alone",
            InitFlags::HANDLE_KILLPRIV.bits(),
            InitFlags::HANDLE_KILLPRIV,
        ),
        (
            "one that is wanted",
            InitFlags::DO_READDIRPLUS.bits(),
            InitFlags::DO_READDIRPLUS,
        ),
        (
            "one that is not wanted",
            InitFlags::POSIX_LOCKS.bits(),
            InitFlags::empty(),
        ),
        (
            "one of the second word",
            (InitFlags::CREATE_SUPP_GROUP | InitFlags::INIT_EXT).bits(),
            InitFlags::CREATE_SUPP_GROUP | InitFlags::INIT_EXT,
        ),
        (
            "the second word without saying so",
            InitFlags::CREATE_SUPP_GROUP.bits(),
            InitFlags::empty(),
        ),
    ];
    for (what, offered, want) in cases {
        let session = fresh(Access::ReadWrite);
        let answer = answer(&init(7, 38, offered).serve(&session));
        let agreed = u64::from(answer.flags2.get()) << 32 | u64::from(answer.flags.get());
        assert_eq!(InitFlags::from_bits_retain(agreed), want, "{what}");
        assert_eq!(session.agreed().map(|agreed| agreed.flags), Some(want));
    }
}

#[test]
fn init_states_the_limits() {
    let options = SessionOptions {
        max_write_bytes: 1 << 16,
        max_readahead_bytes: Some(1 << 12),
        max_background: 64,
        ..SessionOptions::default()
    };
    let session = Session::new(Stub::default(), options);
    let answer = answer(&init(7, 38, 0).serve(&session));
    assert_eq!(
        (answer.max_write.get(), answer.max_pages.get()),
        (1 << 16, 16)
    );
    assert_eq!(answer.max_readahead.get(), 1 << 12);
    let background = (
        answer.max_background.get(),
        answer.congestion_threshold.get(),
    );
    assert_eq!(background, (64, 48));
    assert_eq!(answer.time_gran.get(), 1);
}

#[test]
fn a_guest_that_reads_less_ahead_keeps_its_limit() {
    let answer = answer(&init(7, 38, 0).serve(&fresh(Access::ReadWrite)));
    assert_eq!(answer.max_readahead.get(), 1 << 17);
}

/// A guest that reboots sends INIT again without DESTROY.
#[test]
fn a_second_init_ends_the_first_session() {
    let session = active(Access::ReadWrite);
    assert_eq!(init(7, 31, 0).serve(&session).body_bytes(), Some(64));
    let calls = session.filesystem().calls();
    assert_eq!(calls, ["end SessionEnded", "begin 7.31"]);
    assert_eq!(session.agreed().map(|agreed| agreed.minor), Some(31));
}

#[test]
fn an_init_that_cannot_be_answered_leaves_the_session() {
    let session = active(Access::ReadWrite);
    let too_old = init(7, 26, 0).serve(&session);
    assert_eq!(too_old, Answered::Error(Errno::PROTO));
    let no_room = init(7, 38, 0).room(16 + 63).serve(&session);
    assert_eq!(no_room, Answered::Error(Errno::INVAL));
    assert!(session.filesystem().calls().is_empty());
    let getattr = Message::golden(Opcode::Getattr).serve(&session);
    assert_eq!(getattr.body_bytes(), Some(104));
}

#[test]
fn after_destroy_only_init_is_served() {
    let session = active(Access::ReadWrite);
    let destroy = Message::golden(Opcode::Destroy);
    assert_eq!(destroy.serve(&session), Answered::Body(Vec::new()));
    assert_eq!(session.filesystem().calls(), ["end SessionEnded"]);
    assert_eq!(destroy.serve(&session), Answered::Error(Errno::INVAL));
    let getattr = Message::golden(Opcode::Getattr);
    assert_eq!(getattr.serve(&session), Answered::Error(Errno::INVAL));
    assert!(session.filesystem().calls().is_empty());
    assert_eq!(init(7, 38, 0).serve(&session).body_bytes(), Some(64));
    assert_eq!(getattr.serve(&session).body_bytes(), Some(104));
}
