//! Chains of descriptors as no driver writes them: a bad one is given back with length 0, and the next one is
//! served.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::{
    Descriptor, INDIRECT, LIMIT, NEXT, RingRig, Scribbler, Target, WRITE, chained, readable,
    writable,
};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::ROOT;
use zerocopy::IntoBytes;

const SIZE: u16 = RingRig::SIZE;
const ASKED: u32 = RingRig::ASKED;
const ANSWERED: u32 = RingRig::ANSWERED;
const MIB: u64 = 1 << 20;

#[test]
fn q_descriptors_that_loop_or_leave_the_table_are_given_back_empty() -> Result<()> {
    let rig = RingRig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let link = |descriptor: Descriptor, next| Descriptor {
        flags: descriptor.flags | NEXT,
        next,
        ..descriptor
    };
    let asked = readable(ask, ASKED);
    let answer = writable(reply, ANSWERED);
    let long: Vec<Descriptor> = (0..SIZE).map(|_| readable(ask, 1)).collect();
    let mut endless = chained(&long);
    endless[usize::from(SIZE) - 1] = link(readable(ask, 1), 0);
    rig.chains(&[
        ("to itself", vec![link(asked, 0)], 0),
        ("in a circle", vec![link(asked, 1), link(answer, 0)], 0),
        ("behind the table", vec![link(asked, SIZE)], 0),
        ("far behind the table", vec![link(asked, u16::MAX)], 0),
        ("all of the table and round again", endless, 0),
        (
            "unknown flags",
            chained(&[
                asked,
                Descriptor {
                    flags: WRITE | 0xfff8,
                    ..answer
                },
            ]),
            ANSWERED,
        ),
    ])
}

#[test]
fn q_buffers_outside_guest_memory_are_refused_and_adjacent_regions_are_one() -> Result<()> {
    let rig = RingRig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let border = 4160 * MIB;
    let bytes = rig.scribbler.memory().bytes(ask, 64);
    rig.scribbler.memory().write(border - 20, &bytes[..56]);
    let table = |asked, answered| chained(&[asked, answered]);
    let asked = readable(ask, ASKED);
    let answer = writable(reply, ANSWERED);
    let empty = table(readable(border - 20, 0), readable(ask, ASKED));
    let mut with_empty = empty;
    with_empty.push(writable(reply, 0));
    with_empty.push(answer);
    let nothing = vec![readable(ask, 0)];
    rig.chains(&[
        ("below all", table(readable(0, ASKED), answer), 0),
        ("in the hole", table(readable(4250 * MIB, ASKED), answer), 0),
        (
            "into the hole",
            table(readable(4224 * MIB - 8, ASKED), answer),
            0,
        ),
        ("behind all", table(readable(4364 * MIB, ASKED), answer), 0),
        (
            "the last address",
            table(readable(u64::MAX, ASKED), answer),
            0,
        ),
        (
            "round the end",
            table(readable(u64::MAX - 7, ASKED), answer),
            0,
        ),
        ("4 GiB less one", table(readable(ask, u32::MAX), answer), 0),
        (
            "a reply of 4 GiB",
            table(asked, writable(reply, u32::MAX)),
            0,
        ),
        ("a reply nowhere", table(asked, writable(8, ANSWERED)), 0),
        (
            "a reply half in the hole",
            table(asked, writable(4224 * MIB - 8, ANSWERED)),
            0,
        ),
        (
            "across adjacent regions",
            table(asked, writable(border - 20, ANSWERED)),
            ANSWERED,
        ),
        ("empty buffers between", chained(&with_empty), ANSWERED),
        ("nothing but an empty buffer", nothing, 0),
    ])
}

#[test]
fn q_chains_in_the_wrong_order_or_too_short_are_given_back_empty() -> Result<()> {
    let rig = RingRig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let asked = readable(ask, ASKED);
    let answer = writable(reply, ANSWERED);
    rig.chains(&[
        ("writable first", chained(&[answer, asked]), 0),
        (
            "readable between",
            chained(&[asked, answer, readable(ask, 8), answer]),
            0,
        ),
        ("none readable", chained(&[answer, answer]), 0),
        ("39 bytes", chained(&[readable(ask, 39), answer]), 0),
        ("1 byte", chained(&[readable(ask, 1), answer]), 0),
        // A well-formed request without room for its answer is not carried out.
        ("none writable", vec![asked], 0),
        ("1 byte of room", chained(&[asked, writable(reply, 1)]), 0),
        ("8 bytes of room", chained(&[asked, writable(reply, 8)]), 0),
        (
            "15 bytes of room",
            chained(&[asked, writable(reply, 15)]),
            0,
        ),
        // A header fits: EINVAL.
        (
            "16 bytes of room",
            chained(&[asked, writable(reply, 16)]),
            16,
        ),
        (
            "a byte too few",
            chained(&[asked, writable(reply, ANSWERED - 1)]),
            16,
        ),
        ("the room it takes", chained(&[asked, answer]), ANSWERED),
        (
            "more room",
            chained(&[asked, writable(reply, 4096)]),
            ANSWERED,
        ),
    ])
}

