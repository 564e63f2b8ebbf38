//! How a target's bytes are read, and bytes for it to start from: what Linux really sends.

use virtiofs_protocol::{Access, Opcode, fuzzing};

use crate::input::Input;
use crate::serving::{Layout, Parked};
use crate::wire::{longs, words};

/// What `request` does with a fuzzer's bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestCase<'a> {
    /// Whether the guest may change anything.
    pub access: Access,
    /// What was offered in an INIT before; `None` when there was none.
    pub offered: Option<u64>,
    /// Whether the file system sleeps where it may, and the request is parked.
    pub sleepy: bool,
    /// How memory is laid out.
    pub layout: Layout,
    /// Header, arguments and data.
    pub message: &'a [u8],
}

/// Around every fixed reply's length, and enough for any.
const ROOMS: &[usize] = &[
    8192,
    0,
    1,
    8,
    15,
    16,
    17,
    24,
    32,
    80,
    96,
    104,
    120,
    143,
    144,
    145,
    160,
    176,
    300,
    4096 + 16,
    70_000,
];
const CUTS: &[&[usize]] = &[
    &[],
    &[1],
    &[16],
    &[16, 24],
    &[0, 3, 0, 13],
    &[4096],
    &[7, 4096, 1],
];

impl<'a> RequestCase<'a> {
    const INIT: u8 = 1;
    const READ_ONLY: u8 = 2;
    const SLEEPY: u8 = 4;
    const HANGS_UP: u8 = 8;
    const ABANDONED: u8 = 16;

    /// Reads the case.
    pub fn read(input: &mut Input<'a>) -> Self {
        let control = input.u8();
        let has = |bit: u8| control & bit != 0;
        let room_bytes = input.choose(ROOMS);
        let cuts = input.choose(CUTS);
        let reply_cuts = input.choose(CUTS);
        let offered = input.u64();
        let parked = match (has(Self::HANGS_UP), has(Self::ABANDONED)) {
            (false, _) => Parked::Resumes,
            (true, false) => Parked::HangsUp,
            (true, true) => Parked::IsAbandoned,
        };
        Self {
            access: if has(Self::READ_ONLY) {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            },
            offered: has(Self::INIT).then_some(offered),
            sleepy: has(Self::SLEEPY),
            layout: Layout {
                room_bytes,
                cuts,
                reply_cuts,
                parked,
            },
            message: input.rest(),
        }
    }
}

/// An INIT of 7.45 as Linux sends it, with these flags.
pub fn init(offered: u64) -> Vec<u8> {
    let mut arguments = Vec::new();
    let [low, high] = [offered, offered >> 32].map(|word| word as u32);
    // INIT_EXT announces the second word.
    for word in [7, 45, 128 << 10, low | 1 << 30, high] {
        arguments.extend_from_slice(&word.to_ne_bytes());
    }
    arguments.resize(64, 0);
    fuzzing::message(Opcode::Init, 0, &arguments)
}

/// Seeds of a target; `None` where there is no such target.
pub fn of(target: &str) -> Option<Vec<Vec<u8>>> {
    match target {
        "request" => Some(requests()),
        "ring" => Some(rings()),
        "messages" => Some(messages()),
        "session" => Some(sessions()),
        _ => None,
    }
}

/// Every golden request: before INIT and after, awake and parked.
fn requests() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for message in fuzzing::golden_messages() {
        for control in [
            0,
            RequestCase::INIT,
            RequestCase::INIT | RequestCase::SLEEPY,
            RequestCase::INIT | RequestCase::SLEEPY | RequestCase::HANGS_UP,
            RequestCase::INIT
                | RequestCase::SLEEPY
                | RequestCase::HANGS_UP
                | RequestCase::ABANDONED,
        ] {
            let mut seed = vec![control, 0, 0, 0];
            seed.extend_from_slice(&u64::MAX.to_le_bytes());
            seed.extend_from_slice(&message);
            seeds.push(seed);
        }
    }
    seeds
}

/// Every golden request in a ring of 32: as two descriptors, as an indirect table, and all at once.
fn rings() -> Vec<Vec<u8>> {
    let messages = fuzzing::golden_messages();
    let mut seeds: Vec<Vec<u8>> = messages
        .iter()
        .flat_map(|message| [ring(&[message], 7), indirect_ring(message)])
        .collect();
    let few: Vec<&Vec<u8>> = messages.iter().take(8).collect();
    seeds.push(ring(&few, 7));
    seeds.push(ring(&few, 15));
    seeds
}

/// Chains of a readable and a writable descriptor, each with half a KiB of memory per message.
fn ring(messages: &[&Vec<u8>], control: u8) -> Vec<u8> {
    let count = messages.len() as u8;
    let mut seed = vec![control, 5, 0, count, 0];
    seed.extend((0..count).map(|chain| 2 * chain));
    seed.push(2 * count);
    for (chain, message) in messages.iter().enumerate() {
        let at = (chain * 0x200) as u16;
        put_descriptor(
            &mut seed,
            1 | 1 << 4,
            at,
            message.len(),
            2 * chain as u8 + 1,
        );
        put_descriptor(&mut seed, 2 | 2 << 4, at + 0x100, 0x100, 0);
    }
    for (chain, message) in messages.iter().enumerate() {
        put_content(&mut seed, (chain * 0x200) as u16, message);
    }
    seed
}

fn indirect_ring(message: &[u8]) -> Vec<u8> {
    let mut seed = vec![7, 5, 0, 1, 0, 0, 1];
    put_descriptor(&mut seed, 4 << 4, 0x3400, 32, 0);
    put_content(&mut seed, 0, message);
    seed.extend([0]);
    seed.extend(0x3400_u16.to_le_bytes());
    seed.extend([0xff, 2]);
    put_descriptor(&mut seed, 1 | 1 << 4, 0, message.len(), 1);
    put_descriptor(&mut seed, 2 | 2 << 4, 0x100, 0x1000, 0);
    seed
}

