//! System calls per request.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::daemon::Daemon;
use super::guest::Guest;
use super::scenarios::{Scenario, Work};
use super::trace::Trace;

/// Rounds whose system calls are counted.
const TRACED_ROUNDS: u32 = 100;

/// How long the daemon may take to fall asleep after a reply.
const UNTIL_ASLEEP: Duration = Duration::from_millis(20);

/// System calls per request.
#[derive(Clone)]
pub(super) struct Calls {
    /// Those that serve it.
    pub(super) served: f64,
    pub(super) notifications: f64,
    pub(super) waits: f64,
    /// Those that serve it, by name.
    pub(super) by_name: Vec<(String, f64)>,
}

/// Counts the system calls of some rounds, one request at a time.
pub(super) fn count(
    daemon: &Daemon,
    guest: &mut Guest,
    scenario: &Scenario,
    work: &mut Work,
) -> Result<Calls> {
    // What only the first round needs (a descriptor, a cursor) is not the price of a request.
    work.begin(guest, 1)?;
    let rounds = TRACED_ROUNDS.min(scenario.rounds);
    let units = f64::from(rounds * scenario.units);
    let trace = Trace::begin(daemon.tree())?;
    for _ in 0..rounds {
        work.round(guest, 1)?;
    }
    thread::sleep(UNTIL_ASLEEP);
    let counted = trace.end()?;
    guest.settle()?;
    let per_unit = |calls: u32| f64::from(calls) / units;
    let served = counted.served.values().sum();
    let by_name = counted
        .served
        .into_iter()
        .map(|(name, calls)| (name, per_unit(calls)));
    Ok(Calls {
        served: per_unit(served),
        notifications: per_unit(counted.notifications),
        waits: per_unit(counted.waits),
        by_name: by_name.collect(),
    })
}
