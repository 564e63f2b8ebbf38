//! What is measured: one row per kind of request.
//!
//! A row prepares what it needs and returns a closure that does one round, or
//! several rounds at once where requests are to be in flight together. What a
//! round leaves the guest owing (lookups to forget) is settled outside the
//! measured time.

mod attributes;
mod contents;
mod direct;
mod files;
mod listing;
mod names;
mod replay;
mod work;

use std::path::Path;

use anyhow::Result;
use rustix::fs::OFlags;
use virtiofs_testkit::fuse::abi::fattr;

use super::guest::Guest;
use files::{O_RDONLY, O_RDWR};

pub(super) use direct::Direct;
pub(super) use work::Work;

/// One row.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Rounds between two settlements.
    pub(super) rounds: u32,
    /// What one round is counted as: entries of a listing, for example.
    pub(super) units: u32,
    pub(super) breadth: Breadth,
    /// System calls of ours per unit, at most.
    pub(super) calls_max: Option<f64>,
    pub(super) set_up: fn(&mut Guest) -> Result<Work>,
    /// The same calls without a daemon, where it can be said what they are.
    pub(super) direct: Option<fn(&Path) -> Result<Direct>>,
}

/// In how many settings a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    /// In all.
    Full,
    /// Where one request is in flight: a round has an order of its own.
    OneInFlight,
    /// In the first one: a round is long.
    Once,
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// All rows, with what ours may cost; testkit's test of system calls holds it to that.
const SCENARIOS: &[Scenario] = &[
    row("GETATTR", 1000, attributes::getattr)
        .within(1.0)
        .like(direct::getattr),
    row("LOOKUP, known", 1000, attributes::lookup_known)
        .within(1.0)
        .like(direct::lookup),
    row("LOOKUP, new", files::MANY / 2, attributes::lookup_new).within(2.0),
    row("LOOKUP, missing", 1000, attributes::lookup_missing)
        .within(1.0)
        .like(direct::lookup_missing),
    row("LOOKUP, known, + FORGET", 500, attributes::lookup_forget).within(1.0),
    row("GETXATTR", 1000, attributes::getxattr).like(direct::getxattr),
    row("OPEN + RELEASE, reading", 500, |guest| {
        contents::open_release(guest, O_RDONLY)
    })
    .within(2.0)
    .like(|place| direct::open_release(place, OFlags::RDONLY)),
    row("OPEN + RELEASE, reading and writing", 500, |guest| {
        contents::open_release(guest, O_RDWR)
    })
    .within(2.0)
    .like(|place| direct::open_release(place, OFlags::RDWR)),
    row("READ 4 KiB", 1000, |guest| contents::read(guest, 4 * KIB))
        .within(1.0)
        .like(|place| direct::read(place, 4 * KIB)),
    row("READ, short, inside a page", 1000, contents::read_short).within(1.0),
    row("READ 128 KiB", 320, |guest| {
        contents::read(guest, 128 * KIB)
    })
    .within(1.0)
    .like(|place| direct::read(place, 128 * KIB)),
    row("READ 1 MiB", 64, |guest| contents::read(guest, MIB))
        .within(1.0)
        .like(|place| direct::read(place, MIB)),
    row("WRITE 4 KiB", 1000, |guest| contents::write(guest, 4 * KIB))
        .within(1.0)
        .like(|place| direct::write(place, 4 * KIB)),
    row("WRITE 128 KiB", 320, |guest| {
        contents::write(guest, 128 * KIB)
    })
    .within(1.0)
    .like(|place| direct::write(place, 128 * KIB)),
    row("WRITE 1 MiB", 64, |guest| contents::write(guest, MIB))
        .within(1.0)
        .like(|place| direct::write(place, MIB)),
    row("CREATE + RELEASE + UNLINK, uid 0", 320, |guest| {
        names::create_unlink(guest, 0)
    })
    .like(direct::create_unlink),
    row("CREATE + RELEASE + UNLINK, uid 1000", 320, |guest| {
        names::create_unlink(guest, 1000)
    }),
    row("UNLINK, looked up", files::MANY / 2, names::unlink).within(2.0),
    row("FLUSH", 1000, contents::flush).within(0.0),
    row("SETATTR mode", 1000, |guest| {
        attributes::setattr(guest, fattr::MODE)
    })
    .like(direct::setattr_mode),
    row("SETATTR size", 1000, |guest| {
        attributes::setattr(guest, fattr::SIZE)
    })
    .like(direct::setattr_size),
    // One call per entry, and the listing's own: open, a few buffers, close.
    row("READDIRPLUS, new, per entry", 1, |guest| {
        listing::list(guest, 1000)
    })
    .of_many(1000)
    .measured(Breadth::OneInFlight)
    .within(1.02)
    .like(direct::list),
    row("READDIRPLUS of 100,000, new, per entry", 1, |guest| {
        listing::list(guest, 100_000)
    })
    .of_many(100_000)
    .measured(Breadth::Once),
    row(
        "small file: LOOKUP GETATTR OPEN READ FLUSH RELEASE",
        128,
        replay::small_files,
    ),
    row("git status, per file", 4, replay::git_status)
        .of_many(replay::TREE_FILES)
        .measured(Breadth::OneInFlight),
    row("untar, per file", 4, replay::untar)
        .of_many(replay::UNPACKED)
        .measured(Breadth::OneInFlight),
];

const fn row(name: &'static str, rounds: u32, set_up: fn(&mut Guest) -> Result<Work>) -> Scenario {
    Scenario {
        name,
        rounds,
        units: 1,
        breadth: Breadth::Full,
        calls_max: None,
        set_up,
        direct: None,
    }
}

impl Scenario {
    /// Ours makes at most so many system calls per request.
    const fn within(mut self, calls: f64) -> Self {
        self.calls_max = Some(calls);
        self
    }

    /// One round is one request with many results, and is counted per result.
    const fn of_many(mut self, results: u32) -> Self {
        self.units = results;
        self
    }

    const fn measured(mut self, breadth: Breadth) -> Self {
        self.breadth = breadth;
        self
    }

    /// What the same costs whoever calls the kernel.
    const fn like(mut self, direct: fn(&Path) -> Result<Direct>) -> Self {
        self.direct = Some(direct);
        self
    }
}

/// System calls that ours may make, by row.
pub(super) fn budgets() -> Vec<(&'static str, f64)> {
    SCENARIOS
        .iter()
        .filter_map(|row| Some((row.name, row.calls_max?)))
        .collect()
}

/// The rows whose name contains a text, in any case.
pub(super) fn matching(filter: Option<&str>) -> Vec<&'static Scenario> {
    SCENARIOS
        .iter()
        .filter(|row| matches(row.name, filter))
        .collect()
}

/// Whether a name contains a text, in any case.
pub(super) fn matches(name: &str, filter: Option<&str>) -> bool {
    let filter = filter.unwrap_or("").to_lowercase();
    name.to_lowercase().contains(&filter)
}
