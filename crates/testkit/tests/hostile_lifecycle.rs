//! Connections, rings and queues that come and go: what was held is given
//! back, and a ring that goes on loses and repeats nothing.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::frontend::hostile::messages::header;
use virtiofs_testkit::frontend::message::{Code, VERSION};
use virtiofs_testkit::frontend::{Connection, MemoryMessages, Options, RegionSpec, Waiting};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request, Session};

const LIMIT: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

fn small() -> Options {
    Options {
        memory: vec![RegionSpec {
            guest_address: 4096 * MIB,
            len_bytes: 64 * MIB,
        }],
        queue_size: 64,
        ..Options::default()
    }
}

fn client() -> ClientOptions {
    ClientOptions {
        data_bytes: 64 << 10,
        ..ClientOptions::default()
    }
}

/// Ten thousand with `VIRTIOFSD_LONG=1`.
#[test]
fn v_a_thousand_front_ends_come_and_go() -> Result<()> {
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let count = if long { 10_000 } else { 1000 };
    let mut target = Target::start()?;
    for number in 0..count {
        if number % 3 == 0 {
            drop(Connection::open(target.socket(), LIMIT)?);
        } else {
            // From here on rings run; every other one leaves with requests in flight.
            let mut session = Session::open_with(target.socket(), &small(), &client())?;
            let client = session.client();
            if number % 2 == 0 {
                client.start(&Request::getattr(ROOT, None))?;
                client.publish();
            }
        }
    }
    target.is_unharmed()
}

#[test]
fn v_a_second_client_is_served_after_the_first() -> Result<()> {
    let mut target = Target::start()?;
    let mut first = Session::open_with(target.socket(), &small(), &client())?;
    let second = Connection::open(target.socket(), LIMIT)?;
    second.send(Code::GetFeatures, 0, &[], &[])?;
    second.limit(Duration::from_millis(200))?;
    ensure!(second.receive().is_err(), "two at once");
    for _ in 0..100 {
        first.client().getattr(ROOT)?;
    }
    drop(first);
    second.limit(LIMIT)?;
    second.receive().context("the second waits for ever")?;
    drop(second);
    target.is_unharmed()
}

#[test]
fn as_many_queues_as_the_daemon_says_are_served_at_once() -> Result<()> {
    let mut target = Target::start()?;
    let most: u64 = Connection::open(target.socket(), LIMIT)?.get_value(Code::GetQueueNum, &[])?;
    let options = Options {
        request_queues: u16::try_from(most - 1)?,
        ..small()
    };
    let mut session = Session::open_with(target.socket(), &options, &client())?;
    ensure!(u64::try_from(session.clients.len())? == most - 1);
    // All are asked before any is listened to.
    for client in &mut session.clients {
        client.start(&Request::getattr(ROOT, None))?;
        client.publish();
    }
    for client in &mut session.clients {
        let answer = client.finish()?;
        client.check(&answer)?;
    }
    for client in &mut session.clients {
        for _ in 0..20 {
            client.getattr(ROOT)?;
        }
    }
    drop(session);
    target.is_unharmed()
}

#[test]
fn rings_of_every_size_are_served_past_their_end() -> Result<()> {
    let mut target = Target::start()?;
    for queue_size in [8, 64, 1024, 4096, 32_768] {
        let options = Options {
            queue_size,
            ..Options::default()
        };
        let client = ClientOptions {
            depth: 4,
            data_bytes: 4096,
            waiting: Waiting::Spin,
            ..ClientOptions::default()
        };
        let mut session = Session::open_with(target.socket(), &options, &client)?;
        // Round the ring, and round the 16 bits of its index.
        let rounds = if queue_size == 1024 {
            70_000
        } else {
            u32::from(queue_size) + 100
        };
        let client = session.client();
        for _ in 0..rounds / 4 {
            for _ in 0..4 {
                client.start(&Request::getattr(ROOT, None))?;
            }
            client.publish();
            for _ in 0..4 {
                let answer = client
                    .finish()
                    .with_context(|| format!("ring of {queue_size}"))?;
                client.check(&answer)?;
            }
        }
    }
    target.is_unharmed()
}

/// Counts GETATTRs that a thread of its own sends for as long as it is told.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Result<FuseClient>>,
}

impl Load {
    fn on(session: &mut Session) -> Result<Self> {
        ensure!(!session.clients.is_empty());
        let mut client = session.clients.remove(0);
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for _ in 0..8 {
                    client.start(&Request::getattr(ROOT, None))?;
                }
                client.publish();
                for _ in 0..8 {
                    let answer = client.finish()?;
                    client.check(&answer)?;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(client)
        });
        Ok(Self {
            stop,
            served,
            thread,
        })
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Ends it; every request that was sent must have been answered.
    fn finish(self) -> Result<FuseClient> {
        self.stop.store(true, Ordering::Relaxed);
        let client = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))?;
        client.context("under load")
    }
}

