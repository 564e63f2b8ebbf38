//! `cargo xtask bench --layers`: what confinement costs at every request.
//!
//! One build of ours is started four times, with and without the system call filter and Landlock, and visited in
//! turn. Processor time of the daemon is compared, 16 requests in flight on one core.

use std::path::Path;

use anyhow::{Context, Result};

use crate::tools;

use super::daemon::Daemon;
use super::measure::{Bench, Effort, SIXTEEN_IN_FLIGHT};
use super::{circumstances, load, peers, scenarios};

/// Measures and prints the table.
pub(super) fn run(ours: &Path, quick: bool) -> Result<()> {
    tools::debian(&[("strace", "strace")])?;
    let load_before = load()?;
    let daemons = peers::layers(ours)
        .iter()
        .map(Daemon::start)
        .collect::<Result<Vec<_>>>()?;
    let effort = if quick { Effort::QUICK } else { Effort::FINE };
    let mut bench = Bench::new(daemons, effort)?;
    let scenarios = scenarios::matching(Some("GETATTR"));
    let scenario = scenarios.first().context("no GETATTR among the requests")?;
    let figures = bench.measure_in(scenario, SIXTEEN_IN_FLIGHT)?;
    let neither = figures.last().context("nothing was measured")?.cpu_ns;
    println!("{}.\n", circumstances(&load_before)?);
    println!("| layers | processor time of a GETATTR (ns) | more than with neither (ns) |");
    println!("|---|---:|---:|");
    for figure in &figures {
        let more = i128::from(figure.cpu_ns) - i128::from(neither);
        println!("| {} | {} | {more} |", figure.label, figure.cpu_ns);
    }
    Ok(())
}
