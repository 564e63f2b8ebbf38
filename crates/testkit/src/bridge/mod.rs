//! Mounts a share through the host kernel's FUSE client, without a guest.
//!
//! The host's kernel mounts `/dev/fuse` and sends its requests there; the
//! bridge passes each one through a virtqueue to the daemon and the reply back.
//! What a suite does on the mount point so runs against the daemon at native
//! speed.
//!
//! Per request queue, a reader thread moves requests from its own clone of
//! `/dev/fuse` straight into guest memory and never waits for one to be
//! answered; a completer thread writes the replies back. FORGET,
//! BATCH_FORGET and INTERRUPT go to the high-priority queue.
//!
//! Whatever breaks the protocol is kept as a fault: a test asserts that
//! [`Bridge::faults`] is empty.
//!
//! Lock order: a lane's queue, then nothing; the slots and the faults are
//! taken alone.

mod device;
pub mod idmapped;
mod lane;
mod room;
pub mod share;
mod slots;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{UnmountFlags, unmount};

use crate::frontend::{Frontend, Options, RegionSpec};
pub(crate) use device::FuseDevice;
use lane::Lane;
use slots::Slots;

/// How often a thread that waits looks whether it is to stop.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// How long unmounting may take before the connection is torn. A process that is being started holds what was open
/// when it was forked, and on a busy machine it may be seconds until it runs.
const ORDERLY_END: Duration = Duration::from_secs(60);

/// How a share is bridged.
#[derive(Clone, Copy, Debug)]
pub struct BridgeOptions {
    /// Request queues to use.
    pub queues: u16,
    /// Threads that read `/dev/fuse` for each of them.
    pub readers: u16,
    /// Requests in flight at most, on all queues together.
    pub in_flight: u16,
    /// How long one request may take. After that the mount is torn, so that
    /// no caller sleeps for ever in a state that no signal ends.
    pub limit: Duration,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            queues: 2,
            readers: 1,
            in_flight: 256,
            limit: Duration::from_secs(60),
        }
    }
}

/// What all threads of a bridge see.
#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    mountpoint: PathBuf,
    faults: Mutex<Vec<String>>,
    slots: Slots,
    devices: Vec<FuseDevice>,
    /// By queue: the first is the high-priority one.
    lanes: Vec<Lane>,
}

impl Shared {
    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        // The first ones tell what is wrong; the rest is a flood.
        if faults.len() < 100 {
            faults.push(what);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends the kernel's side: every request in flight fails, readers return.
    fn tear(&self) {
        let _ = unmount(&self.mountpoint, UnmountFlags::FORCE | UnmountFlags::DETACH);
    }
}

/// A mounted share; dropping it unmounts and stops all threads.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    frontend: Arc<Frontend>,
    ended: bool,
}

impl Bridge {
    /// Connects to the daemon and mounts its share; needs root.
    pub fn mount(socket: &Path, mountpoint: &Path, options: &BridgeOptions) -> Result<Self> {
        ensure!(
            options.queues > 0 && options.readers > 0,
            "nothing to pump with"
        );
        let mut frontend = Frontend::connect(socket, &device_options(options))?;
        let slots = Slots::new(frontend.memory(), options.in_flight)?;
        let lanes = (0..=options.queues)
            .map(|index| Lane::new(frontend.take_queue(index)?))
            .collect::<Result<Vec<_>>>()?;
        let first = FuseDevice::mount(mountpoint)?;
        let mut devices = Vec::new();
        for _ in 1..options.queues * options.readers {
            devices.push(first.duplicate()?);
        }
        devices.push(first);
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            mountpoint: mountpoint.to_path_buf(),
            faults: Mutex::default(),
            slots,
            devices,
            lanes,
        });
        let mut bridge = Self {
            shared,
            readers: Vec::new(),
            others: Vec::new(),
            frontend: Arc::new(frontend),
            ended: false,
        };
        bridge.start(options.limit)?;
        // The first call through the mount waits for INIT to be answered.
        rustix::fs::stat(mountpoint).context("the mounted share does not answer")?;
        Ok(bridge)
    }

    fn start(&mut self, limit: Duration) -> Result<()> {
        let request_lanes = self.shared.lanes.len() - 1;
        for device in 0..self.shared.devices.len() {
            let shared = Arc::clone(&self.shared);
            let name = format!("bridge-read-{device}");
            let lane = 1 + device % request_lanes;
            let run = move || lane::read_requests(&shared, lane, device);
            self.readers
                .push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        for lane in 0..=request_lanes {
            let shared = Arc::clone(&self.shared);
            let name = format!("bridge-done-{lane}");
            let run = move || lane::write_replies(&shared, &shared.lanes[lane]);
            self.others
                .push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        let shared = Arc::clone(&self.shared);
        let frontend = Arc::clone(&self.frontend);
        let run = move || watch_daemon(&shared, &frontend, limit);
        let watch = std::thread::Builder::new().name("bridge-watch".to_owned());
        self.others.push(watch.spawn(run)?);
        Ok(())
    }

    /// Where the share is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.mountpoint
    }

    /// What went against the protocol so far.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let faults = self.shared.faults.lock();
        faults.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Unmounts and stops; an error when there was any fault.
    pub fn unmount(mut self) -> Result<()> {
        self.end();
        let faults = self.faults();
        ensure!(faults.is_empty(), "the bridge met faults: {faults:#?}");
        Ok(())
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let deadline = Instant::now() + ORDERLY_END;
        while unmount(&self.shared.mountpoint, UnmountFlags::empty())
            == Err(rustix::io::Errno::BUSY)
        {
            if Instant::now() > deadline {
                self.shared.fault("the mount was still in use".to_owned());
                self.shared.tear();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.shared.stopping.store(true, Ordering::Release);
        for thread in self.others.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.end();
    }
}

fn device_options(options: &BridgeOptions) -> Options {
    let memory = slots::memory_bytes(options.in_flight) + (64 << 20);
    Options {
        memory: vec![RegionSpec {
            guest_address: 0x1_0000_0000,
            len_bytes: memory,
        }],
        request_queues: options.queues,
        queue_size: 512,
        ..Options::default()
    }
}

/// Fails the mount when the daemon goes away or does not answer: its callers
/// would wait for ever.
fn watch_daemon(shared: &Shared, frontend: &Frontend, limit: Duration) {
    let stream = frontend.connection().stream();
    let timeout = Timespec::try_from(HEARTBEAT).unwrap_or_default();
    while !shared.is_stopping() {
        let socket = stream.as_fd();
        let mut entry = [PollFd::new(&socket, PollFlags::RDHUP)];
        let hung_up = matches!(poll(&mut entry, Some(&timeout)), Ok(1));
        let overdue = shared.lanes.iter().find_map(|lane| lane.overdue(limit));
        if let Some(request) = overdue {
            shared.fault(format!("no answer for {limit:?} to {request:?}"));
        } else if hung_up {
            shared.fault("the daemon hung up".to_owned());
        } else {
            continue;
        }
        shared.tear();
        return;
    }
}
