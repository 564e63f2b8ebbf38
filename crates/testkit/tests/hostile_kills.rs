//! Ends that nobody announces: of the daemon, of the monitor, of a connection with its queue full, and of
//! a guest that starts again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use virtiofs_testkit::bridge::share::{can_mount, skipped};
use virtiofs_testkit::frontend::hostile::{Holdings, Target};
use virtiofs_testkit::frontend::{Launch, Options, Waiting};
use virtiofs_testkit::fuse::abi::{self, ROOT};
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request, Session};

const LIMIT: Duration = Duration::from_secs(20);
const O_RDWR: u32 = 2;

/// Makes files until the daemon is gone; how many were acknowledged, contents and all.
fn make_until_killed(client: &mut FuseClient, round: u32) -> u32 {
    let mut acknowledged = 0;
    loop {
        let name = format!("{round}-{acknowledged}");
        let made = client.create(ROOT, &name, O_RDWR, 0o644);
        let Ok(made) = made else { return acknowledged };
        let (node, fh) = (made.entry.nodeid, made.open.fh);
        let written = client.write(node, fh, 0, name.as_bytes());
        if written.ok() != u32::try_from(name.len()).ok() {
            return acknowledged;
        }
        acknowledged += 1;
        if client.release(node, fh).is_err() {
            return acknowledged;
        }
    }
}

#[test]
fn k_a_daemon_that_is_killed_loses_nothing_that_it_acknowledged() -> Result<()> {
    let share = tempfile::tempdir()?;
    let mut all = 0;
    for round in 0..30 {
        let mut daemon = Launch::new(share.path()).start()?;
        let options = ClientOptions {
            data_bytes: 4096,
            ..ClientOptions::default()
        };
        let mut session = Session::open_with(daemon.socket(), &Options::default(), &options)?;
        let mut client = session.clients.pop().context("a client")?;
        // Once it is dead nothing is answered any more.
        client.set_waiting(Waiting::Sleep, Duration::from_millis(100));
        let worker = std::thread::spawn(move || make_until_killed(&mut client, round));
        std::thread::sleep(Duration::from_micros(u64::from(round * round) * 37));
        daemon.signal(Signal::KILL)?;
        daemon.exit(LIMIT)?;
        ensure!(session.frontend.connection().is_closed_by_peer()?);
        let acknowledged = worker.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        for number in 0..acknowledged {
            let name = format!("{round}-{number}");
            let contents = fs::read(share.path().join(&name)).with_context(|| name.clone())?;
            ensure!(contents == name.as_bytes(), "{name}: {contents:?}");
        }
        all += acknowledged;
    }
    println!("{all} files");
    // A guest that mounts again finds them.
    let daemon = Launch::new(share.path()).start()?;
    let mut session = Session::open(daemon.socket())?;
    let listed = session.client().list(ROOT)?.len();
    ensure!(
        listed >= usize::try_from(all)? && all > 100,
        "{listed} of {all}"
    );
    Ok(())
}

/// A mount of the bridge program, which is killed and not told.
struct Monitor(Child);

impl Monitor {
    fn start(socket: &Path, mountpoint: &Path) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuse-bridge"));
        command.arg(socket).arg(mountpoint).stdout(Stdio::null());
        let monitor = Self(command.stdin(Stdio::null()).spawn()?);
        let deadline = Instant::now() + LIMIT;
        while !mountpoint.join("file").exists() {
            ensure!(Instant::now() < deadline, "never mounted");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(monitor)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps requests of several kinds in flight.
fn load(place: &Path, number: u32, stop: &AtomicBool) {
    let block = vec![b'x'; 256 << 10];
    while !stop.load(Ordering::Relaxed) {
        let path = place.join(format!("load-{number}"));
        let worked = File::create(&path)
            .and_then(|mut file| file.write_all(&block).and_then(|()| file.sync_all()))
            .and_then(|()| fs::read(&path).map(drop));
        if worked.is_err() {
            // The mount has lost its server.
            return;
        }
    }
}

#[test]
fn k_a_monitor_that_is_killed_in_mid_request_leaves_nothing() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let mut target = Target::start()?;
    for round in 0..20_u64 {
        let mountpoint = tempfile::tempdir()?;
        let mut monitor = Monitor::start(target.socket(), mountpoint.path())?;
        let stop = AtomicBool::new(false);
        let killed = std::thread::scope(|scope| {
            for number in 0..3 {
                let (place, stop) = (mountpoint.path(), &stop);
                scope.spawn(move || load(place, number, stop));
            }
            std::thread::sleep(Duration::from_millis(5 + round * 3));
            let killed = monitor.0.kill().and_then(|()| monitor.0.wait());
            stop.store(true, Ordering::Relaxed);
            // What waits for an answer is told that none will come.
            let detached = unmount(
                mountpoint.path(),
                UnmountFlags::DETACH | UnmountFlags::FORCE,
            );
            killed.map(|_| detached)
        });
        killed?.context("unmount")?;
    }
    target.is_unharmed()
}

#[test]
fn k_a_front_end_hangs_up_with_128_requests_queued() -> Result<()> {
    let mut target = Target::start()?;
    let options = ClientOptions {
        depth: 128,
        data_bytes: 4096,
        ..ClientOptions::default()
    };
    for round in 0..60 {
        let mut session = Session::open_with(target.socket(), &Options::default(), &options)?;
        let client = session.client();
        let file = client.lookup(ROOT, "file")?.nodeid;
        let fh = client.open(file, O_RDWR)?.fh;
        for number in 0..128_u64 {
            let bytes = [b'y'; 512];
            let request = match (number + round) % 4 {
                0 => Request::write(file, fh, number * 512, &bytes),
                1 => Request::fsync(file, fh, 0),
                2 => Request::read(file, fh, 0, 4096),
                _ => Request::getattr(file, None),
            };
            client.start(&request)?;
        }
        client.publish();
        // Some rounds hang up at once, some in the middle.
        std::thread::sleep(Duration::from_micros(round * 20));
        drop(session);
    }
    target.is_unharmed()
}

#[test]
fn k_a_thousand_reboots_of_the_guest_give_everything_back() -> Result<()> {
    let mut target = Target::start()?;
    for number in 0..20 {
        fs::write(target.share().join(format!("file-{number}")), "x")?;
    }
    let options = ClientOptions {
        data_bytes: 64 << 10,
        ..ClientOptions::default()
    };
    let mut session = Session::open_with(target.socket(), &Options::default(), &options)?;
    let pid = target.daemon().server_pid()?;
    let mut early = None;
    for round in 0..1000 {
        let client = session.client();
        for number in 0..20 {
            let node = client.lookup(ROOT, format!("file-{number}"))?.nodeid;
            client.open(node, O_RDWR)?;
        }
        client.opendir(ROOT)?;
        // Nothing is closed or forgotten: the guest is gone, and another begins.
        client.init()?;
        if round == 100 {
            early = Some(Holdings::of(pid)?);
        }
    }
    let (early, late) = (early.context("a hundredth round")?, Holdings::of(pid)?);
    ensure!(
        late.descriptors <= early.descriptors + 2,
        "{early:?} became {late:?}"
    );
    ensure!(
        late.threads <= early.threads + 1,
        "{early:?} became {late:?}"
    );
    ensure!(
        late.anonymous_kib <= early.anonymous_kib + 4096,
        "{early:?} became {late:?}"
    );
    let attributes: abi::Attr = session.client().getattr(ROOT)?;
    ensure!(attributes.ino != 0);
    drop(session);
    target.is_unharmed()
}
