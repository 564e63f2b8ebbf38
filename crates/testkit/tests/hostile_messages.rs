//! Messages as no front-end sends them: each is refused, or its connection
//! is closed, and the daemon takes the next one with nothing left behind.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::messages::{event, header, is_accepted};
use virtiofs_testkit::frontend::hostile::{LIMIT, Target};
use virtiofs_testkit::frontend::message::{Code, VERSION};
use virtiofs_testkit::frontend::{Connection, Frontend, Launch, Options};
use zerocopy::IntoBytes;

/// One message number after the last that is known.
const NUMBERS: u32 = 64;

#[test]
fn v_headers_that_make_no_sense_end_the_connection_alone() -> Result<()> {
    let mut target = Target::start()?;
    for (what, bytes) in [
        ("version 0", header(1, 0, 0)),
        ("version 2", header(1, 2, 0)),
        ("version 3", header(1, 3, 0)),
        ("4097 bytes", header(1, VERSION, 4097)),
        ("4 GiB", header(1, VERSION, u32::MAX)),
        ("random bytes", vec![0xa5; 4096]),
    ] {
        let connection = Connection::open(target.socket(), LIMIT)?;
        connection.send_raw(&bytes, &[])?;
        ensure!(connection.is_closed_by_peer()?, "{what}");
    }
    target.is_unharmed()
}

#[test]
fn v_sizes_that_are_wrong_are_refused_or_end_the_connection() -> Result<()> {
    let mut target = Target::start()?;
    // What a message needs, in bytes; GET_* and the like need nothing.
    let needs = [
        (Code::SetFeatures, 8),
        (Code::SetProtocolFeatures, 8),
        (Code::SetVringNum, 8),
        (Code::SetVringBase, 8),
        (Code::GetVringBase, 8),
        (Code::SetVringEnable, 8),
        (Code::SetVringAddr, 40),
        (Code::SetMemTable, 8),
        (Code::AddMemReg, 40),
        (Code::RemMemReg, 40),
        (Code::SetVringKick, 8),
        (Code::SetVringCall, 8),
        (Code::SetVringErr, 8),
    ];
    for (code, need) in needs {
        for size in [0, need / 2, need - 1] {
            let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
            let payload = vec![0xff; size];
            let accepted = is_accepted(frontend.connection(), code.number(), &payload, &[])
                .with_context(|| format!("{code:?} of {size} bytes"))?;
            // A count of regions alone is a table only when it is zero.
            ensure!(!accepted, "{code:?} of {size} bytes is accepted");
            let _: u64 = frontend.connection().get_value(Code::GetFeatures, &[])?;
        }
    }
    target.is_unharmed()
}

#[test]
fn v_unknown_and_unnegotiated_requests_are_refused_in_order() -> Result<()> {
    let mut target = Target::start()?;
    let answered = [1, 11, 15, 17, 24, 36];
    let harmless = [2, 3, 4, 16, 21, 34];
    for number in (0..NUMBERS).chain([1000, u32::MAX]) {
        if answered.contains(&number) || harmless.contains(&number) {
            continue;
        }
        let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
        let accepted = is_accepted(frontend.connection(), number, &[0xff; 64], &[])
            .with_context(|| format!("message {number}"))?;
        ensure!(!accepted, "message {number} is accepted");
        drop(frontend);
        // Without an agreement on acknowledgements there is no way to refuse it.
        let connection = Connection::open(target.socket(), LIMIT)?;
        connection.send_raw(
            &[&header(number, VERSION, 64)[..], &[0xff; 64]].concat(),
            &[],
        )?;
        ensure!(connection.is_closed_by_peer()?, "message {number}");
    }
    target.is_unharmed()
}

#[test]
fn v_features_that_were_not_offered_are_refused() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    let (offered, _) = frontend.features();
    let (protocol, _) = frontend.protocol_features();
    for bit in 0..64 {
        let one = 1_u64 << bit;
        for (code, offered) in [
            (Code::SetFeatures, offered),
            (Code::SetProtocolFeatures, protocol),
        ] {
            // REPLY_ACK stays agreed on, or nothing would be told.
            let wanted = if code == Code::SetProtocolFeatures {
                one | 8
            } else {
                one
            };
            let accepted =
                is_accepted(frontend.connection(), code.number(), wanted.as_bytes(), &[])?;
            ensure!(accepted == (offered & one != 0), "{code:?} bit {bit}");
        }
    }
    drop(frontend);
    target.is_unharmed()
}

