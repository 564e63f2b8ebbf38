//! What a guest knows: nodes, handles, and requests made of both.

use std::collections::BTreeMap;

use virtiofs_protocol::Opcode;

use crate::input::Input;
use crate::share::NAMES;
use crate::wire::{longs, words};

/// A node that the guest has looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    ino: u64,
    kind: u32,
    lookups: u64,
}

/// Everything that the guest has been told and has not given back.
#[derive(Debug, Default)]
pub struct World {
    nodes: BTreeMap<u64, Known>,
    handles: Vec<u64>,
}

/// A request about to be sent.
#[derive(Debug)]
pub struct Asked {
    /// What it is.
    pub opcode: Opcode,
    /// What it is about.
    pub node: u64,
    /// How often the node is forgotten.
    forgets: u64,
    /// Its bytes.
    pub message: Vec<u8>,
}

const CALLERS: [(u32, u32); 4] = [(0, 0), (1000, 1000), (1000, 0), (u32::MAX, 5)];
const OFFSETS: [u64; 9] = [
    0,
    1,
    5,
    4095,
    4096,
    1 << 20,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];
const LENGTHS: [u32; 6] = [0, 1, 10, 4096, 65_536, 100_000];
const MODES: [u32; 8] = [0o644, 0o755, 0o4755, 0o2755, 0o1777, 0, 0o7777, u32::MAX];
/// Access modes, creation, exclusion, truncation, append, path, directory, temporary file.
const OPEN_FLAGS: [u32; 11] = [
    0,
    1,
    2,
    3,
    0o101,
    0o301,
    0o1001,
    0o2001,
    0o1000_0000,
    0o20_0000,
    0o2020_0002,
];

impl World {
    /// The node that every guest knows.
    pub const ROOT: u64 = 1;

    /// Whether the guest was given a node and has not given it back.
    pub fn knows(&self, node: u64) -> bool {
        node == Self::ROOT || self.nodes.contains_key(&node)
    }

    /// Chooses a request.
    pub fn ask(&self, input: &mut Input<'_>) -> Asked {
        let opcode = input.choose(Opcode::ALL);
        let node = self.node(input);
        let (uid, gid) = input.choose(&CALLERS);
        let forgets = match opcode {
            Opcode::Forget => u64::from(input.u8() % 4),
            _ => 0,
        };
        let mut behind = self.arguments(opcode, forgets, input);
        // Sometimes a byte is missing, or there is one too many.
        match input.u8() {
            0xfe => drop(behind.pop()),
            0xff => behind.push(input.u8()),
            _ => {}
        }
        let len = (40 + behind.len()) as u32;
        let mut message = words(&[len, opcode as u32]);
        message.extend(longs(&[0x77, node]));
        message.extend(words(&[uid, gid, 1, 0]));
        message.extend(behind);
        Asked {
            opcode,
            node,
            forgets,
            message,
        }
    }

    fn node(&self, input: &mut Input<'_>) -> u64 {
        let choice = usize::from(input.u8());
        match choice {
            0xff => input.u64(),
            0 => Self::ROOT,
            _ => self
                .nodes
                .keys()
                .nth(choice % self.nodes.len().max(1))
                .copied()
                .unwrap_or(Self::ROOT),
        }
    }

    fn handle(&self, input: &mut Input<'_>) -> u64 {
        let choice = usize::from(input.u8());
        match choice {
            0xff => input.u64(),
            _ => self
                .handles
                .get(choice % self.handles.len().max(1))
                .copied()
                .unwrap_or(0),
        }
    }