fn put_descriptor(seed: &mut Vec<u8>, control: u8, offset: u16, len: usize, next: u8) {
    seed.push(control);
    seed.extend(offset.to_le_bytes());
    seed.extend((len as u16).to_le_bytes());
    seed.push(next);
}

/// Content of the second region.
fn put_content(seed: &mut Vec<u8>, offset: u16, content: &[u8]) {
    for (number, part) in content.chunks(128).enumerate() {
        seed.push(1);
        seed.extend((offset + 128 * number as u16).to_le_bytes());
        seed.push(part.len() as u8);
        seed.extend_from_slice(part);
    }
}

/// A whole handshake as QEMU sends it, and each of its messages alone.
fn messages() -> Vec<Vec<u8>> {
    /// Kinds of descriptors, as the target numbers them.
    const EVENT: u8 = 0;
    const MEMORY: u8 = 1;
    let region = |at: u64| longs(&[0x1_0000 + at, 0x8000, 0x7000_0000_0000 + at, at]);
    let table = [words(&[2, 0]), region(0), region(0x8000)].concat();
    let slot = [longs(&[0]), region(0)].concat();
    let at = |offset: u64| 0x7000_0000_0000 + offset;
    let addresses = [words(&[1, 0]), longs(&[at(0), at(0x2000), at(0x1000), 0])].concat();
    let all: Vec<(u8, &[u8], Vec<u8>)> = vec![
        (1, &[], vec![]),
        (15, &[], vec![]),
        (16, &[], longs(&[0xa029])),
        (17, &[], vec![]),
        (3, &[], vec![]),
        (2, &[], longs(&[1 << 32 | 7 << 28])),
        (36, &[], vec![]),
        (24, &[], [words(&[0, 40, 0]), vec![0; 40]].concat()),
        (5, &[MEMORY, MEMORY], table),
        (8, &[], words(&[1, 128])),
        (10, &[], words(&[1, 0])),
        (9, &[], addresses),
        (13, &[EVENT], longs(&[1])),
        (14, &[EVENT], longs(&[1])),
        (12, &[EVENT], longs(&[1])),
        (18, &[], words(&[1, 1])),
        (11, &[], words(&[1, 0])),
        (38, &[], slot.clone()),
        (37, &[MEMORY], slot),
        (21, &[EVENT], vec![]),
        (34, &[], vec![]),
        (4, &[], vec![]),
    ];
    let encode = |(request, descriptors, payload): &(u8, &[u8], Vec<u8>)| {
        let control = 2 << 6 | descriptors.len() as u8;
        let mut bytes = vec![*request, control];
        bytes.extend_from_slice(descriptors);
        bytes.push(payload.len() as u8);
        bytes.extend_from_slice(payload);
        bytes
    };
    let whole = all.iter().flat_map(encode);
    let mut seeds = vec![std::iter::once(1).chain(whole).collect()];
    for message in &all {
        seeds.push([vec![0], encode(message)].concat());
    }
    seeds
}

/// Each kind of request by itself, and a few sequences that build on one another.
fn sessions() -> Vec<Vec<u8>> {
    let number = |opcode: Opcode| {
        let place = Opcode::ALL.iter().position(|other| *other == opcode);
        place.unwrap_or_default() as u8
    };
    // Options and INIT; then per request: kind, opcode, node, caller, what `World::arguments` takes.
    let start = [&[0; 5][..], &[0xff; 8]].concat();
    let ask = |opcode, rest: &[u8]| [&[0x40, number(opcode)], rest].concat();
    let lookup = |name: u8| ask(Opcode::Lookup, &[0, 0, name, 0]);
    let mut seeds: Vec<Vec<u8>> = Opcode::ALL
        .iter()
        .map(|opcode| {
            [
                start.clone(),
                lookup(0),
                ask(*opcode, &[1, 0, 4, 5, 0, 0, 0, 0]),
            ]
            .concat()
        })
        .collect();
    let open = ask(Opcode::Open, &[1, 0, 2, 0, 0]);
    let write = ask(Opcode::Write, &[1, 0, 0, 0, 0, 4, 1, 2, 3, 4, 0]);
    let read = ask(Opcode::Read, &[1, 0, 0, 0, 3, 0]);
    let link = ask(Opcode::Link, &[0, 0, 1, 4, 0]);
    let rename = ask(Opcode::Rename, &[0, 0, 0, 0, 5, 0]);
    let unlink = ask(Opcode::Unlink, &[0, 0, 0, 0]);
    let getattr = ask(Opcode::Getattr, &[1, 0, 0, 0, 0]);
    let create = ask(Opcode::Create, &[0, 1, 4, 0, 4, 0]);
    let mkdir = ask(Opcode::Mkdir, &[0, 1, 1, 0, 4, 0]);
    let opendir = ask(Opcode::Opendir, &[0, 0, 0, 0, 0]);
    let list = ask(Opcode::Readdirplus, &[0, 0, 0, 0, 3, 0]);
    let exchanged = vec![0, 0, 1, 1];
    for steps in [
        vec![lookup(0), open, write, read],
        vec![lookup(0), link, getattr.clone()],
        vec![lookup(0), rename, getattr.clone()],
        vec![lookup(0), unlink, getattr.clone()],
        vec![create, mkdir],
        vec![opendir, list, getattr.clone()],
        vec![lookup(0), lookup(1), exchanged, getattr],
    ] {
        seeds.push([start.clone(), steps.concat()].concat());
    }
    seeds
}
