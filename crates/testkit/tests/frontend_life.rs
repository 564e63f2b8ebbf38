//! The life of a connection, as a front-end that is not a VM sees it: reset, stopped rings, the end, the next one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use virtiofs_testkit::frontend::message::protocol_feature;
use virtiofs_testkit::frontend::{Daemon, Frontend, Launch, Options};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Session, errno, pattern, round_trip};

const SECOND: Duration = Duration::from_secs(1);

fn share() -> Result<(TempDir, Daemon)> {
    let share = tempfile::tempdir()?;
    let daemon = Launch::new(share.path()).start()?;
    Ok((share, daemon))
}

#[test]
fn reset_device_drops_all_state_and_the_device_can_be_set_up_again() -> Result<()> {
    let (share, daemon) = share()?;
    std::fs::write(share.path().join("file"), b"text")?;
    let options = Options::default();
    let mut frontend = Frontend::connect(daemon.socket(), &options)?;
    let offered = frontend.protocol_features().0;
    ensure!(
        offered & protocol_feature::RESET_DEVICE != 0,
        "{offered:#x}"
    );
    let mut client = FuseClient::on(&mut frontend, 1, &ClientOptions::default())?;
    client.init()?;
    let node = client.lookup(ROOT, "file")?.nodeid;
    frontend.reset_device()?;
    frontend.start_ring(1, client.queue())?;
    let stale = errno(client.getattr(node));
    ensure!(stale.is_some(), "a node outlived the reset");
    client.init()?;
    round_trip(&mut client, "after", b"again")
}

#[test]
fn a_ring_that_was_stopped_goes_on_where_it_stood() -> Result<()> {
    let (_share, daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    for _ in 0..5 {
        for _ in 0..7 {
            session.client().getattr(ROOT)?;
        }
        let base = u32::from(session.client().queue().base());
        ensure!(session.frontend.stop_ring(1)? == base);
        let client = session.clients.first_mut().context("a client")?;
        session.frontend.start_ring(1, client.queue())?;
        client.getattr(ROOT)?;
    }
    Ok(())
}

#[test]
fn the_daemon_ends_with_0_when_its_front_end_leaves() -> Result<()> {
    let (_share, mut daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    session.client().getattr(ROOT)?;
    drop(session);
    daemon.expect_exit(0, 10 * SECOND)?;
    for line in [
        "Waiting for vhost-user socket connection...",
        "Client connected, servicing requests",
        "Client disconnected, shutting down",
    ] {
        ensure!(
            daemon.log().contains(line),
            "{line:?} is missing: {}",
            daemon.log()
        );
    }
    Ok(())
}

#[test]
fn with_keep_listening_the_next_front_end_is_served() -> Result<()> {
    let share = tempfile::tempdir()?;
    let mut daemon = Launch::new(share.path()).arg("--keep-listening").start()?;
    for round in 0..5 {
        let mut session = Session::open(daemon.socket())?;
        round_trip(session.client(), "round", &pattern(1000 + round))?;
    }
    ensure!(daemon.is_running());
    daemon.terminate()?;
    daemon.expect_exit(0, 10 * SECOND)
}

#[test]
fn a_protocol_violation_ends_the_daemon_with_1() -> Result<()> {
    let (_share, mut daemon) = share()?;
    let frontend = Frontend::negotiate(daemon.socket(), &Options::default())?;
    // Version 3 of the protocol does not exist.
    let header = [1u32, 3, 0].map(u32::to_ne_bytes).concat();
    frontend.connection().send_raw(&header, &[])?;
    daemon.expect_exit(1, 10 * SECOND)
}

#[test]
fn with_keep_listening_a_violation_ends_only_its_connection() -> Result<()> {
    let share = tempfile::tempdir()?;
    let mut daemon = Launch::new(share.path()).arg("--keep-listening").start()?;
    let frontend = Frontend::negotiate(daemon.socket(), &Options::default())?;
    let header = [1u32, 3, 0].map(u32::to_ne_bytes).concat();
    frontend.connection().send_raw(&header, &[])?;
    ensure!(
        frontend.connection().is_closed_by_peer()?,
        "still connected"
    );
    let mut session = Session::open(daemon.socket())?;
    session.client().getattr(ROOT)?;
    ensure!(daemon.is_running());
    Ok(())
}

fn config_of(share: &Path, arguments: &[&str]) -> Result<(u64, Option<Vec<u8>>)> {
    let daemon = Launch::new(share).args(arguments).start()?;
    let frontend = Frontend::connect(daemon.socket(), &Options::default())?;
    let offered = frontend.protocol_features().0 & protocol_feature::CONFIG;
    let bytes = if offered == 0 {
        None
    } else {
        Some(frontend.config(0, 40)?)
    };
    if offered != 0 {
        // One byte at a time, as user-mode Linux asks.
        for (offset, byte) in (0..).zip(bytes.iter().flatten()) {
            ensure!(frontend.config(offset, 1)? == [*byte], "byte {offset}");
        }
    }
    Ok((offered, bytes))
}

#[test]
fn the_configuration_space_is_there_with_a_tag_only() -> Result<()> {
    let share = tempfile::tempdir()?;
    ensure!(config_of(share.path(), &[])? == (0, None));
    let (offered, bytes) = config_of(share.path(), &["--tag", "files"])?;
    ensure!(offered == protocol_feature::CONFIG);
    let bytes = bytes.context("no configuration")?;
    let (tag, queues) = bytes.split_at(36);
    ensure!(tag.starts_with(b"files\0") && tag[5..].iter().all(|byte| *byte == 0));
    // Numbers in the configuration space are little-endian (virtio 1.3, 5.11.4).
    ensure!(u32::from_le_bytes(queues.try_into()?) >= 1);
    Ok(())
}
