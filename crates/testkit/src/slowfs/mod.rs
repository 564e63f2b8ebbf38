//! A FUSE file system that answers READ and FSYNC only when it is told to.
//!
//! It stands for a hung store: whoever reads one of its two files sleeps until
//! [`SlowFs::release`]. Everything else is answered at once, but for what
//! looks at its root after [`SlowFs::hold_attributes`]. It is mounted on
//! the host below a share, so that a test decides how long the daemon's calls
//! take, without a clock. [`lies`] is one that answers at once, and not the truth.

pub mod lies;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use zerocopy::{FromBytes, IntoBytes};

use crate::bridge::FuseDevice;
use crate::fuse::abi::{self, opcode};

/// Name of the file to read.
pub const FILE: &str = "held";
/// Name of one as large that is looked at, and whose attributes the host's kernel keeps while nobody reads it.
pub const OTHER_FILE: &str = "other";
/// Their length.
pub const FILE_BYTES: u64 = 1 << 20;
/// So many bytes are alike.
const PAGE_BYTES: u64 = 4096;

const ROOT_NODE: u64 = 1;
const FILE_NODE: u64 = 2;
const OTHER_NODE: u64 = 3;
/// `FOPEN_DIRECT_IO`: each read of the caller is one READ here.
const DIRECT_IO: u32 = 1;
const ONE_DAY_SECS: u64 = 86400;

/// What the file holds at an offset.
#[must_use]
pub fn byte_at(offset: u64) -> u8 {
    u8::try_from(offset / PAGE_BYTES % 251).unwrap_or(0)
}

/// A request that waits for its release.
#[derive(Debug)]
struct Held {
    unique: u64,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    holds_attributes: bool,
    held: Vec<Held>,
    flush_error: Option<Errno>,
    late: Option<Late>,
}

/// What is answered some time after it came.
#[derive(Debug)]
struct Late {
    delay: Duration,
    queue: Sender<(Instant, Held)>,
}

#[derive(Debug)]
struct Server {
    device: FuseDevice,
    state: Mutex<State>,
}

/// The mounted file system; dropping it releases everything and unmounts.
#[derive(Debug)]
pub struct SlowFs {
    server: Arc<Server>,
    mountpoint: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl SlowFs {
    /// Mounts it on an existing directory, holding; needs root.
    pub fn mount(mountpoint: &Path) -> Result<Self> {
        let server = Arc::new(Server {
            device: FuseDevice::mount(mountpoint)?,
            state: Mutex::default(),
        });
        let serving = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("slowfs".to_owned());
        Ok(Self {
            server,
            mountpoint: mountpoint.to_path_buf(),
            thread: Some(thread.spawn(move || serving.serve())?),
        })
    }

    /// From now on, looking at the mount point sleeps, too.
    pub fn hold_attributes(&self) {
        self.server.state().holds_attributes = true;
    }

    /// How many requests are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.server.state().held.len()
    }

