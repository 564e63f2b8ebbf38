//! Random steps on a share, from the guest's and from the host's side, beside a reference.
//!
//! Every step is done twice: on the share, through whichever side it belongs to, and on a directory of the same kind
//! of store that nobody else touches. Both have to answer alike, and from time to time the whole trees are compared.
//! Few names make many collisions; the steps follow from the seed alone, so that a failure can be repeated.
//!
//! A guest that believes what it was told before sees the host's steps late, as it should: there the guest works alone.

mod step;
mod tree;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::random::Random;
use step::{Opened, Step};

/// Steps between two comparisons of the whole trees.
const BETWEEN_COMPARISONS: u64 = 400;
/// Steps that a failure shows.
const SHOWN: usize = 25;

/// Where a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Guest,
    Host,
}

/// Who works in the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// The guest, and every fourth time the host.
    GuestAndHost,
    /// Nobody but the guest.
    GuestAlone,
}

/// A share and its reference.
#[derive(Debug)]
pub struct World {
    share: PathBuf,
    host: PathBuf,
    reference: PathBuf,
    company: Company,
}

impl World {
    /// `share` is where `host` is mounted through the daemon; `reference` is empty, as `host` is. Both sides work in
    /// it, unless something else is said.
    #[must_use]
    pub fn new(share: &Path, host: &Path, reference: &Path) -> Self {
        Self {
            share: share.into(),
            host: host.into(),
            reference: reference.into(),
            company: Company::GuestAndHost,
        }
    }

    /// Says who works in it.
    #[must_use]
    pub fn company(self, company: Company) -> Self {
        Self { company, ..self }
    }

    /// Does `steps` random steps.
    ///
    /// # Errors
    ///
    /// The first difference, with the steps before it.
    pub fn run(&self, seed: u64, steps: u64) -> Result<()> {
        let mut random = Random::new(seed);
        let mut done = std::collections::VecDeque::new();
        let mut open = [Both::default(), Both::default()];
        for number in 0..steps {
            let side = self.side(&mut random);
            let step = Step::random(&mut random);
            if done.len() == SHOWN {
                done.pop_front();
            }
            done.push_back(format!("{number}: {side:?} {step:?}"));
            let here = match side {
                Side::Guest => &self.share,
                Side::Host => &self.host,
            };
            let both = &mut open[usize::from(side == Side::Host)];
            let actual = step.perform(here, &mut both.actual);
            let expected = step.perform(&self.reference, &mut both.expected);
            let story = || Vec::from_iter(done.iter().cloned()).join("\n");
            ensure!(
                actual == expected,
                "{actual:?} instead of {expected:?} after\n{}",
                story()
            );
            if number % BETWEEN_COMPARISONS == BETWEEN_COMPARISONS - 1 {
                self.compare().with_context(story)?;
            }
        }
        self.compare().context("at the end")
    }

    fn side(&self, random: &mut Random) -> Side {
        match self.company {
            Company::GuestAndHost if random.below(4) == 0 => Side::Host,
            Company::GuestAndHost | Company::GuestAlone => Side::Guest,
        }
    }

    fn compare(&self) -> Result<()> {
        if self.company == Company::GuestAlone {
            // With write-back, the host has what was written only then.
            tree::sync(&self.share)?;
        }
        let expected = tree::read(&self.reference)?;
        for (what, root) in [("host", &self.host), ("guest", &self.share)] {
            let actual = tree::read(root)?;
            ensure!(
                actual == expected,
                "the {what} has\n{actual:#?}\ninstead of\n{expected:#?}"
            );
        }
        Ok(())
    }
}

/// What is open on one side, and on the reference for it.
#[derive(Debug, Default)]
struct Both {
    actual: Opened,
    expected: Opened,
}
