//! Taking the figures: rounds, blocks, repetitions, daemons in turn.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;
use virtiofs_testkit::frontend::Waiting;

use super::count::count;
use super::daemon::{Daemon, TMPFS};
use super::guest::Guest;
use super::processes::{self, Usage};
use super::report::{DaemonRow, Figure, IdleRow};
use super::scenarios::{Breadth, Direct, Scenario, Work};

/// How much is done for a figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Visits to each daemon per figure.
    repetitions: u32,
    /// Rounds are divided by this.
    divisor: u32,
    /// How long daemons are watched doing nothing.
    idle: Duration,
}

impl Effort {
    /// Visits to each daemon for a whole workload, which takes seconds.
    pub(super) fn visits(self) -> u32 {
        self.repetitions.div_ceil(3)
    }

    pub(super) const FULL: Self = Self {
        repetitions: 7,
        divisor: 1,
        idle: Duration::from_secs(5),
    };
    /// Differences of tens of nanoseconds need many visits.
    pub(super) const FINE: Self = Self {
        repetitions: 101,
        divisor: 1,
        idle: Duration::ZERO,
    };
    pub(super) const QUICK: Self = Self {
        repetitions: 3,
        divisor: 10,
        idle: Duration::from_secs(1),
    };
}

/// Where guest and daemon run, and how many requests are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) depth: u16,
    pub(super) place: Place,
    /// How the guest waits; a virtual processor that is polled while it is halted does not sleep.
    pub(super) guest: Waiting,
}

/// Which processor the daemon has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The guest's own: they take turns.
    SameCore,
    /// Another: a wakeup crosses from one to the other.
    OtherCore,
}

/// Where wakeups are shared by many requests: what is left is the work itself.
pub(super) const SIXTEEN_IN_FLIGHT: Setting = Setting {
    depth: 16,
    place: Place::SameCore,
    guest: Waiting::Sleep,
};

/// Settings of the tables, in their order.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        depth: 1,
        place: Place::SameCore,
        guest: Waiting::Sleep,
    },
    Setting {
        depth: 1,
        place: Place::OtherCore,
        guest: Waiting::Sleep,
    },
    Setting {
        depth: 1,
        place: Place::OtherCore,
        guest: Waiting::Spin,
    },
    SIXTEEN_IN_FLIGHT,
    Setting {
        depth: 32,
        place: Place::OtherCore,
        guest: Waiting::Sleep,
    },
];

/// Who makes the calls of a request without a daemon.
pub(super) const DIRECT: &str = "direct";

/// Processor of the guest.
const GUEST_PROCESSOR: usize = 0;

/// All daemons with their guests.
pub(super) struct Bench {
    pairs: Vec<(Daemon, Guest)>,
    effort: Effort,
    /// Where the calls of a request are made without a daemon.
    place: TempDir,
    /// Whether there is a second processor to put the daemon on.
    other_core: bool,
}

/// What one visit to a daemon showed.
struct Sample {
    /// Time of each batch, per unit.
    times_ns: Vec<u64>,
    cpu_ns: u64,
    units: u64,
}

impl Bench {
    /// Connects a guest to every daemon.
    pub(super) fn new(daemons: Vec<Daemon>, effort: Effort) -> Result<Self> {
        // Asked before this thread gives up all processors but one.
        let other_core = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        processes::pin_this_thread(GUEST_PROCESSOR)?;
        let mut pairs = Vec::new();
        for daemon in daemons {
            let guest = Guest::connect(&daemon)
                .with_context(|| format!("cannot connect to {}", daemon.label))?;
            pairs.push((daemon, guest));
        }
        Ok(Self {
            pairs,
            effort,
            place: TempDir::with_prefix_in("virtiofsd-bench-", TMPFS)?,
            other_core,
        })
    }

    /// Names and memory of the daemons.
    pub(super) fn describe(&self) -> Result<Vec<DaemonRow>> {
        self.pairs
            .iter()
            .map(|(daemon, _)| {
                let private_kib = daemon.tree().private_kib()?;
                Ok(DaemonRow {
                    label: daemon.label,
                    what: daemon.what,
                    private_kib,
                })
            })
            .collect()
    }

