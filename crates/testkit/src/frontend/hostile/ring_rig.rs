//! A daemon and a ring of it that is written by hand.

use anyhow::{Context, Result, ensure};

use super::{Descriptor, Scribbler, Target};
use crate::frontend::{Options, RegionSpec};
use crate::fuse::Request;
use crate::fuse::abi::ROOT;

const MIB: u64 = 1 << 20;

/// A daemon and a ring.
#[derive(Debug)]
pub struct RingRig {
    /// The daemon.
    pub target: Target,
    /// Its front-end.
    pub scribbler: Scribbler,
}

impl RingRig {
    /// The number of descriptors of its ring.
    pub const SIZE: u16 = 256;
    /// GETATTR: header and arguments.
    pub const ASKED: u32 = 56;
    /// GETATTR: header and answer.
    pub const ANSWERED: u32 = 120;

    /// Starts the daemon and connects.
    pub fn new() -> Result<Self> {
        let target = Target::start()?;
        let scribbler = Scribbler::connect(target.socket(), &Self::options())?;
        Ok(Self { target, scribbler })
    }

    /// Each case is a table whose chain at index 0 must come back with that
    /// length; after each, a well-formed request is served.
    pub fn chains(mut self, cases: &[(&str, Vec<Descriptor>, u32)]) -> Result<()> {
        for (what, table, want) in cases {
            let scribbler = &mut self.scribbler;
            scribbler.write_request(&Request::getattr(ROOT, None));
            let written = scribbler.chain(table).with_context(|| what.to_string())?;
            ensure!(written == *want, "{what}: {written} bytes");
            scribbler.is_served().with_context(|| what.to_string())?;
        }
        self.finish()
    }

    /// It serves as before, and holds no more than before.
    pub fn finish(mut self) -> Result<()> {
        drop(self.scribbler);
        self.target.is_unharmed()
    }

    /// Two regions side by side, a hole, and one more.
    #[must_use]
    pub fn options() -> Options {
        let region = |guest_address, len_bytes| RegionSpec {
            guest_address,
            len_bytes,
        };
        Options {
            memory: vec![
                region(4096 * MIB, 64 * MIB),
                region(4160 * MIB, 64 * MIB),
                region(4300 * MIB, 64 * MIB),
            ],
            queue_size: Self::SIZE,
            ..Options::default()
        }
    }
}