#[test]
fn q_requests_in_one_byte_descriptors_are_served() -> Result<()> {
    let rig = RingRig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let mut bytes: Vec<Descriptor> = (0..u64::from(ASKED))
        .map(|at| readable(ask + at, 1))
        .collect();
    bytes.extend((0..u64::from(ANSWERED)).map(|at| writable(reply + at, 1)));
    rig.chains(&[("one byte each", chained(&bytes), ANSWERED)])
}

#[test]
fn q_buffers_that_overlap_harm_nobody_but_the_guest() -> Result<()> {
    let mut rig = RingRig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    rig.scribbler.write_request(&Request::getattr(ROOT, None));
    // The reply over the request, and twice over itself.
    let over = chained(&[readable(ask, ASKED), writable(ask, ANSWERED)]);
    ensure!(rig.scribbler.chain(&over)? == ANSWERED);
    rig.scribbler.write_request(&Request::getattr(ROOT, None));
    let twice = [
        readable(ask, ASKED),
        writable(reply, 60),
        writable(reply, 60),
    ];
    ensure!(rig.scribbler.chain(&chained(&twice))? == ANSWERED);
    // Over the descriptor table: it is read before, and written anew after.
    rig.scribbler.write_request(&Request::getattr(ROOT, None));
    let table = rig.scribbler.queue.addresses().descriptors;
    let own = chained(&[readable(ask, ASKED), writable(table, ANSWERED)]);
    ensure!(rig.scribbler.chain(&own)? == ANSWERED);
    rig.scribbler.is_served()?;
    rig.finish()
}

#[test]
fn q_indirect_tables_nested_empty_misaligned_huge_and_looping_are_refused() -> Result<()> {
    let rig = RingRig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let memory = Arc::clone(rig.scribbler.memory());
    let good = chained(&[readable(ask, ASKED), writable(reply, ANSWERED)]);
    let place = |table: &[Descriptor]| -> Result<u64> {
        let at = memory.allocate(MIB, 4096)?;
        memory.write(at, table.as_bytes());
        Ok(at)
    };
    let good_at = place(&good)?;
    let indirect = |at, len| Descriptor {
        flags: INDIRECT,
        ..readable(at, len)
    };
    let nested_at = place(&[indirect(good_at, 32)])?;
    let mut looping = good.clone();
    looping[1] = Descriptor {
        flags: NEXT | WRITE,
        next: 0,
        ..looping[1]
    };
    let looping_at = place(&looping)?;
    let mut beyond = good.clone();
    beyond[0].next = 2;
    let beyond_at = place(&beyond)?;
    let own_table = rig.scribbler.queue.addresses().descriptors;
    let many = chained(&vec![readable(ask, 1); 65_535]);
    let many_at = place(&many)?;
    memory.write(good_at + 8 * 4096 + 4, good.as_bytes());
    rig.chains(&[
        ("well-formed", vec![indirect(good_at, 32)], ANSWERED),
        (
            "at an odd address",
            vec![indirect(good_at + 8 * 4096 + 4, 32)],
            ANSWERED,
        ),
        (
            "longer than its chain",
            vec![indirect(good_at, 4096)],
            ANSWERED,
        ),
        (
            "with the flag to write",
            vec![Descriptor {
                flags: INDIRECT | WRITE,
                ..readable(good_at, 32)
            }],
            ANSWERED,
        ),
        ("empty", vec![indirect(good_at, 0)], 0),
        ("half a descriptor", vec![indirect(good_at, 8)], 0),
        ("a descriptor and a half", vec![indirect(good_at, 24)], 0),
        ("4 GiB", vec![indirect(good_at, 0xffff_fff0)], 0),
        ("nowhere", vec![indirect(8, 32)], 0),
        ("round the end", vec![indirect(u64::MAX - 15, 32)], 0),
        ("nested", vec![indirect(nested_at, 16)], 0),
        ("itself", vec![indirect(own_table, 16)], 0),
        ("looping", vec![indirect(looping_at, 32)], 0),
        ("out of its table", vec![indirect(beyond_at, 32)], 0),
        ("65535 pieces", vec![indirect(many_at, 16 * 65_535)], 0),
        (
            "something behind",
            chained(&[indirect(good_at, 32), writable(reply, 8)]),
            0,
        ),
    ])
}

/// The device writes its answer over what the driver and it talk by.
#[test]
fn q_a_reply_over_the_rings_harms_nobody_but_the_guest() -> Result<()> {
    for which in ["available", "used"] {
        let mut target = Target::start()?;
        let mut scribbler = Scribbler::connect(target.socket(), &RingRig::options())?;
        scribbler.write_request(&Request::getattr(ROOT, None));
        let addresses = scribbler.queue.addresses();
        let ring = match which {
            "available" => addresses.available,
            _ => addresses.used,
        };
        let table = chained(&[
            readable(scribbler.request_at, ASKED),
            writable(ring, ANSWERED),
        ]);
        scribbler.write_table(&table);
        scribbler.queue.add_head(0);
        scribbler.queue.publish();
        // Whether the driver finds a completion there is its own affair; the ring may be broken now.
        let memory = Arc::clone(scribbler.memory());
        let deadline = Instant::now() + LIMIT;
        while memory.bytes(ring, 120)[16..].iter().all(|byte| *byte == 0) {
            ensure!(Instant::now() < deadline, "{which}: nothing was written");
        }
        drop(scribbler);
        target.is_unharmed().context(which)?;
    }
    Ok(())
}