    /// Waits until at least `count` requests are held.
    pub fn wait_for_held(&self, count: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.held() < count {
            ensure!(
                Instant::now() < deadline,
                "{} of {count} are held",
                self.held()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// From now on closing a file fails, as on a store that finds out late
    /// that it has no room.
    pub fn fail_flush(&self, errno: Errno) {
        self.server.state().flush_error = Some(errno);
    }

    /// From now on each READ and FSYNC is answered that much later than it came, however many there are: a store
    /// that is slow, but not hung.
    pub fn answer_after(&self, delay: Duration) -> Result<()> {
        let (queue, late) = mpsc::channel();
        self.server.state().late = Some(Late { delay, queue });
        let server = Arc::clone(&self.server);
        let thread = std::thread::Builder::new().name("slowfs-late".to_owned());
        // Ends with its queue.
        thread.spawn(move || server.answer_late(&late))?;
        Ok(())
    }

    /// Answers what is held, and everything from now on at once.
    pub fn release(&self) {
        let mut state = self.server.state();
        state.open = true;
        let held = std::mem::take(&mut state.held);
        drop(state);
        for one in held {
            self.server.answer(one.unique, Ok(&one.body));
        }
    }
}

impl Drop for SlowFs {
    fn drop(&mut self) {
        self.server.state().late = None;
        self.release();
        let _ = unmount(&self.mountpoint, UnmountFlags::FORCE | UnmountFlags::DETACH);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        each_request(&self.device, |bytes| self.request(bytes));
    }

    fn request(&self, bytes: &[u8]) {
        let Ok((header, arguments)) = abi::InHeader::read_from_prefix(bytes) else {
            return;
        };
        let unique = header.unique;
        match header.opcode {
            opcode::READ => self.hold(unique, contents(arguments)),
            opcode::FSYNC => self.hold(unique, Vec::new()),
            opcode::GETATTR if self.state().holds_attributes => {
                self.hold(unique, attr_out(header.nodeid));
            }
            opcode::INTERRUPT => self.interrupt(arguments),
            opcode::FLUSH => {
                let failure = self.state().flush_error;
                self.answer(unique, failure.map_or(Ok(&[]), Err));
            }
            opcode::FORGET | opcode::BATCH_FORGET => {}
            code => match immediate(code, header.nodeid, arguments) {
                Ok(body) => self.answer(unique, Ok(&body)),
                Err(errno) => self.answer(unique, Err(errno)),
            },
        }
    }

    fn answer_late(&self, late: &Receiver<(Instant, Held)>) {
        while let Ok((due, held)) = late.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.answer(held.unique, Ok(&held.body));
        }
    }

    fn hold(&self, unique: u64, body: Vec<u8>) {
        let mut state = self.state();
        if let Some(Late { delay, queue }) = &state.late {
            // Fails when the thread is gone, and with it the mount.
            let _ = queue.send((Instant::now() + *delay, Held { unique, body }));
        } else if state.open {
            drop(state);
            self.answer(unique, Ok(&body));
        } else {
            state.held.push(Held { unique, body });
        }
    }

    fn interrupt(&self, arguments: &[u8]) {
        let Ok((interrupt, _)) = abi::InterruptIn::read_from_prefix(arguments) else {
            return;
        };
        let mut state = self.state();
        let place = state.held.iter().position(|h| h.unique == interrupt.unique);
        let held = place.map(|place| state.held.remove(place));
        drop(state);
        if let Some(held) = held {
            self.answer(held.unique, Err(Errno::INTR));
        }
    }

    fn answer(&self, unique: u64, result: Result<&[u8], Errno>) {
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), &[][..]),
        };
        let len = size_of::<abi::OutHeader>() + body.len();
        let header = abi::OutHeader {
            len: u32::try_from(len).unwrap_or(u32::MAX),
            error,
            unique,
        };
        // Fails when the caller was killed or the mount is gone: no one waits.
        let _ = rustix::io::write(self.device.as_fd(), &[header.as_bytes(), body].concat());
    }
}