fn loaded(target: &Target) -> Result<Session> {
    let client = ClientOptions {
        depth: 8,
        data_bytes: 4096,
        ..ClientOptions::default()
    };
    Session::open_with(target.socket(), &small(), &client)
}

#[test]
fn v_rings_are_enabled_and_disabled_under_load_and_lose_nothing() -> Result<()> {
    let mut target = Target::start()?;
    let mut session = loaded(&target)?;
    let load = Load::on(&mut session)?;
    for _ in 0..5000 {
        session.frontend.enable_ring(1, false)?;
        session.frontend.enable_ring(1, true)?;
    }
    ensure!(load.served() > 0);
    load.finish()?;
    drop(session);
    target.is_unharmed()
}

#[test]
fn v_memory_tables_are_replaced_under_load_and_lose_nothing() -> Result<()> {
    let mut target = Target::start()?;
    let mut session = loaded(&target)?;
    let load = Load::on(&mut session)?;
    let started = Instant::now();
    for _ in 0..1000 {
        session.frontend.share_memory(MemoryMessages::Table)?;
    }
    println!("1000 tables under load: {:?}", started.elapsed());
    ensure!(load.served() > 0);
    load.finish()?;
    drop(session);
    target.is_unharmed()
}

#[test]
fn v_memory_slots_come_and_go_under_load() -> Result<()> {
    use zerocopy::IntoBytes;
    let mut target = Target::start()?;
    let mut session = loaded(&target)?;
    let load = Load::on(&mut session)?;
    let extra = virtiofs_testkit::frontend::GuestMemory::new(&[RegionSpec {
        guest_address: 8192 * MIB,
        len_bytes: MIB,
    }])?;
    let region = &extra.regions()[0];
    let payload = [0_u64.as_bytes(), region.message.as_bytes()].concat();
    let connection = session.frontend.connection();
    for _ in 0..1000 {
        connection.set(Code::AddMemReg, &payload, &[region.file()])?;
        connection.set(Code::RemMemReg, &payload, &[])?;
    }
    load.finish()?;
    drop(session);
    target.is_unharmed()
}

#[test]
fn a_stopped_ring_resumes_where_it_stood() -> Result<()> {
    let mut target = Target::start()?;
    let mut session = Session::open_with(target.socket(), &small(), &client())?;
    let mut want = session.client().queue().base();
    for round in 0..500_u16 {
        let base = session.frontend.stop_ring(1)?;
        ensure!(base == u32::from(want), "round {round}: {base}, not {want}");
        // What is offered while the ring stands still is served when it goes on.
        let client = &mut session.clients[0];
        let unique = client.start(&Request::getattr(ROOT, None))?;
        client.publish();
        session.frontend.start_ring(1, client.queue())?;
        let answer = client.finish().with_context(|| format!("round {round}"))?;
        ensure!(answer.unique == unique);
        client.check(&answer)?;
        for _ in 0..round % 200 {
            client.getattr(ROOT)?;
        }
        want = want.wrapping_add(1 + round % 200);
    }
    drop(session);
    target.is_unharmed()
}

#[test]
fn a_reset_device_is_a_new_one() -> Result<()> {
    let mut target = Target::start()?;
    let mut session = Session::open_with(target.socket(), &small(), &client())?;
    for _ in 0..200 {
        let client = &mut session.clients[0];
        let node = client.lookup(ROOT, "file")?.nodeid;
        client.open(node, 0)?;
        session.frontend.reset_device()?;
        session.frontend.start_ring(1, client.queue())?;
        let before_init = client.getattr(ROOT);
        ensure!(before_init.is_err(), "the session outlived the reset");
        client.init()?;
        ensure!(client.getattr(node).is_err(), "a node outlived the reset");
    }
    drop(session);
    target.is_unharmed()
}

#[test]
fn v_kicks_without_a_descriptor_are_refused_and_the_ring_runs_on() -> Result<()> {
    use virtiofs_testkit::frontend::message::NO_DESCRIPTOR;
    use zerocopy::IntoBytes;
    let mut target = Target::start()?;
    let mut session = Session::open_with(target.socket(), &small(), &client())?;
    let raw = 1 | NO_DESCRIPTOR;
    let connection = session.frontend.connection();
    ensure!(
        connection
            .set(Code::SetVringKick, raw.as_bytes(), &[])
            .is_err()
    );
    session.client().getattr(ROOT)?;
    drop(session);
    target.is_unharmed()
}

#[test]
fn v_a_peer_that_never_reads_loses_its_connection() -> Result<()> {
    let mut target = Target::start()?;
    let connection = Connection::open(target.socket(), LIMIT)?;
    connection.limit(Duration::from_secs(30))?;
    let many: Vec<u8> = header(1, VERSION, 0).repeat(1000);
    // Ends when the daemon closes: until then both directions fill up.
    let ended = (0..100_000).any(|_| connection.stream().write_all(&many).is_err());
    ensure!(ended, "a million replies were kept for it");
    target.is_unharmed()
}
