//! Rings as no driver writes them: one that is broken stops alone and says so, and the daemon takes the next
//! front-end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{can_mount, skipped};
use virtiofs_testkit::frontend::hostile::{
    Descriptor, NEXT, RingRig, Scribbler, Target, chained, readable, writable,
};
use virtiofs_testkit::frontend::message::feature;
use virtiofs_testkit::frontend::{Options, Waiting};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{EntryOut, OpenOut, ROOT};
use virtiofs_testkit::slowfs::{FILE, SlowFs};

const SIZE: u16 = RingRig::SIZE;
const ANSWERED: u32 = RingRig::ANSWERED;

#[test]
fn q_heads_that_are_not_in_the_table_are_given_back() -> Result<()> {
    let mut rig = RingRig::new()?;
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
        rig.scribbler =
            Scribbler::connect_after(rig.scribbler, rig.target.socket(), &RingRig::options())?;
    }
    rig.scribbler.is_served()?;
    rig.finish()
}

/// Breaks the ring and expects the daemon to say so once and to live.
fn broken(what: &str, breaks: impl FnOnce(&mut Scribbler)) -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &RingRig::options())?;
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
    let mut rig = RingRig::new()?;
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
    let mut rig = RingRig::new()?;
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
    let mut rig = RingRig::new()?;
    for round in 0..200_000_u32 {
        rig.scribbler.queue.kick();
        if round % 20_000 == 0 {
            rig.scribbler.is_served()?;
        }
    }
    rig.scribbler.is_served()?;
    rig.finish()
}

/// How often a guest rewrites what is read; with `VIRTIOFSD_LONG=1` as often for each of ten seeds.
const REWRITES: u64 = 10_000_000;

/// A guest that rewrites everything while it is read: whatever happens, the
/// daemon lives, and what it says about a queue is that it is broken.
#[test]
fn q_a_guest_that_rewrites_ring_and_request_all_the_time_is_survived() -> Result<()> {
    let mut target = Target::start()?;
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let (least, seeds) = if long {
        (REWRITES, 10)
    } else {
        (REWRITES / 4, 4)
    };
    for seed in 1..=seeds {
        let rewrites = Arc::new(AtomicU64::new(0));
        let mut scribbler = Scribbler::connect(target.socket(), &RingRig::options())?;
        let (len, _) = scribbler.write_request(&Request::getattr(ROOT, None));
        let (ask, reply) = (scribbler.request_at, scribbler.reply_at);
        let good = chained(&[readable(ask, len), writable(reply, ANSWERED)]);
        scribbler.write_table(&good);
        let stop = Arc::new(AtomicBool::new(false));
        let rewriting = std::thread::spawn({
            let (memory, stop) = (Arc::clone(scribbler.memory()), Arc::clone(&stop));
            let (table, rewrites) = (
                scribbler.queue.addresses().descriptors,
                Arc::clone(&rewrites),
            );
            move || rewrite(&memory, [table, ask], (seed, &rewrites), &stop)
        });
        let memory = Arc::clone(scribbler.memory());
        let addresses = scribbler.queue.addresses();
        let deadline = Instant::now() + Duration::from_millis(1500);
        let mut offered = memory
            .atomic_u16(addresses.available + 2)
            .load(Ordering::Acquire);
        while Instant::now() < deadline || rewrites.load(Ordering::Relaxed) < least {
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
    (seed, rewrites): (u64, &AtomicU64),
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
        rewrites.fetch_add(1, Ordering::Relaxed);
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
        ..RingRig::options()
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

/// The driver moves the index while the device finishes what it had begun.
#[test]
fn q_an_available_index_that_jumps_while_the_ring_is_stopped_is_survived() -> Result<()> {
    let mut rig = RingRig::new()?;
    for round in 0..100_u16 {
        let base = rig.scribbler.queue.base();
        let stop = AtomicBool::new(false);
        let memory = Arc::clone(rig.scribbler.memory());
        let index = rig.scribbler.queue.addresses().available + 2;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut jump = round;
                while !stop.load(Ordering::Relaxed) {
                    jump = jump.wrapping_mul(25_173).wrapping_add(13_849);
                    memory.atomic_u16(index).store(jump, Ordering::Release);
                }
            });
            rig.scribbler.queue.kick();
            let stopped = rig.scribbler.frontend.stop_ring(1);
            stop.store(true, Ordering::Relaxed);
            stopped
        })
        .with_context(|| format!("round {round}"))?;
        // A new driver: this one's bookkeeping knows nothing of what was offered in its name.
        memory.atomic_u16(index).store(base, Ordering::Release);
        rig.scribbler =
            Scribbler::connect_after(rig.scribbler, rig.target.socket(), &RingRig::options())?;
        rig.scribbler.is_served()?;
    }
    rig.finish()
}