    fn arguments(&self, opcode: Opcode, forgets: u64, input: &mut Input<'_>) -> Vec<u8> {
        match opcode {
            Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir => name(input),
            Opcode::Removexattr => attribute(input),
            Opcode::Symlink => [name(input), name(input)].concat(),
            Opcode::Forget => longs(&[forgets]),
            Opcode::Mkdir => [
                words(&[input.choose(&MODES), input.choose(&MODES)]),
                name(input),
            ]
            .concat(),
            Opcode::Mknod => {
                let kind =
                    input.choose(&[0o10_0000, 0o1_0000, 0o2_0000, 0o6_0000, 0o14_0000, 0o4_0000]);
                let head = words(&[kind | input.choose(&MODES) & 0o7777, 0x103, 0o22, 0]);
                [head, name(input)].concat()
            }
            Opcode::Create | Opcode::Tmpfile => {
                let head = words(&[
                    input.choose(&OPEN_FLAGS),
                    0o10_0000 | input.choose(&MODES),
                    0o22,
                    0,
                ]);
                [head, name(input)].concat()
            }
            Opcode::Link => [longs(&[self.node(input)]), name(input)].concat(),
            Opcode::Rename => [longs(&[self.node(input)]), name(input), name(input)].concat(),
            Opcode::Rename2 => {
                let head = [
                    longs(&[self.node(input)]),
                    words(&[u32::from(input.u8() & 7), 0]),
                ];
                [head.concat(), name(input), name(input)].concat()
            }
            Opcode::Getattr => [
                words(&[u32::from(input.u8() & 1), 0]),
                longs(&[self.handle(input)]),
            ]
            .concat(),
            Opcode::Setattr => self.setattr(input),
            Opcode::Setxattr => {
                let (attribute, len) = (attribute(input), input.u8());
                let value = input.bytes(len.into());
                let head = words(&[value.len() as u32, u32::from(input.u8() & 3)]);
                [head, attribute, value.to_vec()].concat()
            }
            Opcode::Getxattr => [words(&[input.choose(&LENGTHS), 0]), attribute(input)].concat(),
            Opcode::Listxattr => words(&[input.choose(&LENGTHS), 0]),
            Opcode::Open | Opcode::Opendir => {
                words(&[input.choose(&OPEN_FLAGS), u32::from(input.u8() & 1)])
            }
            _ => self.open_file(opcode, input),
        }
    }

    fn setattr(&self, input: &mut Input<'_>) -> Vec<u8> {
        let valid = u32::from(input.u16() & 0xfff);
        let mut bytes = words(&[valid, 0]);
        bytes.extend(longs(&[self.handle(input), input.choose(&OFFSETS), 0]));
        bytes.extend(longs(&[1, input.u64(), 0]));
        bytes.extend(words(&[0, 999_999_999, 0, input.choose(&MODES), 0]));
        let id = |input: &mut Input<'_>| input.choose(&[0, 1000, 5, u32::MAX]);
        bytes.extend(words(&[id(input), id(input), 0]));
        bytes
    }

