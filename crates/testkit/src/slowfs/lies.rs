//! A FUSE file system that lies: each request is answered by what a test makes up, or honestly.
//!
//! Who asks is the host's kernel, on behalf of the daemon under test. No thread of this process may touch the mount
//! itself: it would wait for an answer of its own. A store that lies may make its callers wait for ever, and then not
//! even SIGKILL ends them; so whatever becomes of the test, the connection is aborted: when the value is dropped, when
//! its thread ends in a panic, and when its time is up.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use zerocopy::{FromBytes, IntoBytes};

use crate::bridge::FuseDevice;
use crate::fuse::abi::{self, opcode};

/// Nodes of what there is when nobody lies, beside the root. Their numbers are those of their inodes, too.
pub const FILE: u64 = 2;
/// See [`FILE`].
pub const DIRECTORY: u64 = 3;
/// See [`FILE`].
pub const LINK: u64 = 4;
/// Under which names they stand.
pub const NAMES: [(&str, u64); 3] = [("file", FILE), ("directory", DIRECTORY), ("link", LINK)];
/// Length of the file, whose bytes are all `h`.
pub const FILE_BYTES: u64 = 10_000;

/// `FOPEN_DIRECT_IO`: each call of the caller is one request here.
const DIRECT_IO: u32 = 1;

/// One request of the host's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is asked.
    pub opcode: u32,
    /// Of which node.
    pub node: u64,
    /// What follows the header.
    pub arguments: &'a [u8],
    /// How many of this opcode there were, with this one.
    pub nth: usize,
}

impl Question<'_> {
    /// The struct at the front of the arguments.
    #[must_use]
    pub fn argument<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.arguments)
            .ok()
            .map(|(value, _)| value)
    }

    /// Whether this name is asked for.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.arguments == [name.as_bytes(), &[0]].concat()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Told {
    /// What is true.
    Honestly,
    /// This.
    Bytes(Vec<u8>),
    /// This error.
    Error(Errno),
    /// Nothing, ever.
    Never,
}

