//! Rings as no driver writes them. A bad chain is given back with length 0
//! and the next one is served; a broken ring stops, says so, and the daemon
//! takes the next front-end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{can_mount, skipped};
use virtiofs_testkit::frontend::hostile::{
    Descriptor, INDIRECT, NEXT, Scribbler, Target, WRITE, chained, readable, writable,
};
use virtiofs_testkit::frontend::message::feature;
use virtiofs_testkit::frontend::{Options, RegionSpec, Waiting};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{EntryOut, OpenOut, ROOT};
use virtiofs_testkit::slowfs::{FILE, SlowFs};
use zerocopy::IntoBytes;

const SIZE: u16 = 256;
/// GETATTR: header and arguments, header and answer.
const ASKED: u32 = 56;
const ANSWERED: u32 = 120;
const MIB: u64 = 1 << 20;

/// Two regions side by side, a hole, and one more.
fn options() -> Options {
    let region = |guest_address, len_bytes| RegionSpec {
        guest_address,
        len_bytes,
    };
    Options {
        memory: vec![
            region(4096 * MIB, 64 * MIB),
            region(4160 * MIB, 64 * MIB),
            region(4300 * MIB, 64 * MIB),
        ],
        queue_size: SIZE,
        ..Options::default()
    }
}

struct Rig {
    target: Target,
    scribbler: Scribbler,
}

impl Rig {
    fn new() -> Result<Self> {
        let target = Target::start()?;
        let scribbler = Scribbler::connect(target.socket(), &options())?;
        Ok(Self { target, scribbler })
    }

    /// Each case is a table whose chain at index 0 must come back with that
    /// length; after each, a well-formed request is served.
    fn chains(mut self, cases: &[(&str, Vec<Descriptor>, u32)]) -> Result<()> {
        for (what, table, want) in cases {
            let scribbler = &mut self.scribbler;
            scribbler.write_request(&Request::getattr(ROOT, None));
            let written = scribbler.chain(table).with_context(|| what.to_string())?;
            ensure!(written == *want, "{what}: {written} bytes");
            scribbler.is_served().with_context(|| what.to_string())?;
        }
        self.finish()
    }

    fn finish(mut self) -> Result<()> {
        drop(self.scribbler);
        self.target.is_unharmed()
    }
}

#[test]
fn q_descriptors_that_loop_or_leave_the_table_are_given_back_empty() -> Result<()> {
    let rig = Rig::new()?;
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
fn q_heads_that_are_not_in_the_table_are_given_back() -> Result<()> {
    let mut rig = Rig::new()?;
    for head in [SIZE, SIZE + 1, 0x8000, u16::MAX] {
        // The driver's own bookkeeping knows no such head: look at the ring.
        let addresses = rig.scribbler.queue.addresses();
        let memory = Arc::clone(rig.scribbler.memory());
        let before = memory
            .atomic_u16(addresses.used + 2)
            .load(Ordering::Acquire);
        rig.scribbler.queue.add_head(head);
        rig.scribbler.queue.publish();
        let deadline = Instant::now() + Duration::from_secs(10);
        while memory
            .atomic_u16(addresses.used + 2)
            .load(Ordering::Acquire)
            == before
        {
            ensure!(Instant::now() < deadline, "head {head} is not given back");
        }
        let entry = addresses.used + 4 + 8 * u64::from(before % SIZE);
        let given_back: [u32; 2] = memory.load(entry);
        ensure!(given_back == [u32::from(head), 0], "{given_back:?}");
        // A new driver for the rest of the test: this one would not believe it.
        rig.scribbler = Scribbler::connect_after(rig.scribbler, rig.target.socket(), &options())?;
    }
    rig.scribbler.is_served()?;
    rig.finish()
}

#[test]
fn q_buffers_outside_guest_memory_are_refused_and_adjacent_regions_are_one() -> Result<()> {
    let rig = Rig::new()?;
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
    let rig = Rig::new()?;
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
    let rig = Rig::new()?;
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let mut bytes: Vec<Descriptor> = (0..u64::from(ASKED))
        .map(|at| readable(ask + at, 1))
        .collect();
    bytes.extend((0..u64::from(ANSWERED)).map(|at| writable(reply + at, 1)));
    rig.chains(&[("one byte each", chained(&bytes), ANSWERED)])
}

#[test]
fn q_buffers_that_overlap_harm_nobody_but_the_guest() -> Result<()> {
    let mut rig = Rig::new()?;
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
    let rig = Rig::new()?;
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

/// Breaks the ring and expects the daemon to say so once and to live.
fn broken(what: &str, breaks: impl FnOnce(&mut Scribbler)) -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &options())?;
    breaks(&mut scribbler);
    ensure!(scribbler.is_broken(), "{what}: no error is signalled");
    let lines = target.log().matches("a queue is broken").count();
    ensure!(lines == 1, "{what}: {lines} lines: {}", target.log());
    // The other queues of the connection, and the connection, live.
    ensure!(scribbler.frontend.config(0, 36).is_ok() || target.daemon().is_running());
    drop(scribbler);
    target.is_unharmed().with_context(|| what.to_owned())
}