    /// Requests about open files. What allocates or copies is kept short: it is done for real.
    fn open_file(&self, opcode: Opcode, input: &mut Input<'_>) -> Vec<u8> {
        let handle = self.handle(input);
        let (offset, len) = (input.choose(&OFFSETS), input.choose(&LENGTHS));
        let io = |len| {
            [
                longs(&[handle, offset]),
                words(&[len, 0]),
                longs(&[9]),
                words(&[0, 0]),
            ]
            .concat()
        };
        match opcode {
            Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => io(len),
            Opcode::Write => {
                let len = input.u8() % 64;
                let data = input.bytes(len.into());
                [io(data.len() as u32), data.to_vec()].concat()
            }
            Opcode::Release | Opcode::Releasedir | Opcode::Flush => {
                [longs(&[handle]), words(&[0, 0]), longs(&[9])].concat()
            }
            Opcode::Fsync | Opcode::Fsyncdir => {
                [longs(&[handle]), words(&[u32::from(input.u8() & 1), 0])].concat()
            }
            Opcode::Fallocate => {
                let mode = u32::from(input.u8());
                [longs(&[handle, offset, len.into()]), words(&[mode, 0])].concat()
            }
            Opcode::Lseek => [
                longs(&[handle, offset]),
                words(&[u32::from(input.u8() % 6), 0]),
            ]
            .concat(),
            Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
                let (node, to) = (self.node(input), self.handle(input));
                longs(&[
                    handle,
                    offset,
                    node,
                    to,
                    input.choose(&OFFSETS),
                    len.into(),
                    0,
                ])
            }
            _ => input.bytes(48).to_vec(),
        }
    }

    /// Learns from a reply, and checks what a guest relies on.
    ///
    /// # Panics
    ///
    /// When a node has become another file, or a file another node.
    pub fn learn(&mut self, asked: &Asked, body: &[u8]) {
        match asked.opcode {
            Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => {
                self.entry(body)
            }
            Opcode::Create | Opcode::Tmpfile => {
                self.entry(&body[..128]);
                self.handles.push(long(body, 128));
            }
            Opcode::Open | Opcode::Opendir => self.handles.push(long(body, 0)),
            Opcode::Getattr | Opcode::Setattr => self.attributes(asked.node, &body[16..]),
            Opcode::Readdirplus => self.entries_plus(body),
            _ => {}
        }
    }

    /// The guest has sent a FORGET.
    pub fn forgot(&mut self, asked: &Asked) {
        if let Some(known) = self.nodes.get_mut(&asked.node) {
            known.lookups = known.lookups.saturating_sub(asked.forgets);
            if known.lookups == 0 {
                self.nodes.remove(&asked.node);
            }
        }
    }

    /// The session is over: nothing is known.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    fn entry(&mut self, body: &[u8]) {
        let node = long(body, 0);
        if node == 0 {
            // A name that is known not to be there.
            return;
        }
        self.attributes(node, &body[40..]);
        let attributes = &body[40..];
        let (ino, kind) = (long(attributes, 0), word(attributes, 60) & 0o17_0000);
        let known = self.nodes.entry(node).or_insert(Known {
            ino,
            kind,
            lookups: 0,
        });
        known.lookups += 1;
    }

    fn attributes(&self, node: u64, attributes: &[u8]) {
        let Some(known) = self.nodes.get(&node) else {
            return;
        };
        assert_eq!(
            long(attributes, 0),
            known.ino,
            "node {node} became another inode"
        );
        assert_eq!(
            word(attributes, 60) & 0o17_0000,
            known.kind,
            "node {node} became another kind"
        );
    }

    fn entries_plus(&mut self, mut body: &[u8]) {
        while !body.is_empty() {
            let (entry, behind) = body.split_at_checked(128).expect("a whole entry");
            let len = word(behind, 16) as usize;
            let name = &behind[24..24 + len];
            assert!((1..=255).contains(&len) && !name.contains(&b'/') && !name.contains(&0));
            if long(entry, 0) != 0 {
                assert!(name != b"." && name != b"..", "a lookup of {name:?}");
                self.entry(entry);
            }
            body = &behind[(24 + len).next_multiple_of(8)..];
        }
    }
}

/// A name with its NUL: mostly one that may be there.
fn name(input: &mut Input<'_>) -> Vec<u8> {
    let mut name = match input.u8() {
        0xff => {
            let len = input.u8();
            input.bytes(len.into()).to_vec()
        }
        0xfe => b"..".to_vec(),
        0xfd => b"../secret".to_vec(),
        0xfc => vec![b'x'; 256],
        choice => NAMES[usize::from(choice) % NAMES.len()].as_bytes().to_vec(),
    };
    name.push(0);
    name
}

/// Name of an extended attribute with its NUL.
fn attribute(input: &mut Input<'_>) -> Vec<u8> {
    let names = [
        "user.a",
        "trusted.a",
        "security.a",
        "user.",
        "system.posix_acl_access",
        "",
    ];
    [input.choose(&names).as_bytes(), &[0]].concat()
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
