//! Lies about everything, at random.

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{self, ROOT, SetattrIn, fattr, opcode};
use virtiofs_testkit::fuse::{Failure, FuseClient, Request};
use virtiofs_testkit::random::Random;
use virtiofs_testkit::slowfs::lies::{self, Caching, Question, Told};

use crate::rig::{O_RDWR, PAGE, Rig, is_long, well_formed};

/// Requests of a run; ten times as many with `VIRTIOFSD_LONG=1`.
const REQUESTS: u32 = 10_000;

/// An answer to almost anything: the right length of what is asked for, filled with what may mean anything.
fn made_up(random: &mut Random, question: &Question<'_>) -> Told {
    // What the host's kernel has mounted stays a directory, or nothing could be asked any more.
    if question.opcode == opcode::GETATTR && question.node == 1 {
        return Told::Honestly;
    }
    let honest_len = match question.opcode {
        opcode::LOOKUP | opcode::SYMLINK | opcode::MKNOD | opcode::MKDIR | opcode::LINK => 128,
        opcode::GETATTR | opcode::SETATTR => 104,
        opcode::CREATE => 144,
        opcode::OPEN | opcode::OPENDIR => 16,
        opcode::WRITE | opcode::LSEEK => 8,
        opcode::STATFS => 80,
        opcode::READ | opcode::READDIR | opcode::READLINK => random.place(9000),
        _ => 0,
    };
    match random.place(8) {
        0..=2 => Told::Honestly,
        3 => Told::Error(Errno::from_raw_os_error(
            i32::try_from(1 + random.place(511)).unwrap_or(1),
        )),
        4 => Told::Bytes(vec![0; honest_len]),
        5 => {
            let random_byte = |_| random.bits().to_le_bytes()[3];
            let mut bytes: Vec<u8> = (0..honest_len).map(random_byte).collect();
            // How long it holds is not made up: the host's kernel would go on lying when the store no longer does.
            let validity = match question.opcode {
                opcode::LOOKUP => 16..40,
                opcode::GETATTR | opcode::SETATTR => 0..12,
                _ => 0..0,
            };
            bytes[validity].fill(0);
            Told::Bytes(bytes)
        }
        6 => Told::Bytes(vec![b'x'; random.place(300)]),
        _ if question.opcode == opcode::LOOKUP => {
            let modes = [
                0o100_644, 0o040_755, 0o120_777, 0o010_644, 0o020_600, 0o140_600,
            ];
            let attr = abi::Attr {
                mode: modes[random.place(modes.len())],
                ino: random.below(6),
                size: random.below(20_000),
                ..lies::attributes(lies::FILE)
            };
            Told::Bytes(lies::entry_out(2 + random.below(6), random.below(2), attr))
        }
        _ => Told::Bytes(lies::listing(&[
            (random.below(6), random.below(5), 8, b"file"),
            (random.below(6), random.bits(), 4, b"directory"),
        ])),
    }
}

/// Some request about what is known; what it brings is known then.
fn ask(rig: &mut Rig, random: &mut Random, known: &mut Known) -> Result<()> {
    match random.place(3) {
        0 => ask_for_names(rig, random, known),
        1 => ask_for_contents(rig, random, known),
        _ => ask_of_a_node(rig, random, known),
    }
}

fn ask_for_names(rig: &mut Rig, random: &mut Random, known: &mut Known) -> Result<()> {
    let name = ["file", "directory", "link", "other"][random.place(4)];
    let node = [rig.root, known.node][random.place(2)];
    let offset = [0, 1, 5, 1 << 40][random.place(4)];
    let client = rig.session.client();
    match (random.place(5), known.listing) {
        (0 | 1, _) => {
            if let Ok(found) = well_formed(client.lookup(rig.root, name))? {
                known.looked_up.push(found.nodeid);
                known.node = found.nodeid;
            }
        }
        (2, _) => {
            if let Ok(opened) = well_formed(client.opendir(node))? {
                known.close_listing(client)?;
                known.listing = Some((node, opened.fh));
            }
        }
        (3, Some((node, fh))) => drop(well_formed(client.readdir(node, fh, offset))?),
        (_, Some((node, fh))) => {
            if let Ok(entries) = well_formed(client.readdirplus(node, fh, offset))? {
                let found = entries.iter().filter_map(|entry| entry.entry);
                let found = found.map(|entry| entry.nodeid).filter(|node| *node != 0);
                known.looked_up.extend(found);
            }
        }
        (_, None) => {}
    }
    Ok(())
}

