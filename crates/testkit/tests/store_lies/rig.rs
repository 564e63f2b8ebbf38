//! A share with a store in it that lies when it is told to.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::{Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::{Daemon, Launch};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{Failure, FuseClient, Session};
use virtiofs_testkit::slowfs::lies::{Caching, LyingFs, Question, Told};

pub(crate) const O_RDWR: u32 = 2;
pub(crate) const PAGE: u32 = 4096;

/// A share with a lying store in it. Fields are dropped in this order: what waits for the store ends first.
pub(crate) struct Rig {
    pub(crate) fs: LyingFs,
    pub(crate) session: Session,
    daemon: Daemon,
    _share: Tmpfs,
    /// The root of the store.
    pub(crate) root: u64,
}

impl Rig {
    /// `None` after saying that the test was skipped.
    pub(crate) fn start(caching: Caching, arguments: &[&str]) -> Result<Option<Self>> {
        if !can_mount() {
            skipped("needs root and /dev/fuse");
            return Ok(None);
        }
        let share = Tmpfs::new()?;
        let place = share.path().join("store");
        std::fs::create_dir(&place)?;
        let fs = LyingFs::mount(&place, caching, limit())?;
        let daemon = Launch::new(share.path()).args(arguments).start()?;
        let mut session = Session::open(daemon.socket())?;
        let root = session.client().lookup(ROOT, "store")?.nodeid;
        Ok(Some(Self {
            fs,
            session,
            daemon,
            _share: share,
            root,
        }))
    }

    pub(crate) fn client(&mut self) -> &mut FuseClient {
        self.session.client()
    }

    pub(crate) fn look_up(&mut self, name: &str) -> Result<u64> {
        let root = self.root;
        Ok(self.client().lookup(root, name)?.nodeid)
    }

    /// The file, and it open for reading and writing.
    pub(crate) fn file(&mut self) -> Result<(u64, u64)> {
        let node = self.look_up("file")?;
        let fh = self.client().open(node, O_RDWR)?.fh;
        Ok((node, fh))
    }

    /// Answers requests of one kind in this way, and all others honestly.
    pub(crate) fn lie(
        &self,
        about: u32,
        mut answer: impl FnMut(&Question<'_>) -> Told + Send + 'static,
    ) {
        self.fs.lie(move |question| {
            if question.opcode == about {
                answer(question)
            } else {
                Told::Honestly
            }
        });
    }

    /// The store is honest again: it is served as if nothing had been.
    pub(crate) fn finish_unharmed(mut self) -> Result<()> {
        self.fs.is_serving()?;
        self.fs.lie(|_| Told::Honestly);
        ensure!(self.daemon.is_running(), "it ended: {}", self.daemon.log());
        self.client().getattr(ROOT)?;
        let (node, fh) = self.file()?;
        let bytes = self.client().read(node, fh, 0, 100)?;
        ensure!(bytes == [b'h'; 100], "{bytes:?}");
        Ok(())
    }
}

/// How long a case may take; then its store is aborted and the case fails.
fn limit() -> Duration {
    let minutes = if is_long() { 30 } else { 2 };
    Duration::from_secs(60 * minutes)
}

/// Whether tests are to look where the usual run does not.
pub(crate) fn is_long() -> bool {
    std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1")
}

/// What was answered, or the errno; anything else is no answer.
pub(crate) fn well_formed<T>(result: Result<T, Failure>) -> Result<Result<T, Errno>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Errno(errno)) => Ok(Err(errno)),
        Err(failure) => bail!("{failure}"),
    }
}
