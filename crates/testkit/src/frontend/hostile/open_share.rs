//! A share whose contents hostile tests know.

use anyhow::{Context, Result, ensure};

use super::{Scribbler, Target};
use crate::frontend::Options;
use crate::fuse::Request;
use crate::fuse::abi::{self, EntryOut, OpenOut, ROOT};

/// A share with a file and a directory in it, looked up and opened.
#[derive(Debug)]
pub struct OpenShare {
    /// The daemon.
    pub target: Target,
    /// Its front-end.
    pub scribbler: Scribbler,
    /// Node of the file, which holds eight bytes.
    pub file: u64,
    /// Its handle, for reading and writing.
    pub fh: u64,
    /// Node of the directory.
    pub directory: u64,
    /// Its handle.
    pub directory_fh: u64,
    /// A handle that was closed.
    pub closed_fh: u64,
    /// A node that was forgotten.
    pub stale: u64,
}

impl OpenShare {
    /// Starts the daemon and opens everything.
    pub fn new() -> Result<Self> {
        let target = Target::start()?;
        std::fs::create_dir(target.share().join("directory"))?;
        std::fs::write(target.share().join("stale"), b"")?;
        let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
        let mut node = |name: &[u8]| -> Result<u64> {
            ensure!(scribbler.error_of(&Request::lookup(ROOT, name))? == 0);
            Ok(scribbler.body::<EntryOut>().nodeid)
        };
        let (file, directory, stale) = (node(b"file")?, node(b"directory")?, node(b"stale")?);
        let mut open = |request: &Request<'_>| -> Result<u64> {
            ensure!(scribbler.error_of(request)? == 0);
            Ok(scribbler.body::<OpenOut>().fh)
        };
        let fh = open(&Request::open(file, 2))?;
        let directory_fh = open(&Request::opendir(directory))?;
        let closed_fh = open(&Request::open(file, 2))?;
        let release = abi::ReleaseIn {
            fh: closed_fh,
            ..Default::default()
        };
        ensure!(scribbler.error_of(&Request::release(file, &release))? == 0);
        let forget = scribbler.bytes(&Request::forget(stale, 1));
        ensure!(scribbler.any(&forget, 4096)?.is_none());
        Ok(Self {
            target,
            scribbler,
            file,
            fh,
            directory,
            directory_fh,
            closed_fh,
            stale,
        })
    }

    /// It serves as before, and holds no more than before.
    pub fn finish(mut self) -> Result<()> {
        self.scribbler.is_served()?;
        drop(self.scribbler);
        self.target.is_unharmed()
    }

    /// The error of a reply, 0 for success.
    pub fn error_of(&mut self, request: &Request<'_>) -> Result<i32> {
        self.scribbler
            .error_of(request)
            .with_context(|| format!("opcode {}", request.opcode))
    }
}
