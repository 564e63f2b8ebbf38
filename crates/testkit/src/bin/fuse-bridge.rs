//! `fuse-bridge SOCKET MOUNTPOINT [--queues N]`: mounts a running daemon's
//! share on the host through /dev/fuse, until SIGINT or SIGTERM.
#![expect(unsafe_code, reason = "waits for signals with sigwait(3)")]

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use virtiofs_testkit::bridge::{Bridge, BridgeOptions};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut options = BridgeOptions::default();
    let (socket, mountpoint) = match arguments[..] {
        [socket, mountpoint] => (socket, mountpoint),
        [socket, mountpoint, "--queues", count] => {
            options.queues = count.parse().context("--queues takes a number")?;
            (socket, mountpoint)
        }
        _ => bail!("usage: fuse-bridge SOCKET MOUNTPOINT [--queues N]"),
    };
    // Blocked before any thread starts, so that every thread inherits it.
    let signals = block_signals()?;
    let bridge = Bridge::mount(Path::new(socket), Path::new(mountpoint), &options)?;
    println!("{socket} is mounted on {mountpoint}");
    wait_for(&signals)?;
    bridge.unmount()
}

fn block_signals() -> Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: initialised above.
    let set = unsafe { set.assume_init() };
    // SAFETY: reads the set; no old mask is asked for.
    let failed =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    ensure!(failed == 0, "cannot block signals");
    Ok(set)
}

fn wait_for(signals: &libc::sigset_t) -> Result<()> {
    let mut signal = 0;
    // SAFETY: both point to values that live during the call.
    let failed = unsafe { libc::sigwait(signals, &raw mut signal) };
    ensure!(failed == 0, "cannot wait for signals");
    Ok(())
}
