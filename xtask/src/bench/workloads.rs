//! Whole workloads on a share: on the bridge, where the host's kernel is the guest, and in a real guest.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use virtiofs_testkit::bridge::share::run_within;
use virtiofs_testkit::bridge::{Bridge, BridgeOptions};
use virtiofs_testkit::guest::share::TAG;
use virtiofs_testkit::guest::{Guest, Machine, Root, scenarios};

use super::daemon::{Daemon, TMPFS};
use super::peers::Peer;

/// What this measurement is called.
pub(super) const NAME: &str = "workloads";

/// The column of the same programs in a directory that nobody shares.
const BARE: &str = "bare";

/// Goes to such a directory in a guest, before the workloads.
const IN_MEMORY: &str = "bare=$(mktemp -d)\nmount -t tmpfs bare \"$bare\"\ncd \"$bare\"\n";

/// Files of a workload's tree.
const FILES: &str = "2000";

const LIMIT: Duration = Duration::from_secs(300);

/// Where a workload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Bridge,
    UserModeLinux,
}

impl Place {
    fn title(self) -> &'static str {
        match self {
            Self::Bridge => "Workloads through the host's own kernel",
            Self::UserModeLinux => "Workloads in a user-mode Linux guest",
        }
    }
}

/// Times of the workloads by daemon, and without any, in one place.
#[derive(Debug)]
pub(super) struct Table {
    title: &'static str,
    /// Ours is the first.
    columns: Vec<&'static str>,
    /// In the order of the script.
    rows: Vec<(String, Vec<Option<Duration>>)>,
}

/// Runs all workloads everywhere, the daemons in turn and without one; each time is the median of the visits.
pub(super) fn measure(peers: &[Peer], visits: u32) -> Result<Vec<Table>> {
    [Place::Bridge, Place::UserModeLinux]
        .into_iter()
        .map(|place| {
            let mut seen = Seen::default();
            for _ in 0..visits {
                for peer in peers {
                    eprintln!("bench: {}, {}", place.title(), peer.label);
                    match on_share(peer, place).and_then(|output| parse(&output)) {
                        Ok(times) => seen.add(peer.label, times),
                        // The C daemon has no configuration space, which user-mode Linux asks for.
                        Err(error) => eprintln!("bench: without {}: {error:#}", peer.label),
                    }
                }
                let ours = peers.first().context("nothing to measure")?;
                seen.add(BARE, parse(&on_nothing(ours, place)?)?);
            }
            Ok(seen.table(place.title(), columns(peers)))
        })
        .collect()
}

/// One for each daemon, and the one without.
fn columns(peers: &[Peer]) -> Vec<&'static str> {
    let labels = peers.iter().map(|peer| peer.label);
    labels.chain([BARE]).collect()
}

fn script() -> String {
    scenarios::with(&[("FILES", FILES)], scenarios::WORKLOADS)
}

/// What the script printed on a new share.
fn on_share(peer: &Peer, place: Place) -> Result<String> {
    match place {
        Place::Bridge => {
            let daemon = Daemon::start(peer)?;
            let mountpoint = TempDir::new()?;
            let options = BridgeOptions {
                queues: 1,
                ..BridgeOptions::default()
            };
            let bridge = Bridge::mount(&daemon.socket, mountpoint.path(), &options)?;
            let output = on_host(mountpoint.path());
            bridge.unmount()?;
            output
        }
        Place::UserModeLinux => in_guest(peer, &script()),
    }
}

/// What it printed where files are in memory and no share is between: that much of the times is the programs' own.
fn on_nothing(ours: &Peer, place: Place) -> Result<String> {
    match place {
        Place::Bridge => on_host(TempDir::with_prefix_in("virtiofsd-bench-", TMPFS)?.path()),
        // A guest has a share in any case; nothing is done in it.
        Place::UserModeLinux => in_guest(ours, &format!("{IN_MEMORY}{}", script())),
    }
}

fn on_host(directory: &Path) -> Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &script()]).current_dir(directory);
    let ran = run_within(LIMIT, &mut shell)?;
    ensure!(ran.status.success(), "{}", ran.output);
    Ok(ran.output)
}