#[test]
fn q_an_available_index_that_jumps_breaks_the_ring_alone() -> Result<()> {
    for ahead in [SIZE + 1, SIZE * 2, 0x8000] {
        broken("ahead", |scribbler| {
            let base = scribbler.queue.base();
            scribbler.queue.jump_to(base.wrapping_add(ahead));
        })?;
    }
    broken("backwards", |scribbler| {
        let base = scribbler.queue.base();
        scribbler.queue.jump_to(base.wrapping_sub(1));
    })
}

#[test]
fn q_a_broken_ring_is_served_again_after_it_was_set_up_anew() -> Result<()> {
    let mut rig = Rig::new()?;
    let base = rig.scribbler.queue.base();
    rig.scribbler.queue.jump_to(base.wrapping_sub(1));
    ensure!(rig.scribbler.is_broken());
    let stopped_at = rig.scribbler.frontend.stop_ring(1)?;
    ensure!(stopped_at == u32::from(base), "{stopped_at}");
    rig.scribbler.queue.jump_to(base);
    rig.scribbler.frontend.start_ring(1, &rig.scribbler.queue)?;
    rig.scribbler.is_served()?;
    rig.finish()
}

#[test]
fn q_the_same_head_many_times_is_answered_as_many_times() -> Result<()> {
    let mut rig = Rig::new()?;
    let (len, _) = rig.scribbler.write_request(&Request::getattr(ROOT, None));
    let (ask, reply) = (rig.scribbler.request_at, rig.scribbler.reply_at);
    let table = chained(&[readable(ask, len), writable(reply, ANSWERED)]);
    rig.scribbler.write_table(&table);
    let addresses = rig.scribbler.queue.addresses();
    let memory = Arc::clone(rig.scribbler.memory());
    let used = || {
        memory
            .atomic_u16(addresses.used + 2)
            .load(Ordering::Acquire)
    };
    let before = used();
    for _ in 0..SIZE {
        rig.scribbler.queue.add_head(0);
    }
    rig.scribbler.queue.publish();
    let deadline = Instant::now() + Duration::from_secs(10);
    while used().wrapping_sub(before) < SIZE {
        ensure!(Instant::now() < deadline, "{} of {SIZE}", used());
    }
    rig.finish()
}

#[test]
fn q_a_head_that_is_in_flight_and_offered_again_breaks_the_ring() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let (mut target, slow) = Target::start_on(&[], |share| {
        let mountpoint = share.join("slow");
        std::fs::create_dir(&mountpoint)?;
        SlowFs::mount(&mountpoint)
    })?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    ensure!(scribbler.error_of(&Request::lookup(ROOT, b"slow"))? == 0);
    let directory = scribbler.body::<EntryOut>().nodeid;
    ensure!(scribbler.error_of(&Request::lookup(directory, FILE.as_bytes()))? == 0);
    let node = scribbler.body::<EntryOut>().nodeid;
    ensure!(scribbler.error_of(&Request::open(node, 0))? == 0);
    let fh = scribbler.body::<OpenOut>().fh;
    let (len, _) = scribbler.write_request(&Request::read(node, fh, 0, 4096));
    scribbler.write_table(&chained(&[
        readable(scribbler.request_at, len),
        writable(scribbler.reply_at, 16 + 4096),
    ]));
    scribbler.queue.add_head(0);
    scribbler.queue.publish();
    slow.wait_for_held(1, Duration::from_secs(10))?;
    scribbler.queue.add_head(0);
    scribbler.queue.publish();
    ensure!(scribbler.is_broken(), "it would be parked without end");
    ensure!(target.log().contains("available again"), "{}", target.log());
    slow.release();
    ensure!(scribbler.completion()?.written_bytes == 16 + 4096);
    drop((scribbler, slow));
    target.is_unharmed()
}