#[test]
fn v_descriptors_are_closed_whatever_they_came_with() -> Result<()> {
    let mut target = Target::start()?;
    let event = event()?;
    for number in 0..NUMBERS {
        for count in [1, 2, 8, 32] {
            let connection = Connection::open(target.socket(), LIMIT)?;
            let descriptors = vec![event.as_fd(); count];
            let bytes = [&header(number, VERSION, 64)[..], &[0; 64]].concat();
            connection.send_raw(&bytes, &descriptors)?;
        }
    }
    target.is_unharmed()
}

#[test]
fn v_too_many_descriptors_end_the_connection() -> Result<()> {
    let mut target = Target::start()?;
    let event = event()?;
    for count in [33, 64, 253] {
        let connection = Connection::open(target.socket(), LIMIT)?;
        let descriptors = vec![event.as_fd(); count];
        connection.send_raw(&header(5, VERSION, 0), &descriptors)?;
        ensure!(connection.is_closed_by_peer()?, "{count}");
        // Twice as many in two pieces of one message.
        let connection = Connection::open(target.socket(), LIMIT)?;
        let bytes = header(5, VERSION, 8);
        connection.send_raw(&bytes[..6], &[event.as_fd(); 20])?;
        std::thread::sleep(Duration::from_millis(10));
        connection.send_raw(&bytes[6..], &[event.as_fd(); 20])?;
        ensure!(connection.is_closed_by_peer()?);
    }
    target.is_unharmed()
}

#[test]
fn v_a_front_end_may_hang_up_at_any_byte() -> Result<()> {
    let mut target = Target::start()?;
    let event = event()?;
    let message = [&header(12, VERSION, 8)[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    for sent in 0..=message.len() {
        let connection = Connection::open(target.socket(), LIMIT)?;
        if sent > 0 {
            connection.send_raw(&message[..sent], &[event.as_fd()])?;
        }
    }
    target.is_unharmed()
}

#[test]
fn v_one_byte_per_write_is_a_message() -> Result<()> {
    let mut target = Target::start()?;
    let connection = Connection::open(target.socket(), LIMIT)?;
    for byte in header(1, VERSION, 0) {
        connection.stream().write_all(&[byte])?;
        std::thread::yield_now();
    }
    let reply = connection.receive()?;
    ensure!(reply.header.request == 1 && reply.payload.len() == 8);
    drop(connection);
    target.is_unharmed()
}

#[test]
fn v_silence_after_half_a_header_does_not_keep_the_daemon_from_stopping() -> Result<()> {
    let mut target = Target::start()?;
    let connection = Connection::open(target.socket(), LIMIT)?;
    connection.send_raw(&header(1, VERSION, 8)[..5], &[])?;
    std::thread::sleep(Duration::from_millis(50));
    target.daemon().terminate()?;
    target.daemon().expect_exit(0, LIMIT)
}

#[test]
fn v_a_flood_of_refused_messages_is_not_a_flood_of_lines() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    for _ in 0..5000 {
        ensure!(!is_accepted(frontend.connection(), 1000, &[], &[])?);
    }
    drop(frontend);
    let lines = target.log().lines().count();
    ensure!(lines < 50, "{lines} lines");
    target.is_unharmed()
}

#[test]
fn v_without_keep_listening_a_violation_ends_the_daemon_in_order() -> Result<()> {
    let share = tempfile::tempdir()?;
    let mut daemon = Launch::new(share.path()).start()?;
    let connection = Connection::open(daemon.socket(), LIMIT)?;
    connection.send_raw(&header(1, 0, 0), &[])?;
    ensure!(connection.is_closed_by_peer()?);
    daemon.expect_exit(1, LIMIT)?;
    ensure!(
        daemon.log().contains("protocol violation"),
        "{}",
        daemon.log()
    );
    Ok(())
}

#[test]
fn v_a_message_that_is_a_byte_too_long_is_answered_and_the_next_one_served() -> Result<()> {
    let mut target = Target::start()?;
    for (code, size) in [
        (Code::SetFeatures, 9),
        (Code::SetProtocolFeatures, 9),
        (Code::SetVringNum, 9),
        (Code::SetVringBase, 9),
        (Code::SetVringEnable, 9),
        (Code::SetVringAddr, 41),
        (Code::SetMemTable, 9),
        (Code::AddMemReg, 41),
        (Code::RemMemReg, 41),
        (Code::SetVringKick, 9),
    ] {
        let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
        let payload = vec![0xff; size];
        let accepted = is_accepted(frontend.connection(), code.number(), &payload, &[])
            .with_context(|| format!("{code:?}"))?;
        ensure!(!accepted, "{code:?} of {size} bytes is accepted");
        let _: u64 = frontend.connection().get_value(Code::GetFeatures, &[])?;
    }
    target.is_unharmed()
}
