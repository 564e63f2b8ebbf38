//! The host's own kernel on the share, through the bridge.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, can_mount, run_within, skipped};
use virtiofs_testkit::bridge::{Bridge, BridgeOptions};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::slowfs::{FILE, SlowFs, byte_at};

const LIMIT: Duration = Duration::from_secs(60);

fn start(shared: &Path) -> Result<BridgedShare> {
    BridgedShare::start(Launch::new(shared), &BridgeOptions::default())
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.contains(&format!(" {} ", path.display())))
}

#[test]
fn a_tree_is_copied_in_compared_and_removed() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = start(shared.path())?;
    let script = "set -e; cp -a /usr/include/linux tree; diff -r /usr/include/linux tree; \
        (cd tree; find . -type f -exec sha1sum {} + | sort) > sums; \
        mv tree moved; (cd moved; sha1sum --quiet -c ../sums); rm -r moved sums; ls -A";
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(share.path());
    let ran = run_within(LIMIT, &mut command)?;
    ensure!(
        ran.status.success() && ran.output.is_empty(),
        "{}",
        ran.output
    );
    let mountpoint = share.path().to_path_buf();
    share.finish()?;
    ensure!(!is_mounted(&mountpoint)?);
    Ok(())
}

#[test]
fn large_reads_and_writes_keep_every_byte() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = start(shared.path())?;
    let bytes: Vec<u8> = (0..20_000_003_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    std::fs::write(share.path().join("large"), &bytes)?;
    ensure!(
        std::fs::read(shared.path().join("large"))? == bytes,
        "the host sees other bytes"
    );
    std::fs::write(shared.path().join("from-host"), &bytes)?;
    let mut back = Vec::new();
    File::open(share.path().join("from-host"))?.read_to_end(&mut back)?;
    ensure!(back == bytes, "the share shows other bytes");
    ensure!(share.path().join("large").metadata()?.size() == 20_000_003);
    share.finish()
}

#[test]
fn many_threads_work_in_one_directory() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = start(shared.path())?;
    let root = share.path();
    std::thread::scope(|scope| -> Result<()> {
        let work = |thread: usize| {
            move || -> Result<()> {
                for round in 0..100 {
                    let path = root.join(format!("{thread}-{round}"));
                    std::fs::write(&path, vec![b'x'; round * 100])?;
                    ensure!(path.metadata()?.len() == u64::try_from(round * 100)?);
                    std::fs::rename(&path, root.join(format!("{thread}")))?;
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(work(thread))).collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    ensure!(std::fs::read_dir(shared.path())?.count() == 8);
    share.finish()
}

#[test]
fn calls_fail_and_do_not_hang_when_the_daemon_dies() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let mountpoint = tempfile::tempdir()?;
    let daemon = Launch::new(shared.path()).start()?;
    let bridge = Bridge::mount(
        daemon.socket(),
        mountpoint.path(),
        &BridgeOptions::default(),
    )?;
    let file = File::create(mountpoint.path().join("file"))?;
    drop(daemon);
    let started = Instant::now();
    ensure!(file.sync_all().is_err() || file.write_all_at(b"x", 0).is_err());
    ensure!(started.elapsed() < Duration::from_secs(10));
    let faults = bridge.faults();
    ensure!(
        faults.iter().any(|fault| fault.contains("hung up")),
        "{faults:?}"
    );
    drop(bridge);
    ensure!(!is_mounted(mountpoint.path())?);
    Ok(())
}

/// The host's client, unlike virtio-fs, sends INTERRUPT; whether or not the
/// daemon honours it, the killed caller's request must end and others go on.
#[test]
fn a_killed_reader_of_a_hung_store_disturbs_no_one() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    std::fs::create_dir(shared.path().join("slow"))?;
    std::fs::write(shared.path().join("fast"), b"fast")?;
    let slow = SlowFs::mount(&shared.path().join("slow"))?;
    let share = start(shared.path())?;
    let path = share.path().join("slow").join(FILE);
    let mut reader = Command::new("head").arg("-c1").arg(&path).spawn()?;
    slow.wait_for_held(1, LIMIT)?;
    reader.kill()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let fast = share.path().join("fast");
    let other = std::thread::spawn(move || sender.send(std::fs::read(fast)));
    let read = receiver.recv_timeout(Duration::from_secs(10));
    // Before anything is judged: a failure must not leave sleepers behind.
    slow.release();
    reader.wait()?;
    let _ = other.join();
    ensure!(read.context("the hung store held the queue")?? == b"fast");
    let file = File::open(&path).context("open again")?;
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, 40_960)?;
    ensure!(bytes == [byte_at(40_960); 16]);
    drop(file);
    share.finish()
}
