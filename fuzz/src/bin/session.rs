//! A sequence of requests to a session over a real directory, beside a model of it; sometimes somebody on the host
//! changes something.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use virtiofs_fuzz::ground::{self, Choice};
use virtiofs_fuzz::input::Input;
use virtiofs_fuzz::model::Model;
use virtiofs_fuzz::oracle::Reply;
use virtiofs_fuzz::seeds;
use virtiofs_fuzz::serving::{Layout, serve};
use virtiofs_fuzz::world::World;
use virtiofs_hostfs::{CachePolicy, PassthroughFs, PosixAcl};
use virtiofs_protocol::{Access, Opcode, Session};

/// Longer ones say nothing new, more slowly.
const MOST_REQUESTS: usize = 48;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let choice = Choice {
        xattr_map: input.choose(&[Choice::AS_THEY_ARE, Choice::MAPPED]),
        cache: input.choose(&[CachePolicy::Auto, CachePolicy::Never, CachePolicy::Always]),
        max_inodes: input.choose(&[None, None, Some(3)]),
        posix_acl: input.choose(&[PosixAcl::Off, PosixAcl::IfOffered]),
        descriptor_budget: input.choose(&[512, 0, 1, 2]),
        access: Access::ReadWrite,
    };
    let offered = input.u64();
    ground::with_session(choice, |share, session| {
        serve(session, Layout::WHOLE, &seeds::init(offered));
        let mut guest = Guest {
            world: World::default(),
            model: choice.model(share),
            offered,
        };
        for _ in 0..MOST_REQUESTS {
            if input.is_empty() {
                break;
            }
            match input.u8() {
                0..=0x1f => {
                    guest.model.lose_sight();
                    share.change(&mut input);
                }
                0x20..=0x2f => {
                    session.rest();
                }
                _ => guest.ask(session, &mut input),
            }
        }
    });
});

/// A guest, and what its replies have to be.
struct Guest {
    world: World,
    model: Model,
    offered: u64,
}

impl Guest {
    fn ask(&mut self, session: &Session<PassthroughFs>, input: &mut Input<'_>) {
        let asked = self.world.ask(input);
        let reply = serve(session, Layout::WHOLE, &asked.message).reply();
        if tells() {
            let errno = reply.as_ref().map(|reply| reply.errno);
            eprintln!("{:?} of node {}: {errno:?}", asked.opcode, asked.node);
        }
        if let Some(reply) = &reply {
            self.model.follow(&asked.message, &self.world, reply);
        }
        match (asked.opcode, reply) {
            (Opcode::Forget, _) => self.world.forgot(&asked),
            (Opcode::Destroy | Opcode::Init, Some(_)) => {
                self.world.end();
                self.model.end();
                serve(session, Layout::WHOLE, &seeds::init(self.offered));
            }
            (_, Some(Reply { errno: 0, body })) => self.world.learn(&asked, &body),
            _ => {}
        }
    }
}

/// Whether each request and its error are printed: for a person who looks at one input.
fn tells() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| std::env::var_os("FUZZ_TELL").is_some())
}
