//! QEMU guests: virtio over PCI, old and new front-ends, several request queues.
//!
//! Every instruction is emulated, so the work is small.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::bridge::share::run_within;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root, scenarios};

const MINUTE: Duration = Duration::from_secs(60);

fn mounts_and_works(machine: Machine) -> Result<()> {
    let Some(guest) = guest_or_skip(machine, Root::Busybox)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&[])?;
    fs::write(share.path().join("from the host"), "read me")?;
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(share.path().join("large"), &large)?;
    let script = "set -e
        grep -q '^share /mnt virtiofs ' /proc/mounts
        cat 'from the host'
        cp large copied
        mkdir -m 750 folder
        mv copied folder/renamed
        ln -s renamed folder/link
        cmp large folder/link";
    let outcome = share.run(&guest, script, 2 * MINUTE)?;
    ensure!(outcome.output == "read me", "{:?}", outcome.output);
    ensure!(fs::read(share.path().join("folder/link"))? == large);
    ensure!(!share.path().join("copied").exists());
    Ok(())
}

#[test]
fn qemu_7_2_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Qemu72)
}

#[test]
fn qemu_10_0_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Qemu100)
}

#[test]
fn qemu_11_1_mounts_reads_writes_and_renames() -> Result<()> {
    mounts_and_works(Machine::Qemu111)
}

fn git_works(machine: Machine, queues: u16) -> Result<()> {
    let Some(guest) = guest_or_skip(machine, Root::Debian)? else {
        return Ok(());
    };
    let guest = guest.request_queues(queues);
    let mut share = GuestShare::start(&[])?;
    let script = scenarios::with(&[("COUNT", "200")], scenarios::GIT);
    share.run(&guest, &script, 4 * MINUTE)?;
    let mut fsck = Command::new("git");
    fsck.args(["-c", "safe.directory=*", "fsck", "--full", "--strict"])
        .current_dir(share.path().join("work"));
    let ran = run_within(MINUTE, &mut fsck)?;
    ensure!(ran.status.success(), "{}", ran.output);
    Ok(())
}

#[test]
fn git_works_under_qemu_7_2() -> Result<()> {
    git_works(Machine::Qemu72, 1)
}

#[test]
fn git_works_on_two_queues_under_qemu_10_0() -> Result<()> {
    git_works(Machine::Qemu100, 2)
}

/// How often each request queue's interrupt came: one line of the guest's
/// `/proc/interrupts` for each queue, with one number for each processor.
fn calls(interrupts: &str) -> Result<Vec<u64>> {
    interrupts
        .lines()
        .filter(|line| line.contains("-requests"))
        .map(|line| {
            let counts = line
                .split_whitespace()
                .skip(1)
                .map_while(|word| word.parse::<u64>().ok());
            counts.reduce(u64::wrapping_add).context("no counts")
        })
        .collect()
}

/// Linux gives each processor a queue of its own; its work on both processors
/// must have been answered on both queues.
fn both_queues_work(machine: Machine) -> Result<()> {
    let Some(guest) = guest_or_skip(machine, Root::Busybox)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&[])?;
    let outcome = share.run(&guest.request_queues(2), scenarios::QUEUES, 3 * MINUTE)?;
    let calls = calls(&outcome.output)?;
    ensure!(calls.len() == 2, "{calls:?}: {}", outcome.output);
    // Each worker makes some hundreds of requests; calls may be shared by few.
    ensure!(calls.iter().all(|count| *count > 100), "{calls:?}");
    for worker in 0..2 {
        let lines = fs::read_to_string(share.path().join(format!("shared-{worker}")))?;
        let want: String = (1..=60)
            .map(|round| format!("{worker} {round}\n"))
            .collect();
        ensure!(lines == want, "{lines}");
    }
    Ok(())
}

#[test]
fn both_queues_work_under_qemu_10_0() -> Result<()> {
    both_queues_work(Machine::Qemu100)
}

#[test]
fn both_queues_work_under_qemu_11_1() -> Result<()> {
    both_queues_work(Machine::Qemu111)
}

/// Linux's own limit is 1 MiB until its administrator raises it; then the ring's 1024 entries are the next one. What
/// the guest sends is what its kernel traces: `... opcode 16 (FUSE_WRITE) len 4178000`.
#[test]
fn linux_7_2_sends_nearly_four_mebibytes_where_both_sides_allow_it() -> Result<()> {
    let Some(guest) = guest_or_skip(Machine::Qemu111, Root::Busybox)? else {
        return Ok(());
    };
    let mut share = GuestShare::start(&["-o", "max_write=4194304"])?;
    let script = "set -e
        cd /
        umount /mnt
        echo 1024 >/proc/sys/fs/fuse/max_pages_limit
        mount -t virtiofs share /mnt
        mount -t tracefs tracefs /sys/kernel/tracing
        trace=/sys/kernel/tracing
        head -c 8388608 /dev/urandom >/tmp/content
        echo 1 >$trace/events/fuse/fuse_request_send/enable
        dd if=/tmp/content of=/mnt/copy bs=4M 2>/dev/null
        echo 0 >$trace/events/fuse/fuse_request_send/enable
        grep -o 'opcode 16 .*len [0-9]*' $trace/trace
        cmp /tmp/content /mnt/copy
        cd /mnt";
    let outcome = share.run(&guest, script, 2 * MINUTE)?;
    let lengths = outcome.output.lines().filter_map(|line| {
        let (_, length) = line.rsplit_once(' ')?;
        length.parse::<u64>().ok()
    });
    let most = lengths.max().context("no write was traced")?;
    ensure!((4_000_000..4 << 20).contains(&most), "{}", outcome.output);
    ensure!(fs::metadata(share.path().join("copy"))?.len() == 8 << 20);
    Ok(())
}
