//! The bytes of one request, cut as a guest likes, to a session over a file system that believes nothing, and to another
//! one over a real directory.
#![no_main]

use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;
use virtiofs_fuzz::familiar::Familiar;
use virtiofs_fuzz::ground::{self, Choice};
use virtiofs_fuzz::input::Input;
use virtiofs_fuzz::seeds::{self, RequestCase};
use virtiofs_fuzz::serving::{Answered, Layout, serve};
use virtiofs_fuzz::strict::Strict;
use virtiofs_hostfs::{CachePolicy, PosixAcl};
use virtiofs_protocol::{Filesystem, Session, SessionOptions};

fuzz_target!(|bytes: &[u8]| {
    let case = RequestCase::read(&mut Input::new(bytes));
    to_nobody(&case);
    for_real(&case);
});

/// To a file system without files, which checks what the types promise.
fn to_nobody(case: &RequestCase<'_>) {
    let options = SessionOptions {
        access: case.access,
        ..SessionOptions::default()
    };
    let session = Session::new(Strict::default(), options);
    begin(&session, case);
    session
        .filesystem()
        .sleepy
        .store(case.sleepy, Ordering::Relaxed);
    let before = session.malformed_count();
    check(case.message, &serve(&session, case.layout, case.message));
    assert!(session.malformed_count() <= before + 1);
}

/// To a real directory, of which the guest knows a few files if it has begun a session.
fn for_real(case: &RequestCase<'_>) {
    let choice = Choice {
        xattr_map: Choice::AS_THEY_ARE,
        cache: CachePolicy::Auto,
        max_inodes: None,
        posix_acl: PosixAcl::IfOffered,
        descriptor_budget: 512,
        access: case.access,
    };
    ground::with_session(choice, |_, session| {
        begin(session, case);
        let mut message = case.message.to_vec();
        if case.offered.is_some() {
            Familiar::new(session).name_in(&mut message);
        }
        let answered = serve(session, case.layout, &message);
        check(&message, &answered);
        // The planted defect: a guest that takes whatever it knows for a directory.
        const NOT_A_DIRECTORY: i32 = 20;
        let is_none = answered
            .reply()
            .is_some_and(|reply| reply.errno == NOT_A_DIRECTORY);
        assert!(!(cfg!(feature = "planted") && is_none));
    });
}

fn begin<F: Filesystem>(session: &Session<F>, case: &RequestCase<'_>) {
    if let Some(offered) = case.offered {
        let answered = serve(session, Layout::WHOLE, &seeds::init(offered));
        assert!(matches!(answered, Answered::Reply(_)), "INIT has no answer");
    }
}

/// Only requests that nobody waits for may go without an answer.
fn check(message: &[u8], answered: &Answered) {
    let opcode = message
        .get(4..8)
        .and_then(|opcode| opcode.try_into().ok())
        .map_or(0, u32::from_ne_bytes);
    let may_be_silent = matches!(opcode, 2 | 36 | 42);
    assert!(*answered != Answered::Nothing || may_be_silent);
}