/// Takes requests of the host's kernel until the mount is gone.
fn each_request(device: &FuseDevice, mut request: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match rustix::io::read(device.as_fd(), &mut buffer) {
            Ok(len) => request(&buffer[..len]),
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

fn immediate(code: u32, node: u64, arguments: &[u8]) -> Result<Vec<u8>, Errno> {
    match code {
        opcode::INIT => Ok(init(0).as_bytes().to_vec()),
        opcode::LOOKUP => {
            let node = match arguments.strip_suffix(&[0]) {
                Some(name) if name == FILE.as_bytes() => FILE_NODE,
                Some(name) if name == OTHER_FILE.as_bytes() => OTHER_NODE,
                _ => return Err(Errno::NOENT),
            };
            Ok(entry(node).as_bytes().to_vec())
        }
        opcode::GETATTR => Ok(attr_out(node)),
        opcode::OPEN | opcode::OPENDIR => {
            let out = abi::OpenOut {
                fh: 0,
                open_flags: if code == opcode::OPEN { DIRECT_IO } else { 0 },
                backing_id: 0,
            };
            Ok(out.as_bytes().to_vec())
        }
        opcode::STATFS => Ok(abi::StatfsOut::default().as_bytes().to_vec()),
        opcode::READDIR | opcode::RELEASE | opcode::RELEASEDIR => Ok(Vec::new()),
        _ => Err(Errno::NOSYS),
    }
}

/// Attributes that are asked for each time.
fn attr_out(node: u64) -> Vec<u8> {
    let out = abi::AttrOut {
        attr_valid: 0,
        attr: attributes(node),
        ..Default::default()
    };
    out.as_bytes().to_vec()
}

/// What INIT answers, with these flags beside the usual one.
fn init(flags: u64) -> abi::InitOut {
    abi::InitOut {
        major: abi::MAJOR,
        minor: 31,
        max_readahead: 0,
        flags: u32::try_from(abi::init::ASYNC_READ | flags).unwrap_or(0),
        max_background: 64,
        congestion_threshold: 64,
        max_write: 128 << 10,
        ..Default::default()
    }
}

fn entry(node: u64) -> abi::EntryOut {
    abi::EntryOut {
        nodeid: node,
        entry_valid: ONE_DAY_SECS,
        attr_valid: ONE_DAY_SECS,
        attr: attributes(node),
        ..Default::default()
    }
}

fn attributes(node: u64) -> abi::Attr {
    let is_file = node != ROOT_NODE;
    abi::Attr {
        ino: node,
        size: if is_file { FILE_BYTES } else { 0 },
        mode: if is_file { 0o100_644 } else { 0o040_755 },
        nlink: if is_file { 1 } else { 2 },
        blksize: 4096,
        ..Default::default()
    }
}

fn contents(arguments: &[u8]) -> Vec<u8> {
    let Ok((read, _)) = abi::ReadIn::read_from_prefix(arguments) else {
        return Vec::new();
    };
    let end = FILE_BYTES.min(read.offset.saturating_add(read.size.into()));
    let mut bytes = Vec::new();
    let mut offset = read.offset;
    // A page at a time: one thread answers everybody, and a byte at a time it would take longer
    // than some of those delays that it is to show.
    while offset < end {
        let page_end = end.min((offset / PAGE_BYTES + 1) * PAGE_BYTES);
        let len = usize::try_from(page_end - offset).unwrap_or(0);
        bytes.resize(bytes.len() + len, byte_at(offset));
        offset = page_end;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::bridge::share::{can_mount, skipped};

    #[test]
    fn late_answers_are_late_side_by_side() {
        if !can_mount() {
            skipped("needs root and /dev/fuse");
            return;
        }
        const DELAY: Duration = Duration::from_millis(100);
        let place = tempfile::tempdir().unwrap();
        let slow = SlowFs::mount(place.path()).unwrap();
        slow.answer_after(DELAY).unwrap();
        let file = File::open(place.path().join(FILE)).unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..20 {
                let file = &file;
                scope.spawn(move || file.read_exact_at(&mut [0; 10], number * 4096).unwrap());
            }
        });
        let took = begun.elapsed();
        assert!(took >= DELAY && took < DELAY * 10, "{took:?}");
    }

    #[test]
    fn a_read_sleeps_until_its_release() {
        if !can_mount() {
            skipped("needs root and /dev/fuse");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let slow = SlowFs::mount(place.path()).unwrap();
        let file = File::open(place.path().join(FILE)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), FILE_BYTES);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 8192];
            file.read_exact_at(&mut bytes, 4096 * 250).unwrap();
            bytes
        });
        slow.wait_for_held(1, Duration::from_secs(10)).unwrap();
        assert!(!reader.is_finished());
        slow.release();
        let bytes = reader.join().unwrap();
        assert_eq!((bytes[0], bytes[4096]), (250, 0));
    }
}
