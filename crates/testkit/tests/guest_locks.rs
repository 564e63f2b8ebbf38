//! Locks of real guests: against the host, and against one another.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use virtiofs_testkit::bridge::share::run_within;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root};

const MINUTE: Duration = Duration::from_secs(60);

fn appears(path: &Path) -> Result<()> {
    let deadline = Instant::now() + MINUTE;
    while !path.exists() {
        ensure!(Instant::now() < deadline, "{path:?} does not appear");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The guest is refused, waits, and gets the lock when the host gives it back; then the other way round.
#[test]
fn a_guest_and_a_process_of_the_host_exclude_one_another() -> Result<()> {
    let Some(guest) = guest_or_skip(Machine::Uml61, Root::Debian)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&["--flock", "--posix-lock"])?;
    let place = share.path().to_path_buf();
    fs::write(place.join("file"), b"x")?;
    let host = File::open(place.join("file"))?;
    flock(&host, FlockOperation::LockExclusive)?;
    let script = "set -e
        if flock --nonblock file true; then echo taken from the host; exit 1; fi
        touch refused
        exec 9<file
        flock 9
        touch held
        while [ ! -e judged ]; do sleep 0.1; done
        flock --unlock 9
        echo done";
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| share.run(&guest, script, 2 * MINUTE));
        let judge = || -> Result<()> {
            appears(&place.join("refused"))?;
            std::thread::sleep(Duration::from_millis(500));
            ensure!(!place.join("held").exists(), "taken from the host");
            flock(&host, FlockOperation::Unlock)?;
            appears(&place.join("held"))?;
            let taken = flock(&host, FlockOperation::NonBlockingLockExclusive);
            ensure!(taken == Err(rustix::io::Errno::AGAIN), "{taken:?}");
            Ok(())
        };
        let judged = judge();
        // The guest ends whatever was found.
        let _ = flock(&host, FlockOperation::Unlock);
        fs::write(place.join("judged"), b"")?;
        match runs.join() {
            Ok(ran) => ran.map(drop).and(judged),
            Err(_) => bail!("the guest's thread panicked"),
        }
    })?;
    flock(&host, FlockOperation::NonBlockingLockExclusive).context("the guest is gone")
}

/// Linux's virtio-fs driver sends no INTERRUPT: the wait goes on, and the process with it.
#[test]
fn a_guests_process_that_is_killed_while_it_waits_is_gone_with_the_lock() -> Result<()> {
    let Some(guest) = guest_or_skip(Machine::Uml72, Root::Debian)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&["--flock"])?;
    let place = share.path().to_path_buf();
    fs::write(place.join("file"), b"x")?;
    let host = File::open(place.join("file"))?;
    flock(&host, FlockOperation::LockExclusive)?;
    let script = "set -e
        exec 9<file
        flock 9 &
        sleep 1
        kill -9 $!
        sleep 1
        if kill -0 $! 2>/dev/null; then touch waits; fi
        touch killed
        wait $! || echo ended with $?";
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| share.run(&guest, script, 2 * MINUTE));
        let judged = appears(&place.join("killed"));
        let waits = place.join("waits").exists();
        flock(&host, FlockOperation::Unlock)?;
        let Ok(ran) = runs.join() else {
            bail!("the guest's thread panicked");
        };
        judged?;
        ensure!(waits, "the process was gone before the lock was free");
        let output = ran?.output;
        ensure!(output.contains("ended with 137"), "{output}");
        Ok(())
    })?;
    flock(&host, FlockOperation::NonBlockingLockExclusive).context("its lock has stayed")
}

const ROUNDS: usize = 40;

/// Each transaction reads a counter and writes it back one higher.
fn contend(name: &str) -> String {
    format!(
        "set -e
        touch ready-{name}
        while [ ! -e ready-one ] || [ ! -e ready-two ]; do sleep 0.1; done
        number=0
        while [ $number -lt {ROUNDS} ]; do
            number=$((number + 1))
            sqlite3 -bail -cmd '.timeout 60000' database \\
                'BEGIN IMMEDIATE' \\
                \"INSERT INTO lines SELECT count + 1, '{name}' FROM counter\" \\
                'UPDATE counter SET count = count + 1' \\
                'COMMIT'
        done"
    )
}

fn sqlite(database: &Path, statement: &str) -> Result<String> {
    let mut sqlite = Command::new("python3");
    let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for statement in sys.argv[2].split(';'):
    for row in db.execute(statement): print(*row)
db.commit()";
    sqlite.arg("-c").arg(script).arg(database).arg(statement);
    let ran = run_within(MINUTE, &mut sqlite)?;
    ensure!(ran.status.success(), "{}", ran.output);
    Ok(ran.output)
}

/// Two guests with a daemon each on one directory.
#[test]
fn two_guests_contend_for_a_database_and_keep_it_whole() -> Result<()> {
    let Some(one) = guest_or_skip(Machine::Uml61, Root::Debian)? else {
        return Ok(());
    };
    let Some(two) = guest_or_skip(Machine::Uml72, Root::Debian)? else {
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    let database = directory.path().join("database");
    sqlite(
        &database,
        "CREATE TABLE counter (count INTEGER);INSERT INTO counter VALUES (0);CREATE TABLE lines (number INTEGER UNIQUE, name TEXT)",
    )?;
    std::thread::scope(|scope| {
        let guests = [("one", one), ("two", two)].map(|(name, guest)| {
            let place = directory.path();
            scope.spawn(move || -> Result<()> {
                let options = ["--posix-lock", "--cache", "never"];
                let mut share = GuestShare::start_in(place, &options)?;
                share.run(&guest, &contend(name), 4 * MINUTE).map(drop)
            })
        });
        for guest in guests {
            match guest.join() {
                Ok(ran) => ran?,
                Err(_) => bail!("a guest's thread panicked"),
            }
        }
        Ok(())
    })?;
    let judged = sqlite(
        &database,
        "PRAGMA integrity_check;SELECT count FROM counter;SELECT name, count(*) FROM lines GROUP BY name ORDER BY name",
    )?;
    let want = format!("ok\n{}\none {ROUNDS}\ntwo {ROUNDS}\n", 2 * ROUNDS);
    ensure!(judged == want, "{judged}");
    Ok(())
}
