//! One, two and four request queues that are all busy, on every processor there is.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use virtiofs_testkit::frontend::{Frontend, Options};
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request};

use super::daemon::Daemon;
use super::guest::ROOT;
use super::peers::Peer;
use super::processes;

/// What this measurement is called.
pub(super) const NAME: &str = "queues";

/// How many queues are busy.
const QUEUES: [u16; 3] = [1, 2, 4];

/// Requests in flight on each.
const DEPTH: u16 = 16;

/// Batches on each queue and visit.
const BATCHES: u32 = 400;

/// Visits to each daemon; the median is told.
const VISITS: usize = 5;

const LIMIT: Duration = Duration::from_secs(20);

/// What one daemon makes of several queues.
#[derive(Debug)]
pub(super) struct QueueRow {
    pub(super) label: &'static str,
    pub(super) queues: u16,
    /// GETATTRs per second, on all queues together.
    pub(super) rate: f64,
    /// Processor time of the daemon for one of them.
    pub(super) cpu_ns: u64,
}

/// A daemon with a guest that has so many queues.
struct Pair {
    label: &'static str,
    queues: u16,
    clients: Vec<FuseClient>,
    _frontend: Frontend,
    daemon: Daemon,
    visits: Vec<Visit>,
}

#[derive(Clone, Copy, Debug)]
struct Visit {
    rate: f64,
    cpu_ns: u64,
}

/// Measures each daemon with as many queues as it takes.
pub(super) fn measure(peers: &[Peer]) -> Result<Vec<QueueRow>> {
    eprintln!("bench: {NAME}");
    processes::unpin_this_thread()?;
    let mut pairs = Vec::new();
    for peer in peers {
        for queues in QUEUES {
            match Pair::start(peer, queues) {
                Ok(pair) => pairs.push(pair),
                // Both other daemons have one request queue.
                Err(error) => eprintln!("bench: {} with {queues} queues: {error:#}", peer.label),
            }
        }
    }
    for _ in 0..VISITS {
        for pair in &mut pairs {
            pair.visit()?;
        }
    }
    Ok(pairs.into_iter().map(Pair::row).collect())
}

impl Pair {
    fn start(peer: &Peer, queues: u16) -> Result<Self> {
        let daemon = Daemon::start(peer)?;
        let options = Options {
            request_queues: queues,
            ..Options::default()
        };
        let mut frontend = Frontend::connect(&daemon.socket, &options)?;
        let options = ClientOptions {
            depth: DEPTH,
            limit: LIMIT,
            ..ClientOptions::default()
        };
        let mut clients = (1..=queues)
            .map(|index| FuseClient::on(&mut frontend, index, &options))
            .collect::<Result<Vec<_>>>()?;
        clients[0].init().context("INIT")?;
        Ok(Self {
            label: peer.label,
            queues,
            clients,
            _frontend: frontend,
            daemon,
            visits: Vec::new(),
        })
    }

    /// Keeps all queues busy for a while.
    fn visit(&mut self) -> Result<()> {
        let tree = self.daemon.tree();
        let before = tree.usage()?;
        let begun = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .clients
                .iter_mut()
                .map(|client| scope.spawn(move || (0..BATCHES).try_for_each(|_| batch(client))))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                let done = thread.join();
                done.unwrap_or_else(|_| Err(anyhow!("a guest's thread panicked")))
            })
        })?;
        let took = begun.elapsed();
        let used = tree.usage()? - before;
        let requests = BATCHES * u32::from(DEPTH) * u32::from(self.queues);
        self.visits.push(Visit {
            rate: f64::from(requests) / took.as_secs_f64(),
            cpu_ns: used.cpu_ns / u64::from(requests),
        });
        Ok(())
    }

    fn row(self) -> QueueRow {
        let mut rates: Vec<f64> = self.visits.iter().map(|visit| visit.rate).collect();
        rates.sort_by(f64::total_cmp);
        let mut cpu: Vec<u64> = self.visits.iter().map(|visit| visit.cpu_ns).collect();
        cpu.sort_unstable();
        QueueRow {
            label: self.label,
            queues: self.queues,
            rate: rates[VISITS / 2],
            cpu_ns: cpu[VISITS / 2],
        }
    }
}

fn batch(client: &mut FuseClient) -> Result<()> {
    for _ in 0..DEPTH {
        client.start(&Request::getattr(ROOT, None))?;
    }
    client.publish();
    for _ in 0..DEPTH {
        let answer = client.finish()?;
        client.check(&answer)?;
    }
    Ok(())
}

/// The rows as a table.
pub(super) fn markdown(rows: &[QueueRow]) -> String {
    use std::fmt::Write;
    let mut page = format!(
        "### Several queues\n\nGETATTR, {DEPTH} in flight on each queue, a thread of the guest for each, every \
         processor for everybody: requests per second on all queues together; processor time of the daemon for one, \
         in microseconds. A daemon that is not named with a number of queues does not take so many.\n\n\
         | daemon | queues | per second | processor time |\n|---|---:|---:|---:|\n",
    );
    for row in rows {
        let cpu = Duration::from_nanos(row.cpu_ns).as_secs_f64() * 1e6;
        let _ = writeln!(
            page,
            "| {} | {} | {:.0} | {cpu:.2} |",
            row.label, row.queues, row.rate
        );
    }
    page
}

/// The rows for programs.
pub(super) fn json(rows: &[QueueRow]) -> Value {
    rows.iter()
        .map(|row| {
            json!({"label": row.label, "queues": row.queues, "per_sec": row.rate, "cpu_ns": row.cpu_ns})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_rate_and_the_price() {
        let row = QueueRow {
            label: "ours",
            queues: 4,
            rate: 812_345.6,
            cpu_ns: 1234,
        };
        let page = markdown(&[row]);
        assert!(page.contains("| ours | 4 | 812346 | 1.23 |"), "{page}");
    }
}