    /// What the daemons do when there is nothing to do.
    pub(super) fn idle(&self) -> Result<Vec<IdleRow>> {
        // What follows the handshake (a poll window, a timer) may end first.
        thread::sleep(Duration::from_secs(1));
        let before = self.usages()?;
        thread::sleep(self.effort.idle);
        let after = self.usages()?;
        let rows = self.pairs.iter().zip(after.into_iter().zip(before));
        Ok(rows
            .map(|((daemon, _), (after, before))| IdleRow {
                label: daemon.label,
                secs: self.effort.idle.as_secs(),
                used: after - before,
            })
            .collect())
    }

    fn usages(&self) -> Result<Vec<Usage>> {
        self.pairs
            .iter()
            .map(|(daemon, _)| daemon.tree().usage())
            .collect()
    }

    /// All figures of one scenario; a daemon that fails it is named and left out.
    pub(super) fn measure(&mut self, scenario: &Scenario) -> Result<Vec<Figure>> {
        eprintln!("bench: {}", scenario.name);
        let mut direct = match scenario.direct {
            Some(set_up) => reported(DIRECT, scenario, set_up(self.place.path())),
            None => None,
        };
        let mut works: Vec<Option<Work>> = Vec::new();
        for (daemon, guest) in &mut self.pairs {
            works.push(reported(daemon.label, scenario, (scenario.set_up)(guest)));
        }
        let mut figures = Vec::new();
        for setting in SETTINGS {
            let possible = self.other_core || setting.place == Place::SameCore;
            if possible && scenario.breadth.covers(*setting) {
                figures.extend(self.time(scenario, *setting, (&mut works, &mut direct))?);
            }
        }
        for ((daemon, guest), work) in self.pairs.iter_mut().zip(&mut works) {
            let Some(counted) = work else { continue };
            let calls = count(daemon, guest, scenario, counted);
            let calls = reported(daemon.label, scenario, calls);
            let of_daemon = figures
                .iter_mut()
                .filter(|figure| figure.label == daemon.label);
            of_daemon.for_each(|figure| figure.calls.clone_from(&calls));
        }
        Ok(figures)
    }

    /// Times one scenario in one setting.
    pub(super) fn measure_in(
        &mut self,
        scenario: &Scenario,
        setting: Setting,
    ) -> Result<Vec<Figure>> {
        let mut works = Vec::new();
        for (_, guest) in &mut self.pairs {
            works.push(Some((scenario.set_up)(guest)?));
        }
        self.time(scenario, setting, (&mut works, &mut None))
    }

    /// Times one setting, the daemons in turn.
    fn time(
        &mut self,
        scenario: &Scenario,
        setting: Setting,
        (works, direct): (&mut [Option<Work>], &mut Option<Direct>),
    ) -> Result<Vec<Figure>> {
        let mut samples: Vec<Vec<Sample>> = self.pairs.iter().map(|_| Vec::new()).collect();
        let visit = Visit {
            scenario,
            setting,
            divisor: self.effort.divisor,
        };
        let mut without = Vec::new();
        for _ in 0..self.effort.repetitions {
            if let Some(direct) = direct {
                without.push(sample_direct(direct, visit)?);
            }
            for (index, (daemon, guest)) in self.pairs.iter_mut().enumerate() {
                let Some(work) = &mut works[index] else {
                    continue;
                };
                daemon.tree().pin(setting.place.daemon_processor())?;
                guest.wait_by(setting.guest);
                let sample = sample(daemon, guest, visit, work);
                match reported(daemon.label, scenario, sample) {
                    Some(sample) => samples[index].push(sample),
                    None => {
                        works[index] = None;
                        // What it did find is not to weigh on the next scenario.
                        guest.settle()?;
                    }
                }
            }
        }
        let labels = self.pairs.iter().map(|(daemon, _)| daemon.label);
        samples.push(without);
        Ok(labels
            .chain([DIRECT])
            .zip(&samples)
            .filter_map(|(label, samples)| figure(label, scenario, setting, samples))
            .collect())
    }
}

