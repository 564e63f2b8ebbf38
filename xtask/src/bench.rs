//! `cargo xtask bench`: what a request costs, ours beside the two existing daemons.
//!
//! Every daemon serves a directory of its own on tmpfs and stays connected to
//! our front-end for the whole run. Each measurement visits the daemons in
//! turn before it visits the first one again, so that what changes with the
//! minute changes for all. Processor time of the daemon is the steadiest
//! figure; the time of a request holds our front-end's share as well, which
//! is the same for all. System calls are counted in a pass of its own, under
//! strace, after all timing is done.

mod count;
mod daemon;
mod guest;
mod layers;
mod measure;
mod peers;
mod plot;
mod processes;
mod queues;
mod record;
mod report;
mod scenarios;
mod stores;
mod trace;
mod workloads;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::repo;

use daemon::Daemon;
use measure::Effort;
use peers::Builds;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fetch and build the daemons to compare with, below target/peers
    #[arg(long)]
    install_peers: bool,

    /// A tenth of the rounds: shows that everything works, not how fast
    #[arg(long)]
    quick: bool,

    /// Also write every figure to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also put the tables into docs/PERFORMANCE.md
    #[arg(long, conflicts_with_all = ["quick", "filter"])]
    record: bool,

    /// Only what the system call filter and Landlock cost a GETATTR: ours with both, with either and with neither
    #[arg(long, conflicts_with_all = ["install_peers", "record", "json", "filter"])]
    layers: bool,

    /// Measure this build of ours rather than one made now: an earlier one, for example
    #[arg(long, value_name = "FILE")]
    ours: Option<PathBuf>,

    /// Also measure this earlier build of ours, beside the one of now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["layers", "record"])]
    before: Option<PathBuf>,

    /// Visit each daemon a hundred times instead of seven, for differences of tens of nanoseconds
    #[arg(long, conflicts_with_all = ["quick", "record"])]
    fine: bool,

    /// Only requests whose name contains this, in any case
    filter: Option<String>,
}

/// Measures, prints the tables and writes the file.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.install_peers {
        peers::install()?;
    }
    let effort = match (args.quick, args.fine) {
        (true, _) => Effort::QUICK,
        (_, true) => Effort::FINE,
        _ => Effort::FULL,
    };
    let ours = match &args.ours {
        Some(program) => program.clone(),
        None => build::daemon()?,
    };
    if args.layers {
        return layers::run(&ours, args.quick);
    }
    let builds = Builds {
        ours,
        before: args.before.clone(),
    };
    let daemons = start_all(&builds);
    ensure!(!daemons.is_empty(), "there is no daemon to measure");
    let scenarios = scenarios::matching(args.filter.as_deref());
    let with_queues = scenarios::matches(queues::NAME, args.filter.as_deref());
    let with_stores = scenarios::matches(stores::NAME, args.filter.as_deref());
    let with_workloads = scenarios::matches(workloads::NAME, args.filter.as_deref());
    ensure!(
        with_queues || with_stores || with_workloads || !scenarios.is_empty(),
        "nothing that is measured has such a name"
    );
    let load_before = load()?;
    let mut bench = measure::Bench::new(daemons, effort)?;
    let idle = bench.idle()?;
    let mut figures = Vec::new();
    for scenario in &scenarios {
        figures.extend(bench.measure(scenario)?);
    }
    let results = report::Results {
        circumstances: circumstances(&load_before)?,
        daemons: bench.describe()?,
        idle,
        figures,
        budgets: scenarios::budgets(),
        queues: if with_queues {
            queues::measure(&peers::all(&builds))?
        } else {
            Vec::new()
        },
        stores: if with_stores {
            stores::measure(&peers::all(&builds))?
        } else {
            Vec::new()
        },
        workloads: if with_workloads {
            workloads::measure(&peers::all(&builds), effort.visits())?
        } else {
            Vec::new()
        },
    };
    println!("{}", results.markdown());
    if args.record {
        record::write(&results.markdown())?;
        let setting = measure::SIXTEEN_IN_FLIGHT;
        plot::write(&results.figures, setting, &report::title(setting))?;
    }
    if let Some(file) = &args.json {
        std::fs::write(file, results.json()?)?;
    }
    Ok(())
}

/// What a reader must know of a run to compare it with another.
fn circumstances(load_before: &str) -> Result<String> {
    let ask = |program: &str, arguments: &[&str]| {
        repo::output(Command::new(program).args(arguments)).map(|text| text.trim().to_owned())
    };
    let commit = ask("git", &["describe", "--always", "--dirty", "--exclude=*"])?;
    let release = ask("uname", &["-r"])?;
    // What follows the number names a build of somebody's.
    let kernel = release.split('-').next().unwrap_or_default();
    let processors = ask("getconf", &["_NPROCESSORS_ONLN"])?;
    Ok(format!(
        "Commit {commit}, Linux {kernel}, {processors} processors, tmpfs; \
         load average {load_before} before and {} after",
        load()?
    ))
}

/// Processes that ran or wanted to in the last minute, on average (man 5 proc, /proc/loadavg).
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let load = text.split(' ').next().context("an empty /proc/loadavg")?;
    Ok(load.to_owned())
}

/// Starts ours and what is installed of the others; one that does not start is named and left out.
fn start_all(builds: &Builds) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for peer in peers::all(builds) {
        match Daemon::start(&peer) {
            Ok(daemon) => daemons.push(daemon),
            Err(error) => eprintln!("bench: without {}: {error:#}", peer.label),
        }
    }
    daemons
}
