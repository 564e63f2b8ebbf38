//! A row set up for one daemon.

use anyhow::Result;

use super::super::guest::Guest;

/// Does `depth` rounds, whose requests are in flight together.
type Round = Box<dyn FnMut(&mut Guest, u16) -> Result<()>>;

/// Makes what a visit's rounds use up.
type Refill = Box<dyn FnMut(&mut Guest) -> Result<()>>;

/// A scenario set up for one daemon.
pub(in crate::bench) struct Work {
    pub(super) refill: Option<Refill>,
    pub(super) round: Round,
}

impl Work {
    pub(super) fn new(round: impl FnMut(&mut Guest, u16) -> Result<()> + 'static) -> Self {
        Self {
            refill: None,
            round: Box::new(round),
        }
    }

    /// Gets ready for a visit, outside the measured time: a first round warms caches and memory.
    pub(in crate::bench) fn begin(&mut self, guest: &mut Guest, depth: u16) -> Result<()> {
        match &mut self.refill {
            // What it looked up is what the rounds need: it stays known.
            Some(refill) => {
                refill(guest)?;
                self.round(guest, depth)
            }
            None => {
                self.round(guest, depth)?;
                guest.settle()
            }
        }
    }

    /// Does `depth` rounds.
    pub(in crate::bench) fn round(&mut self, guest: &mut Guest, depth: u16) -> Result<()> {
        (self.round)(guest, depth)
    }
}