/// Makes answers up. It must not wait for anything.
pub type Liar = Box<dyn FnMut(&Question<'_>) -> Told + Send>;

/// Attributes of a node, honest but for what a test changes.
#[must_use]
pub fn attributes(node: u64) -> abi::Attr {
    let (mode, size) = match node {
        FILE => (0o100_644, FILE_BYTES),
        LINK => (0o120_777, 6),
        _ => (0o040_755, 0),
    };
    abi::Attr {
        ino: node,
        size,
        mode,
        nlink: 1,
        blksize: 4096,
        ..Default::default()
    }
}

/// What GETATTR answers; it holds for no time at all.
#[must_use]
pub fn attr_out(attr: abi::Attr) -> Vec<u8> {
    let out = abi::AttrOut {
        attr,
        ..Default::default()
    };
    out.as_bytes().to_vec()
}

/// What LOOKUP answers; it holds for no time at all.
#[must_use]
pub fn entry_out(nodeid: u64, generation: u64, attr: abi::Attr) -> Vec<u8> {
    let out = abi::EntryOut {
        nodeid,
        generation,
        attr,
        ..Default::default()
    };
    out.as_bytes().to_vec()
}

/// What READDIR answers: inode number, position behind it, type and name of each.
#[must_use]
pub fn listing(entries: &[(u64, u64, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (ino, off, kind, name) in entries {
        let dirent = abi::Dirent {
            ino: *ino,
            off: *off,
            namelen: u32::try_from(name.len()).unwrap_or(u32::MAX),
            kind: *kind,
        };
        bytes.extend_from_slice(dirent.as_bytes());
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

struct State {
    liar: Liar,
    asked: [usize; 64],
}

struct Server {
    device: FuseDevice,
    open_flags: u32,
    init_flags: u64,
    state: Mutex<State>,
    abort: File,
    late: AtomicBool,
}

/// How the host's kernel caches what is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Every read and write is asked for here.
    None,
    /// It reads ahead, and writes when it likes.
    Writeback,
}

/// The mounted file system; dropping it aborts and unmounts.
pub struct LyingFs {
    server: Arc<Server>,
    mountpoint: PathBuf,
    serving: Option<JoinHandle<()>>,
    /// Dropped first, so that nobody counts the time any more.
    _running: Sender<()>,
}

impl LyingFs {
    /// Mounts it, honest, for at most so long; needs root.
    pub fn mount(mountpoint: &Path, caching: Caching, limit: Duration) -> Result<Self> {
        let device = FuseDevice::mount(mountpoint)?;
        let abort = abort_file(mountpoint).inspect_err(|_| {
            let _ = unmount(mountpoint, UnmountFlags::FORCE | UnmountFlags::DETACH);
        })?;
        let (open_flags, init_flags) = match caching {
            Caching::None => (DIRECT_IO, 0),
            Caching::Writeback => (0, abi::init::WRITEBACK_CACHE),
        };
        let server = Arc::new(Server {
            device,
            open_flags,
            init_flags,
            state: Mutex::new(State {
                liar: Box::new(|_| Told::Honestly),
                asked: [0; 64],
            }),
            abort,
            late: AtomicBool::new(false),
        });
        let (running, ended) = mpsc::channel();
        let timed = Arc::clone(&server);
        std::thread::Builder::new()
            .name("lies-time".to_owned())
            .spawn(move || {
                if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    timed.late.store(true, Ordering::Relaxed);
                    timed.abort();
                }
            })?;
        let serving = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("lies".to_owned());
        Ok(Self {
            server,
            mountpoint: mountpoint.to_path_buf(),
            serving: Some(thread.spawn(move || serving.serve())?),
            _running: running,
        })
    }

    /// From now on this one answers, and the counts begin anew.
    pub fn lie(&self, liar: impl FnMut(&Question<'_>) -> Told + Send + 'static) {
        let mut state = self
            .server
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.liar = Box::new(liar);
        state.asked = [0; 64];
    }

    /// How often an opcode was asked since the last [`LyingFs::lie`].
    #[must_use]
    pub fn asked(&self, opcode: u32) -> usize {
        let state = self
            .server
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        usize::try_from(opcode)
            .ok()
            .and_then(|opcode| state.asked.get(opcode).copied())
            .unwrap_or(0)
    }

    /// Fails when it had to be aborted: the time was up, or whoever lies has panicked.
    pub fn is_serving(&self) -> Result<()> {
        ensure!(!self.server.late.load(Ordering::Relaxed), "the time was up");
        let ended = self.serving.as_ref().is_none_or(JoinHandle::is_finished);
        ensure!(!ended, "the lying thread has ended");
        Ok(())
    }
}

impl Drop for LyingFs {
    fn drop(&mut self) {
        self.server.abort();
        let _ = unmount(&self.mountpoint, UnmountFlags::FORCE | UnmountFlags::DETACH);
        if let Some(thread) = self.serving.take() {
            let _ = thread.join();
        }
    }
}

/// What ends the connection of a mount, whatever waits for it.
///
/// Found without looking at the mount, which would ask it.
fn abort_file(mountpoint: &Path) -> Result<File> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let of_this = |line: &&str| line.split(' ').nth(4) == mountpoint.to_str();
    let line = mounts.lines().rfind(of_this).context("its mount")?;
    // Its device has no major number, and the connection is named by the minor one.
    let device = line.split(' ').nth(2).context("its device")?;
    let (_, connection) = device.split_once(':').context("its device")?;
    let place = tempfile::tempdir()?;
    mount("none", place.path(), "fusectl", MountFlags::empty(), None).context("mount fusectl")?;
    let path = place.path().join(connection).join("abort");
    let opened = File::options().write(true).open(&path);
    // The open file keeps what it needs of the mount.
    unmount(place.path(), UnmountFlags::DETACH)?;
    opened.with_context(|| path.display().to_string())
}

/// Aborts when the thread that answers ends, whyever.
struct AtTheEnd<'a>(&'a Server);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    fn abort(&self) {
        // Fails where the connection is gone already.
        let _ = (&self.abort).write_all(b"1");
    }

    fn serve(&self) {
        let _aborts = AtTheEnd(self);
        super::each_request(&self.device, |bytes| self.request(bytes));
    }

    fn request(&self, bytes: &[u8]) {
        let Ok((header, arguments)) = abi::InHeader::read_from_prefix(bytes) else {
            return;
        };
        let no_reply = [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT];
        if no_reply.contains(&header.opcode) {
            return;
        }
        let mut question = Question {
            opcode: header.opcode,
            node: header.nodeid,
            arguments,
            nth: 0,
        };
        let told = if header.opcode == opcode::INIT {
            Told::Honestly
        } else {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let place = usize::try_from(header.opcode).unwrap_or(usize::MAX);
            if let Some(asked) = state.asked.get_mut(place) {
                *asked += 1;
                question.nth = *asked;
            }
            (state.liar)(&question)
        };
        let (error, body) = match told {
            Told::Bytes(body) => (0, body),
            Told::Error(errno) => (-errno.raw_os_error(), Vec::new()),
            Told::Never => return,
            Told::Honestly => match self.honest(&question) {
                Ok(body) => (0, body),
                Err(errno) => (-errno.raw_os_error(), Vec::new()),
            },
        };
        let len = size_of::<abi::OutHeader>() + body.len();
        let out = abi::OutHeader {
            len: u32::try_from(len).unwrap_or(u32::MAX),
            error,
            unique: header.unique,
        };
        let reply = [out.as_bytes(), &body].concat();
        // What the kernel takes for no reply at all leaves its caller waiting: it then gets an error.
        if rustix::io::write(self.device.as_fd(), &reply) == Err(Errno::INVAL) {
            let error = abi::OutHeader {
                len: 16,
                error: -Errno::IO.raw_os_error(),
                ..out
            };
            let _ = rustix::io::write(self.device.as_fd(), error.as_bytes());
        }
    }

    fn honest(&self, question: &Question<'_>) -> Result<Vec<u8>, Errno> {
        match question.opcode {
            opcode::INIT => Ok(super::init(self.init_flags).as_bytes().to_vec()),
            opcode::LOOKUP => {
                let found = NAMES.iter().find(|(name, _)| question.names(name));
                let (_, node) = found.ok_or(Errno::NOENT)?;
                Ok(entry_out(*node, 0, attributes(*node)))
            }
            opcode::GETATTR | opcode::SETATTR => Ok(attr_out(attributes(question.node))),
            opcode::OPEN | opcode::OPENDIR => {
                let is_file = question.opcode == opcode::OPEN;
                let out = abi::OpenOut {
                    open_flags: if is_file { self.open_flags } else { 0 },
                    ..Default::default()
                };
                Ok(out.as_bytes().to_vec())
            }
            opcode::READ => {
                let read: abi::ReadIn = question.argument().ok_or(Errno::INVAL)?;
                let left = FILE_BYTES.saturating_sub(read.offset);
                let len = left.min(read.size.into());
                Ok(vec![b'h'; usize::try_from(len).unwrap_or(0)])
            }
            opcode::WRITE => {
                let write: abi::WriteIn = question.argument().ok_or(Errno::INVAL)?;
                Ok(write_out(write.size))
            }
            opcode::READLINK => Ok(b"target".to_vec()),
            opcode::READDIR
                if question
                    .argument::<abi::ReadIn>()
                    .is_some_and(|r| r.offset == 0) =>
            {
                Ok(listing(&[
                    (1, 1, 4, b"."),
                    (1, 2, 4, b".."),
                    (FILE, 3, 8, b"file"),
                ]))
            }
            opcode::READDIR
            | opcode::FLUSH
            | opcode::FSYNC
            | opcode::FSYNCDIR
            | opcode::RELEASE
            | opcode::RELEASEDIR => Ok(Vec::new()),
            opcode::STATFS => Ok(abi::StatfsOut::default().as_bytes().to_vec()),
            _ => Err(Errno::NOSYS),
        }
    }
}

/// What WRITE answers.
#[must_use]
pub fn write_out(size: u32) -> Vec<u8> {
    let out = abi::WriteOut { size, padding: 0 };
    out.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::bridge::share::{can_mount, run_within, skipped};

    /// The place, a mount there that goes first, and whether another process finds its file.
    fn looked_at(limit: Duration, liar: Liar) -> Option<(TempDir, LyingFs, bool)> {
        if !can_mount() {
            skipped("needs root and /dev/fuse");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let fs = LyingFs::mount(place.path(), Caching::None, limit).unwrap();
        fs.lie(liar);
        let mut look = Command::new("stat");
        let ran = run_within(Duration::from_secs(20), look.arg(place.path().join("file")));
        Some((place, fs, ran.unwrap().status.success()))
    }

    #[test]
    fn a_store_that_never_answers_ends_with_its_time() {
        let never = Box::new(|_: &Question<'_>| Told::Never);
        if let Some((_place, fs, found)) = looked_at(Duration::from_millis(100), never) {
            assert!(!found && fs.is_serving().is_err());
        }
    }

    #[test]
    fn a_liar_that_panics_ends_its_store() {
        let panics = Box::new(|_: &Question<'_>| panic!("on purpose"));
        if let Some((_place, fs, found)) = looked_at(Duration::from_secs(20), panics) {
            assert!(!found && fs.is_serving().is_err());
        }
    }

    #[test]
    fn who_does_not_lie_is_a_store_like_any_other() {
        let honest = Box::new(|_: &Question<'_>| Told::Honestly);
        if let Some((_place, fs, found)) = looked_at(Duration::from_secs(20), honest) {
            assert!(found && fs.is_serving().is_ok() && fs.asked(opcode::LOOKUP) > 0);
        }
    }
}