fn ask_for_contents(rig: &mut Rig, random: &mut Random, known: &mut Known) -> Result<()> {
    let offset = [0, 1, 4096, 1 << 40][random.place(4)];
    let client = rig.session.client();
    match (random.place(4), known.fh) {
        (0, _) | (_, None) => {
            if let Ok(opened) = well_formed(client.open(known.node, O_RDWR))? {
                known.close(client)?;
                known.fh = Some((known.node, opened.fh));
            }
        }
        (1, Some((node, fh))) => {
            let read = well_formed(client.read(node, fh, offset, 3 * PAGE))?;
            ensure!(read.is_err() || read.is_ok_and(|read| read.len() <= 12_288));
        }
        (2, Some((node, fh))) => {
            let told = well_formed(client.write(node, fh, offset, &[b'w'; 5000]))?;
            let fits = told.is_err() || told.is_ok_and(|told| told <= 5000);
            ensure!(fits, "{told:?}");
        }
        (_, Some((node, fh))) => {
            well_formed(client.fsync(node, fh)).map(drop)?;
            well_formed(client.flush(node, fh, 1)).map(drop)?;
        }
    }
    Ok(())
}

fn ask_of_a_node(rig: &mut Rig, random: &mut Random, known: &mut Known) -> Result<()> {
    let node = [rig.root, known.node][random.place(2)];
    let client = rig.session.client();
    match random.place(5) {
        0 => well_formed(client.getattr(node)).map(drop),
        1 => well_formed(client.readlink(node)).map(drop),
        2 => well_formed(client.statfs(node)).map(drop),
        3 => {
            let size = SetattrIn {
                valid: fattr::SIZE,
                size: [0, 1, 1 << 40][random.place(3)],
                ..SetattrIn::default()
            };
            well_formed(client.setattr(node, &size)).map(drop)
        }
        _ => well_formed(client.call(&Request::getxattr(node, b"user.x", 100))).map(drop),
    }
}

/// What the guest knows of the store.
#[derive(Default)]
struct Known {
    node: u64,
    fh: Option<(u64, u64)>,
    listing: Option<(u64, u64)>,
    looked_up: Vec<u64>,
}

impl Known {
    fn close(&mut self, client: &mut FuseClient) -> Result<(), Failure> {
        self.fh
            .take()
            .map_or(Ok(()), |(node, fh)| client.release(node, fh))
    }

    fn close_listing(&mut self, client: &mut FuseClient) -> Result<(), Failure> {
        let listing = self.listing.take();
        listing.map_or(Ok(()), |(node, fh)| client.releasedir(node, fh))
    }
}

#[test]
fn whatever_a_store_makes_up_each_request_has_an_answer() -> Result<()> {
    let count = if is_long() { 10 * REQUESTS } else { REQUESTS };
    let seed = std::env::var("VIRTIOFSD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(0x5eed_0009);
    println!("VIRTIOFSD_SEED={seed}");
    for (caching, options) in [
        (Caching::None, &["--xattr", "--cache=adaptive"]),
        (Caching::Writeback, &["--xattr", "--cache=never"]),
    ] {
        let Some(mut rig) = Rig::start(caching, options)? else {
            return Ok(());
        };
        let mut random = Random::new(seed);
        let mut liar = Random::new(random.bits());
        let mut known = Known {
            node: rig.look_up("file")?,
            ..Known::default()
        };
        known.looked_up.push(known.node);
        rig.fs.lie(move |question| made_up(&mut liar, question));
        for number in 0..count {
            let asked = ask(&mut rig, &mut random, &mut known);
            asked.with_context(|| format!("request {number} of {caching:?}"))?;
            rig.fs.is_serving()?;
        }
        rig.client().getattr(ROOT)?;
        rig.fs.lie(|_| Told::Honestly);
        known.close(rig.client())?;
        known.close_listing(rig.client())?;
        for node in known.looked_up {
            rig.session.hiprio.forget(node, 1)?;
        }
        rig.finish_unharmed()?;
    }
    Ok(())
}
