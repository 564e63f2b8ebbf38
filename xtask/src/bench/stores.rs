//! A store that takes a millisecond for each read: what one queue, and several, make of it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::{Frontend, Options};
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request};
use virtiofs_testkit::slowfs::{self, SlowFs};

use super::daemon::Daemon;
use super::guest::ROOT;
use super::peers::Peer;
use super::processes;

/// What this measurement is called.
pub(super) const NAME: &str = "slow store";

/// How long the store takes for a READ.
const DELAY: Duration = Duration::from_millis(1);

/// Requests in flight where there are many.
const DEPTH: u16 = 32;

/// Request queues where there are many.
const QUEUES: u16 = 4;

/// READs on each queue, at each depth.
const ROUNDS: u16 = 200;

const LIMIT: Duration = Duration::from_secs(20);

/// What one daemon makes of a slow store.
#[derive(Debug)]
pub(super) struct StoreRow {
    pub(super) label: &'static str,
    /// READs per second on one queue, one in flight.
    pub(super) alone: f64,
    /// READs per second on one queue, 32 in flight.
    pub(super) together: f64,
    /// READs per second on four queues, one in flight on each; none where there is one queue only.
    pub(super) queues: Option<f64>,
    /// Time of a GETATTR that the store is not asked for, while 32 READs wait.
    pub(super) cached: Duration,
}

/// Measures each daemon; one that fails is named and left out.
pub(super) fn measure(peers: &[Peer]) -> Result<Vec<StoreRow>> {
    processes::unpin_this_thread()?;
    let mut rows = Vec::new();
    for peer in peers {
        eprintln!("bench: a slow store, {}", peer.label);
        match row(peer) {
            Ok(row) => rows.push(row),
            Err(error) => eprintln!("bench: a slow store without {}: {error:#}", peer.label),
        }
    }
    Ok(rows)
}

fn row(peer: &Peer) -> Result<StoreRow> {
    let (mut one, _frontend, _daemon) = clients(peer, 1)?;
    let client = one.first_mut().context("no queue")?;
    let open = Open::on(client)?;
    let alone = rate(ROUNDS, || open.read_together(client, 1))?;
    let batches = ROUNDS / 8;
    let together = rate(batches, || open.read_together(client, DEPTH))? * f64::from(DEPTH);
    let cached = cached_meanwhile(client, open)?;
    Ok(StoreRow {
        label: peer.label,
        alone,
        together,
        queues: on_queues(peer).ok(),
        cached,
    })
}

/// A new daemon on a new slow store, and a client on each of so many queues.
fn clients(peer: &Peer, queues: u16) -> Result<(Vec<FuseClient>, Frontend, Daemon)> {
    let daemon = Daemon::start_on(peer, |share| {
        let store = SlowFs::mount(share)?;
        store.answer_after(DELAY)?;
        Ok(Some(store))
    })?;
    let mut frontend = Frontend::connect(
        &daemon.socket,
        &Options {
            request_queues: queues,
            ..Options::default()
        },
    )?;
    let options = ClientOptions {
        depth: DEPTH + 1,
        data_bytes: 64 << 10,
        limit: LIMIT,
        ..ClientOptions::default()
    };
    let mut clients = (1..=queues)
        .map(|index| FuseClient::on(&mut frontend, index, &options))
        .collect::<Result<Vec<_>>>()?;
    clients[0].init().context("INIT")?;
    Ok((clients, frontend, daemon))
}

/// One in flight on each of four queues.
fn on_queues(peer: &Peer) -> Result<f64> {
    let (mut clients, _frontend, _daemon) = clients(peer, QUEUES)?;
    let open = Open::on(&mut clients[0])?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || (0..ROUNDS).try_for_each(|_| open.read_together(client, 1)))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| unreachable!()))
    })?;
    Ok(f64::from(ROUNDS * QUEUES) / begun.elapsed().as_secs_f64())
}

/// The store's file, open.
#[derive(Clone, Copy)]
struct Open {
    node: u64,
    fh: u64,
}

impl Open {
    fn on(client: &mut FuseClient) -> Result<Self> {
        let node = client.lookup(ROOT, slowfs::FILE)?.nodeid;
        let fh = client.open(node, 0)?.fh;
        Ok(Self { node, fh })
    }

    fn start_reads(self, client: &mut FuseClient, count: u16) -> Result<()> {
        for number in 0..count {
            let offset = u64::from(number) * 4096;
            client.start(&Request::read(self.node, self.fh, offset, 4096))?;
        }
        client.publish();
        Ok(())
    }

    fn read_together(self, client: &mut FuseClient, count: u16) -> Result<()> {
        self.start_reads(client, count)?;
        for _ in 0..count {
            let answer = client.finish()?;
            client.check(&answer)?;
            ensure!(client.data_len(&answer) == 4096, "a short READ");
        }
        Ok(())
    }
}

/// Median time of a GETATTR that is sent behind 32 READs, of a file that nobody reads: reading makes
/// the time of access unsure, and the store is asked for that.
fn cached_meanwhile(client: &mut FuseClient, open: Open) -> Result<Duration> {
    let other = client.lookup(ROOT, slowfs::OTHER_FILE)?.nodeid;
    let mut times = Vec::new();
    for _ in 0..ROUNDS / 8 {
        open.start_reads(client, DEPTH)?;
        let begun = Instant::now();
        let asked = client.start(&Request::getattr(other, None))?;
        client.publish();
        for _ in 0..=DEPTH {
            let answer = client.finish()?;
            client.check(&answer)?;
            if answer.unique == asked {
                times.push(begun.elapsed());
            }
        }
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no reply")
}

/// How often per second.
fn rate(rounds: u16, mut round: impl FnMut() -> Result<()>) -> Result<f64> {
    round()?;
    let begun = Instant::now();
    for _ in 0..rounds {
        round()?;
    }
    Ok(f64::from(rounds) / begun.elapsed().as_secs_f64())
}

/// The rows as a table.
pub(super) fn markdown(rows: &[StoreRow]) -> String {
    use std::fmt::Write;
    let mut page = String::from(
        "### A store that takes 1 ms for each READ\n\nREADs per second; in brackets against one in flight on one queue. \
         GETATTR is of what the store need not be asked for, sent behind 32 READs.\n\n\
         | daemon | 1 in flight | 32 in flight | 1 on each of 4 queues | GETATTR meanwhile (us) |\n|---|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let against = |rate: f64| format!("{rate:.0} ({:.1})", rate / row.alone);
        let queues = row.queues.map_or("one queue only".to_owned(), against);
        let _ = writeln!(
            page,
            "| {} | {:.0} | {} | {queues} | {} |",
            row.label,
            row.alone,
            against(row.together),
            row.cached.as_micros()
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_how_much_more_is_done_at_once() {
        let row = StoreRow {
            label: "ours",
            alone: 800.0,
            together: 16000.0,
            queues: None,
            cached: Duration::from_micros(31),
        };
        let page = markdown(&[row]);
        let expected = "| ours | 800 | 16000 (20.0) | one queue only | 31 |";
        assert!(page.contains(expected), "{page}");
    }
}
