//! Locks that reach the host, from the queue's side: who waits holds no queue, finds its end by
//! whatever ends it, and leaves nothing behind.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::frontend::{Descriptors, Launch, Options};
use virtiofs_testkit::fuse::abi::lock::{LAST, READ, UNLOCK, WRITE};
use virtiofs_testkit::fuse::abi::{FileLock, LK_FLOCK, LkIn, ROOT, ReleaseIn};
use virtiofs_testkit::fuse::{ClientOptions, Failure, FuseClient, Request, Session};

/// Long enough for a request that does not wait to be answered.
const PAUSE: Duration = Duration::from_millis(50);
const BOTH: [&str; 2] = ["--posix-lock", "--flock"];

/// A guest with one open file.
struct Guest {
    session: Session,
    node: u64,
    fh: u64,
}

impl Guest {
    fn on(socket: &Path) -> Result<Self> {
        Self::with(socket, &Options::default(), ClientOptions::default())
    }

    fn with(socket: &Path, device: &Options, client: ClientOptions) -> Result<Self> {
        let client = ClientOptions {
            depth: client.depth.max(8),
            data_bytes: 64 << 10,
            ..client
        };
        let mut session = Session::open_with(socket, device, &client)?;
        let node = session.client().lookup(ROOT, "locked")?.nodeid;
        let fh = session.client().open(node, 2)?.fh;
        Ok(Self { session, node, fh })
    }

    fn client(&mut self) -> &mut FuseClient {
        self.session.client()
    }

    fn lock(&self, owner: u64, kind: u32) -> LkIn {
        LkIn {
            fh: self.fh,
            owner,
            lk: FileLock {
                start: 0,
                end: LAST,
                kind,
                pid: 7,
            },
            lk_flags: 0,
            padding: 0,
        }
    }

    fn set(&mut self, lock: &LkIn) -> Result<(), Failure> {
        let request = Request::setlk(self.node, lock);
        self.client().call(&request).map(drop)
    }

    /// Begins to wait for a lock that another owner has.
    fn wait(&mut self, lock: &LkIn) -> Result<u64> {
        let request = Request::setlkw(self.node, lock);
        let unique = self.client().start(&request)?;
        self.client().publish();
        Ok(unique)
    }

    /// GETATTR, among whatever waits.
    fn is_served(&mut self) -> Result<()> {
        let request = Request::getattr(self.node, None);
        let unique = self.client().start(&request)?;
        self.client().publish();
        let answer = self.client().finish()?;
        ensure!(answer.unique == unique, "a wait has ended");
        Ok(self.client().check(&answer)?)
    }

    /// As many requests as given come to an end; their errors, by number.
    fn ends(&mut self, count: usize) -> Result<HashMap<u64, i32>> {
        (0..count)
            .map(|_| {
                let answer = self.client().finish()?;
                Ok((answer.unique, -answer.header.error))
            })
            .collect()
    }
}

/// A daemon with the options, and what it held before anybody came.
fn target(arguments: &[&str]) -> Result<Target> {
    let target = Target::start_with(arguments)?;
    std::fs::write(target.share().join("locked"), b"x")?;
    Ok(target)
}

