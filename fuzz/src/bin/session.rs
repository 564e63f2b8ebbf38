//! A sequence of requests to a session over a real directory, which somebody on the host changes.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rustix::process::{getegid, geteuid};
use virtiofs_fuzz::guest::Memory;
use virtiofs_fuzz::held::Descriptors;
use virtiofs_fuzz::input::Input;
use virtiofs_fuzz::oracle::{self, Reply};
use virtiofs_fuzz::seeds;
use virtiofs_fuzz::share::Share;
use virtiofs_fuzz::world::World;
use virtiofs_hostfs::{CachePolicy, Options, PassthroughFs, PosixAcl, XattrPolicy, XattrRules};
use virtiofs_protocol::{
    HEADER_BYTES, HangUp, Head, Opcode, Request, Served, Session, SessionOptions, arguments_len,
};

/// Longer ones say nothing new, more slowly.
const MOST_REQUESTS: usize = 48;
const ROOM_BYTES: usize = 16 + 8192;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let before = Descriptors::now();
    let share = Share::new().expect("a directory");
    let maps: [&[u8]; 2] = [b":ok:all:::", b":map:trusted.:user.virtiofs.:"];
    let rules = XattrRules::parse(input.choose(&maps)).expect("a map");
    let options = Options {
        cache: input.choose(&[CachePolicy::Auto, CachePolicy::Never, CachePolicy::Always]),
        max_inodes: input.choose(&[None, None, Some(3)]),
        xattr: XattrPolicy::On(rules),
        posix_acl: input.choose(&[PosixAcl::Off, PosixAcl::IfOffered]),
        descriptor_budget: input.choose(&[512, 0, 1, 2]),
        ..Options::default()
    };
    let fs = PassthroughFs::new(share.root().expect("a root"), options).expect("a share");
    let session = Session::new(fs, SessionOptions::default());
    let offered = input.u64();
    serve(&session, &seeds::init(offered));
    let us = (geteuid(), getegid());
    let mut world = World::default();
    for _ in 0..MOST_REQUESTS {
        if input.is_empty() {
            break;
        }
        match input.u8() {
            0..=0x1f => share.change(&mut input),
            0x20..=0x2f => {
                session.rest();
            }
            _ => ask(&session, &mut world, offered, &mut input),
        }
        assert_eq!((geteuid(), getegid()), us, "the thread is somebody else");
    }
    share.assert_untouched();
    session.end(HangUp::Disconnected);
    session.rest();
    assert_eq!(
        session.filesystem().known_inodes(),
        1,
        "the root alone is known"
    );
    drop(session);
    drop(share);
    before.assert_again();
});

fn ask(session: &Session<PassthroughFs>, world: &mut World, offered: u64, input: &mut Input<'_>) {
    let asked = world.ask(input);
    let reply = serve(session, &asked.message);
    if tells() {
        let errno = reply.as_ref().map(|reply| reply.errno);
        eprintln!("{:?} of node {}: {errno:?}", asked.opcode, asked.node);
    }
    match (asked.opcode, reply) {
        (Opcode::Forget, _) => world.forgot(&asked),
        (Opcode::Destroy | Opcode::Init, Some(_)) => {
            world.end();
            serve(session, &seeds::init(offered));
        }
        (_, Some(Reply { errno: 0, body })) => world.learn(&asked, &body),
        _ => {}
    }
}

/// Whether each request and its error are printed: for a person who looks at one input.
fn tells() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| std::env::var_os("FUZZ_TELL").is_some())
}

/// Has a request served, and served again where it was parked.
fn serve(session: &Session<PassthroughFs>, message: &[u8]) -> Option<Reply> {
    let (header, behind) = message
        .split_first_chunk::<HEADER_BYTES>()
        .expect("a header");
    let (arguments, data) = behind.split_at(arguments_len(header, message.len()));
    let head = Head::new(header, arguments);
    let unique = head.unique().raw();
    let mut room = Memory::room(ROOM_BYTES, &[]);
    let mut payload = Memory::readable(data, &[]);
    let served = session.serve(Request {
        head,
        payload: payload.payload(),
        reply: room.reply(),
    });
    let written_bytes = match served {
        Served::Replied { written_bytes } => written_bytes,
        Served::NoReply => return None,
        Served::Parked(ticket) => {
            room = Memory::room(ROOM_BYTES, &[]);
            payload = Memory::readable(data, &[]);
            let request = Request {
                head,
                payload: payload.payload(),
                reply: room.reply(),
            };
            session.resume(request, ticket).written_bytes
        }
    };
    oracle::reply(written_bytes, unique, &room)
}