fn in_guest(peer: &Peer, script: &str) -> Result<String> {
    let daemon = Daemon::start_with(peer, &["--tag", TAG])?;
    let guest = Guest::new(Machine::Uml72)?
        .root(Root::Debian)
        .share(&daemon.socket, TAG);
    let outcome = guest.run(script, LIMIT)?;
    ensure!(outcome.exit_code == 0, "{}", outcome.output);
    Ok(outcome.output)
}

/// The times in the order in which they were printed.
fn parse(output: &str) -> Result<Vec<(String, Duration)>> {
    let times: Vec<(String, Duration)> = output
        .lines()
        .filter_map(|line| {
            let (name, time) = line.strip_prefix("WORKLOAD ")?.rsplit_once(' ')?;
            Some((
                name.to_owned(),
                Duration::from_nanos(time.trim().parse().ok()?),
            ))
        })
        .collect();
    ensure!(!times.is_empty(), "no workload ran:\n{output}");
    Ok(times)
}

/// All times so far.
#[derive(Debug, Default)]
struct Seen {
    names: Vec<String>,
    times: BTreeMap<(String, &'static str), Vec<Duration>>,
}

impl Seen {
    fn add(&mut self, label: &'static str, times: Vec<(String, Duration)>) {
        for (name, time) in times {
            if !self.names.contains(&name) {
                self.names.push(name.clone());
            }
            self.times.entry((name, label)).or_default().push(time);
        }
    }

    fn table(mut self, title: &'static str, columns: Vec<&'static str>) -> Table {
        let mut median = |name: &str, label: &'static str| {
            let times = self.times.get_mut(&(name.to_owned(), label))?;
            times.sort_unstable();
            times.get(times.len() / 2).copied()
        };
        let rows = self
            .names
            .iter()
            .map(|name| {
                let times = columns.iter().map(|label| median(name, label)).collect();
                (name.clone(), times)
            })
            .collect();
        Table {
            title,
            columns,
            rows,
        }
    }
}

impl Table {
    /// The table; our time against each other one in brackets.
    pub(super) fn markdown(&self) -> String {
        let mut page = format!(
            "### {}\n\nMilliseconds, in brackets ours against this one; bare: the same programs on a tmpfs, without a share.\n\n| workload | {} |\n|---|{}\n",
            self.title,
            self.columns.join(" | "),
            "---:|".repeat(self.columns.len())
        );
        for (name, times) in &self.rows {
            let ours = times.first().copied().flatten();
            let cells = times.iter().enumerate().map(|(index, time)| match time {
                None => "-".to_owned(),
                Some(time) if index == 0 => time.as_millis().to_string(),
                Some(time) => ours.map_or(time.as_millis().to_string(), |ours| {
                    let ratio = ours.as_secs_f64() / time.as_secs_f64();
                    format!("{} ({ratio:.2})", time.as_millis())
                }),
            });
            let cells: Vec<String> = cells.collect();
            page.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
        }
        page
    }

    /// The same for programs, in nanoseconds.
    pub(super) fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|(name, times)| {
            let by_daemon = self.columns.iter().zip(times).filter_map(|(label, time)| {
                let ns = u64::try_from((*time)?.as_nanos()).ok()?;
                Some(((*label).to_owned(), ns.into()))
            });
            (name.clone(), serde_json::Value::Object(by_daemon.collect()))
        });
        serde_json::json!({"title": self.title, "ns": serde_json::Value::Object(rows.collect())})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::peers;

    #[test]
    fn times_are_read_and_set_against_each_other() {
        let ours = parse("noise\nWORKLOAD git status 2000000\nWORKLOAD untar 5000000\n").unwrap();
        let theirs = parse("WORKLOAD git status 8000000\n").unwrap();
        assert!(parse("nothing").is_err());
        let bare = parse("WORKLOAD untar 4000000\n").unwrap();
        let peers = [
            peers::ours(Path::new("ours")),
            Peer {
                label: "C",
                ..peers::ours(Path::new("C"))
            },
        ];
        let mut seen = Seen::default();
        for (label, times) in [("ours", ours), ("C", theirs), (BARE, bare)] {
            seen.add(label, times);
        }
        let page = seen.table("T", columns(&peers)).markdown();
        assert!(page.contains("| git status | 2 | 8 (0.25) | - |"), "{page}");
        assert!(page.contains("| untar | 5 | - | 4 (1.25) |"), "{page}");
    }
}