/// The host gets the lock at once: nobody holds it any more.
fn is_free(share: &Path) -> Result<()> {
    let file = File::open(share.join("locked"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).context("flock on the host")
}

#[test]
fn an_unlock_behind_three_waits_ends_them() -> Result<()> {
    for flags in [0, LK_FLOCK] {
        let mut target = target(&BOTH)?;
        let mut guest = Guest::on(target.socket())?;
        // A lock of flock(2) has its open file as its owner.
        let others: Vec<u64> = (0..3)
            .map(|_| {
                let node = guest.node;
                Ok(guest.client().open(node, 2)?.fh)
            })
            .collect::<Result<_>>()?;
        let held = LkIn {
            lk_flags: flags,
            ..guest.lock(1, WRITE)
        };
        guest.set(&held)?;
        for (fh, owner) in others.into_iter().zip(2..) {
            let wanted = LkIn {
                fh,
                lk_flags: flags,
                ..guest.lock(owner, READ)
            };
            guest.wait(&wanted)?;
        }
        std::thread::sleep(PAUSE);
        for _ in 0..100 {
            guest.is_served()?;
        }
        let unlock = Request::setlk(
            guest.node,
            &LkIn {
                lk_flags: flags,
                ..guest.lock(1, UNLOCK)
            },
        );
        guest.client().start(&unlock)?;
        guest.client().publish();
        let ended = guest.ends(4)?;
        ensure!(ended.values().all(|errno| *errno == 0), "{ended:?}");
        drop(guest);
        target.is_unharmed()?;
        is_free(target.share())?;
    }
    Ok(())
}

/// A way to end a wait: its name, what is done, and the answer.
type End = (&'static str, fn(&mut Guest, u64) -> Result<usize>, Errno);

fn ends() -> [End; 5] {
    [
        (
            "INTERRUPT",
            |guest, unique| {
                guest.session.hiprio.send(&Request::interrupt(unique))?;
                Ok(0)
            },
            Errno::INTR,
        ),
        (
            "FLUSH of its owner",
            |guest, _| {
                let flush = Request::flush(guest.node, guest.fh, 2);
                guest.client().start(&flush)?;
                Ok(1)
            },
            Errno::BADF,
        ),
        (
            "RELEASE",
            |guest, _| {
                let release = ReleaseIn {
                    fh: guest.fh,
                    flags: 0,
                    release_flags: 0,
                    lock_owner: 0,
                };
                let release = Request::release(guest.node, &release);
                guest.client().start(&release)?;
                Ok(1)
            },
            Errno::BADF,
        ),
        (
            "a second INIT",
            |guest, _| {
                guest.client().start(&Request::init(38, u64::MAX))?;
                Ok(1)
            },
            Errno::NOLCK,
        ),
        (
            "DESTROY",
            |guest, _| {
                guest.client().start(&Request::destroy())?;
                Ok(1)
            },
            Errno::NOLCK,
        ),
    ]
}

#[test]
fn o_a_wait_for_a_lock_ends_with_the_reason_that_ends_it() -> Result<()> {
    let mut target = target(&BOTH)?;
    for (what, end, errno) in ends() {
        let host = File::open(target.share().join("locked"))?;
        flock(&host, FlockOperation::LockExclusive)?;
        for flags in [0, LK_FLOCK] {
            let mut guest = Guest::on(target.socket())?;
            let node = guest.node;
            let holder = LkIn {
                fh: guest.client().open(node, 2)?.fh,
                ..guest.lock(1, WRITE)
            };
            guest.set(&holder)?;
            let wanted = LkIn {
                lk_flags: flags,
                ..guest.lock(2, WRITE)
            };
            let unique = guest.wait(&wanted)?;
            std::thread::sleep(PAUSE);
            guest.is_served().context(what)?;
            let more = end(&mut guest, unique)?;
            guest.client().publish();
            if (what, flags) == ("FLUSH of its owner", LK_FLOCK) {
                // That belongs to POSIX locks only.
                let ended = guest.ends(more)?;
                ensure!(!ended.contains_key(&unique), "{what}: {ended:?}");
                continue;
            }
            let ended = guest.ends(more + 1)?;
            let want = Some(&errno.raw_os_error());
            ensure!(ended.get(&unique) == want, "{what} {flags}: {ended:?}");
            ensure!(
                ended.values().sum::<i32>() == errno.raw_os_error(),
                "{what}: {ended:?}"
            );
        }
        drop(host);
        target.is_unharmed().context(what)?;
        is_free(target.share()).context(what)?;
    }
    Ok(())
}

/// The INTERRUPT is served before the wait is even in its queue.
#[test]
fn an_interrupt_that_overtakes_its_wait_ends_it() -> Result<()> {
    let target = target(&BOTH)?;
    let mut guest = Guest::on(target.socket())?;
    let holder = guest.lock(1, WRITE);
    guest.set(&holder)?;
    let wait = Request::setlkw(guest.node, &guest.lock(2, WRITE));
    let unique = guest.client().start(&wait)?;
    guest.session.hiprio.send(&Request::interrupt(unique))?;
    guest.client().publish();
    let ended = guest.ends(1)?;
    ensure!(ended[&unique] == Errno::INTR.raw_os_error(), "{ended:?}");
    Ok(())
}

#[test]
fn o_a_front_end_that_leaves_while_many_wait_leaves_no_thread_and_no_lock() -> Result<()> {
    let mut target = target(&BOTH)?;
    let client = ClientOptions {
        depth: 64,
        ..ClientOptions::default()
    };
    let device = Options {
        queue_size: 256,
        ..Options::default()
    };
    for round in 0..5 {
        let mut guest = Guest::with(target.socket(), &device, client)?;
        let holder = guest.lock(1, WRITE);
        guest.set(&holder)?;
        let flocked = LkIn {
            lk_flags: LK_FLOCK,
            ..holder
        };
        guest.set(&flocked)?;
        for owner in 2..50 {
            let wanted = guest.lock(owner, WRITE);
            guest.wait(&wanted)?;
        }
        // At every stage of their way into the call.
        std::thread::sleep(PAUSE * round / 4);
        let left = Instant::now();
        drop(guest);
        target.is_unharmed()?;
        ensure!(
            left.elapsed() < Duration::from_secs(4),
            "draining waited for locks: {:?}",
            left.elapsed()
        );
        is_free(target.share())?;
    }
    ensure!(!target.log().contains("EIO"), "{}", target.log());
    Ok(())
}

/// A machine that pauses stops its queues; the front-end goes on afterwards.
#[test]
fn stopping_a_queue_answers_its_waits_and_breaks_nothing() -> Result<()> {
    let mut target = target(&BOTH)?;
    let mut guest = Guest::on(target.socket())?;
    let holder = guest.lock(1, WRITE);
    guest.set(&holder)?;
    for owner in 2..5 {
        let wanted = guest.lock(owner, WRITE);
        guest.wait(&wanted)?;
    }
    std::thread::sleep(PAUSE);
    let stopping = Instant::now();
    guest.session.frontend.stop_ring(1)?;
    ensure!(
        stopping.elapsed() < Duration::from_secs(2),
        "it waited for locks: {:?}",
        stopping.elapsed()
    );
    let ended = guest.ends(3)?;
    let nolck = Errno::NOLCK.raw_os_error();
    ensure!(ended.values().all(|errno| *errno == nolck), "{ended:?}");
    drop(guest);
    target.is_unharmed()
}

/// Each row: entries of the ring, how chains stand in it, and how many may wait.
#[test]
fn waits_leave_room_in_the_ring_for_the_unlock() -> Result<()> {
    let rows = [
        (8, Descriptors::Direct, 1),
        (16, Descriptors::Direct, 3),
        (64, Descriptors::Direct, 15),
        (128, Descriptors::Indirect, 31),
        (1024, Descriptors::Indirect, 64),
    ];
    for (queue_size, descriptors, most) in rows {
        let mut target = target(&BOTH)?;
        let device = Options {
            queue_size,
            ..Options::default()
        };
        let client = ClientOptions {
            depth: 80.min(queue_size),
            descriptors: Some(descriptors),
            ..ClientOptions::default()
        };
        let mut guest = Guest::with(target.socket(), &device, client)?;
        let holder = guest.lock(1, WRITE);
        guest.set(&holder)?;
        for owner in 0..most {
            let wanted = guest.lock(100 + owner, READ);
            guest.wait(&wanted)?;
        }
        let beyond = guest.lock(99, READ);
        guest.wait(&beyond)?;
        // One of them all, and not always the last: a thread that loses its queue while it has one in hand
        // serves that one beside those behind it.
        let ended: Vec<i32> = guest.ends(1)?.into_values().collect();
        ensure!(
            ended == [Errno::NOLCK.raw_os_error()],
            "{queue_size}: {ended:?}"
        );
        let unlock = Request::setlk(guest.node, &guest.lock(1, UNLOCK));
        guest
            .client()
            .start(&unlock)
            .context("no descriptor left")?;
        guest.client().publish();
        let ended = guest.ends(usize::try_from(most)? + 1)?;
        ensure!(
            ended.values().all(|errno| *errno == 0),
            "{queue_size}: {ended:?}"
        );
        drop(guest);
        target.is_unharmed()?;
    }
    Ok(())
}

#[test]
fn two_daemons_on_one_share_exclude_their_guests() -> Result<()> {
    let target = target(&BOTH)?;
    let other = Launch::new(target.share()).arg("--posix-lock").start()?;
    let (mut one, mut two) = (Guest::on(target.socket())?, Guest::on(other.socket())?);
    let lock = one.lock(1, WRITE);
    one.set(&lock)?;
    let mine = LkIn { fh: two.fh, ..lock };
    ensure!(
        two.set(&mine)
            .is_err_and(|failure| failure.errno() == Some(Errno::AGAIN))
    );
    let question = Request::getlk(two.node, &mine);
    let answer: FileLock = two.client().call_for(&question)?;
    ensure!(
        (answer.start, answer.end, answer.kind, answer.pid) == (0, LAST, WRITE, 0),
        "{answer:?}"
    );
    let wait = two.wait(&mine)?;
    std::thread::sleep(PAUSE);
    drop(one);
    let ended = two.ends(1)?;
    ensure!(ended.get(&wait) == Some(&0), "{ended:?}");
    Ok(())
}