impl Breadth {
    fn covers(self, setting: Setting) -> bool {
        match self {
            Self::Full => true,
            Self::OneInFlight => setting.depth == 1,
            Self::Once => setting == SETTINGS[0],
        }
    }
}

impl Place {
    fn daemon_processor(self) -> usize {
        match self {
            Self::SameCore => GUEST_PROCESSOR,
            Self::OtherCore => GUEST_PROCESSOR + 1,
        }
    }
}

/// A failure is shown, with whose it is, and costs that daemon this scenario.
fn reported<T>(label: &str, scenario: &Scenario, outcome: Result<T>) -> Option<T> {
    outcome
        .inspect_err(|error| eprintln!("bench: {label}: {}: {error:#}", scenario.name))
        .ok()
}

/// What to do at one visit to a daemon.
#[derive(Clone, Copy)]
struct Visit<'a> {
    scenario: &'a Scenario,
    setting: Setting,
    divisor: u32,
}

/// Visits a daemon once.
fn sample(daemon: &Daemon, guest: &mut Guest, visit: Visit<'_>, work: &mut Work) -> Result<Sample> {
    let Visit {
        scenario,
        setting,
        divisor,
    } = visit;
    let batches = (scenario.rounds / divisor / u32::from(setting.depth)).max(1);
    let units = u64::from(scenario.units) * u64::from(setting.depth);
    work.begin(guest, setting.depth)?;
    let mut times_ns = Vec::new();
    let before = settled_usage(daemon)?;
    for _ in 0..batches {
        let begun = Instant::now();
        work.round(guest, setting.depth)?;
        times_ns.push(u64::try_from(begun.elapsed().as_nanos())? / units);
    }
    let used = settled_usage(daemon)? - before;
    guest.settle()?;
    Ok(Sample {
        times_ns,
        cpu_ns: used.cpu_ns,
        units: units * u64::from(batches),
    })
}

/// Makes the calls of a scenario without a daemon; all of that time is processor time.
fn sample_direct(direct: &mut Direct, visit: Visit<'_>) -> Result<Sample> {
    let Visit {
        scenario, divisor, ..
    } = visit;
    let rounds = (scenario.rounds / divisor).max(1);
    let units = u64::from(scenario.units);
    direct()?;
    let mut times_ns = Vec::new();
    let begun = Instant::now();
    for _ in 0..rounds {
        let begun = Instant::now();
        direct()?;
        times_ns.push(u64::try_from(begun.elapsed().as_nanos())? / units);
    }
    Ok(Sample {
        times_ns,
        cpu_ns: u64::try_from(begun.elapsed().as_nanos())?,
        units: units * u64::from(rounds),
    })
}

/// Usage once the daemon sleeps again: the kernel adds up a thread's time when it stops running.
fn settled_usage(daemon: &Daemon) -> Result<Usage> {
    thread::sleep(Duration::from_millis(2));
    daemon.tree().usage()
}

fn figure(
    label: &'static str,
    scenario: &Scenario,
    setting: Setting,
    samples: &[Sample],
) -> Option<Figure> {
    let mut times: Vec<u64> = samples
        .iter()
        .flat_map(|sample| sample.times_ns.clone())
        .collect();
    let mut cpu: Vec<u64> = samples
        .iter()
        .map(|sample| sample.cpu_ns / sample.units)
        .collect();
    Some(Figure {
        scenario: scenario.name,
        label,
        setting,
        median_ns: percentile(&mut times, 50)?,
        p99_ns: percentile(&mut times, 99)?,
        cpu_ns: percentile(&mut cpu, 50)?,
        calls: None,
    })
}

/// The value that so many percent do not exceed; none of an empty list.
fn percentile(values: &mut [u64], percent: usize) -> Option<u64> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    values.get(last * percent / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_values() {
        let mut values: Vec<u64> = (1..=101).rev().collect();
        assert_eq!(percentile(&mut values, 50), Some(51));
        assert_eq!(percentile(&mut values, 99), Some(100));
        assert_eq!(percentile(&mut [3], 99), Some(3));
        assert_eq!(percentile(&mut [], 50), None);
    }
}
