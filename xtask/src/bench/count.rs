//! System calls per request, and the budget that ours keeps.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::guest::Guest;
use super::peers;
use super::scenarios::{self, Scenario, Work};
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

/// Requests that cost a build of ours more system calls than their budget, each as a sentence.
pub(crate) fn over_budget(program: &Path) -> Result<Vec<String>> {
    let daemon = Daemon::start(&peers::ours(program)).context("the daemon does not start")?;
    let mut guest = Guest::connect(&daemon).context("cannot connect")?;
    let mut sentences = Vec::new();
    for scenario in scenarios::matching(None) {
        let Some(most) = scenario.calls_max else {
            continue;
        };
        let mut work = (scenario.set_up)(&mut guest).context(scenario.name)?;
        let calls = count(&daemon, &mut guest, scenario, &mut work).context(scenario.name)?;
        sentences.extend(judged(scenario.name, most, &calls));
    }
    Ok(sentences)
}

fn judged(name: &str, most: f64, calls: &Calls) -> Option<String> {
    let by_name = || {
        calls
            .by_name
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
    };
    let list = || by_name().collect::<Vec<_>>().join(", ");
    (calls.served > most).then(|| {
        format!(
            "{name}: {} system calls, at most {most}: {}",
            calls.served,
            list()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_a_hundred_rounds_too_many_is_found() {
        let calls = |served| Calls {
            served,
            notifications: 2.0,
            waits: 1.0,
            by_name: vec![("statx".to_owned(), served)],
        };
        assert_eq!(judged("GETATTR", 1.0, &calls(1.0)), None);
        let sentence = judged("GETATTR", 1.0, &calls(1.01)).unwrap();
        assert_eq!(
            sentence,
            "GETATTR: 1.01 system calls, at most 1: 1.01 statx"
        );
    }
}