#[test]
fn q_a_kick_storm_is_survived() -> Result<()> {
    let mut rig = Rig::new()?;
    for round in 0..200_000_u32 {
        rig.scribbler.queue.kick();
        if round % 20_000 == 0 {
            rig.scribbler.is_served()?;
        }
    }
    rig.scribbler.is_served()?;
    rig.finish()
}

/// A guest that rewrites everything while it is read: whatever happens, the
/// daemon lives, and what it says about a queue is that it is broken.
#[test]
fn q_a_guest_that_rewrites_ring_and_request_all_the_time_is_survived() -> Result<()> {
    let mut target = Target::start()?;
    for seed in 1..=4_u64 {
        let mut scribbler = Scribbler::connect(target.socket(), &options())?;
        let (len, _) = scribbler.write_request(&Request::getattr(ROOT, None));
        let (ask, reply) = (scribbler.request_at, scribbler.reply_at);
        let good = chained(&[readable(ask, len), writable(reply, ANSWERED)]);
        scribbler.write_table(&good);
        let stop = Arc::new(AtomicBool::new(false));
        let rewriting = std::thread::spawn({
            let (memory, stop) = (Arc::clone(scribbler.memory()), Arc::clone(&stop));
            let table = scribbler.queue.addresses().descriptors;
            move || rewrite(&memory, [table, ask], seed, &stop)
        });
        let memory = Arc::clone(scribbler.memory());
        let addresses = scribbler.queue.addresses();
        let deadline = Instant::now() + Duration::from_millis(1500);
        let mut offered = memory
            .atomic_u16(addresses.available + 2)
            .load(Ordering::Acquire);
        while Instant::now() < deadline {
            let used = memory
                .atomic_u16(addresses.used + 2)
                .load(Ordering::Acquire);
            if offered.wrapping_sub(used) < SIZE / 2 {
                offered = offered.wrapping_add(1);
                scribbler.queue.jump_to(offered);
            }
        }
        stop.store(true, Ordering::Relaxed);
        rewriting.join().expect("the rewriting thread");
        drop(scribbler);
        ensure!(
            target.daemon().is_running(),
            "seed {seed}: {}",
            target.log()
        );
    }
    target.is_unharmed()
}

/// Alternates fields of descriptors and of the request between good and bad.
fn rewrite(
    memory: &virtiofs_testkit::frontend::GuestMemory,
    [table, ask]: [u64; 2],
    seed: u64,
    stop: &AtomicBool,
) {
    let mut state = seed;
    let good: [u8; 32] = memory.load(table);
    let request: [u8; 56] = memory.load(ask);
    while !stop.load(Ordering::Relaxed) {
        // xorshift64: the seed is in the test.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [place, byte, which, ..] = state.to_le_bytes();
        if which % 2 == 0 {
            let mut bad = good;
            bad[usize::from(place) % 32] = byte;
            memory.write(table, &bad);
            memory.write(table, &good);
        } else {
            let mut bad = request;
            // Not the opcode: DESTROY and the like would only end the noise.
            let at = [0, 1, 2, 3, 16, 17, 24, 36, 40][usize::from(place) % 9];
            bad[at] = byte;
            memory.write(ask, &bad);
            memory.write(ask, &request);
        }
    }
}

#[test]
fn q_rings_without_event_index_behave_the_same() -> Result<()> {
    let mut target = Target::start()?;
    let options = Options {
        features: feature::VERSION_1 | feature::PROTOCOL_FEATURES,
        ..options()
    };
    let mut scribbler = Scribbler::connect(target.socket(), &options)?;
    for _ in 0..1000 {
        scribbler.is_served()?;
    }
    let bad = [Descriptor {
        flags: NEXT,
        next: u16::MAX,
        ..readable(8, 8)
    }];
    ensure!(scribbler.chain(&bad)? == 0);
    scribbler.is_served()?;
    ensure!(
        scribbler
            .queue
            .wait(Waiting::Spin, Duration::from_millis(1))
            .is_none()
    );
    drop(scribbler);
    target.is_unharmed()
}
