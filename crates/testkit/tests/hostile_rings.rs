//! Rings as no front-end sets them up: sizes, places and eventfds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::frontend::hostile::messages::{event, is_accepted, prepared};
use virtiofs_testkit::frontend::message::{Code, NO_DESCRIPTOR, VringAddr, VringState};
use virtiofs_testkit::frontend::{Frontend, MemoryMessages, Options};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Session};
use zerocopy::IntoBytes;

#[test]
fn v_ring_sizes_and_bases_are_checked() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = prepared(&target)?;
    let connection = frontend.connection();
    let state = |index, num| VringState { index, num };
    for (num, want) in [
        (0, false),
        (1, true),
        (2, true),
        (3, false),
        (1000, false),
        (1024, true),
        (32_768, true),
        (65_535, false),
        (65_536, false),
        (u32::MAX, false),
    ] {
        let payload = state(1, num);
        let number = Code::SetVringNum.number();
        ensure!(
            is_accepted(connection, number, payload.as_bytes(), &[])? == want,
            "size {num}"
        );
    }
    for (num, want) in [
        (0, true),
        (65_535, true),
        (65_536, false),
        (u32::MAX, false),
    ] {
        let payload = state(1, num);
        let number = Code::SetVringBase.number();
        ensure!(
            is_accepted(connection, number, payload.as_bytes(), &[])? == want,
            "base {num}"
        );
    }
    drop(frontend);
    target.is_unharmed()
}

#[test]
fn v_rings_that_are_not_there_are_refused() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = prepared(&target)?;
    let connection = frontend.connection();
    let queues: u64 = connection.get_value(Code::GetQueueNum, &[])?;
    let queues = u32::try_from(queues)?;
    let state = |index, num| VringState { index, num };
    for (index, want) in [
        (0, true),
        (queues - 1, true),
        (queues, false),
        (255, false),
        (u32::MAX, false),
    ] {
        let number = Code::SetVringNum.number();
        let payload = state(index, 256);
        ensure!(
            is_accepted(connection, number, payload.as_bytes(), &[])? == want,
            "ring {index}"
        );
        let number = Code::SetVringEnable.number();
        let payload = state(index, 0);
        ensure!(
            is_accepted(connection, number, payload.as_bytes(), &[])? == want,
            "ring {index}"
        );
        let address = VringAddr {
            index,
            flags: 0,
            descriptor: 0,
            used: 0,
            available: 0,
            log: 0,
        };
        let number = Code::SetVringAddr.number();
        ensure!(
            is_accepted(connection, number, address.as_bytes(), &[])? == want,
            "ring {index}"
        );
    }
    drop(frontend);
    target.is_unharmed()
}

#[test]
fn v_rings_that_are_not_in_guest_memory_are_not_started() -> Result<()> {
    let mut target = Target::start()?;
    let event = event()?;
    for (what, before_memory, offset, misaligned) in [
        ("before the table", true, 0_u64, 0_u64),
        ("behind memory", false, 1 << 40, 0),
        ("at the last address", false, u64::MAX - (1 << 45), 0),
        ("unaligned", false, 0, 8),
    ] {
        let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
        if !before_memory {
            frontend.share_memory(MemoryMessages::Table)?;
        }
        let start = frontend.memory().regions()[0].message.user_address;
        let at = start.wrapping_add(offset).wrapping_add(misaligned);
        let address = VringAddr {
            index: 1,
            flags: 0,
            descriptor: at,
            used: at,
            available: at,
            log: 0,
        };
        let connection = frontend.connection();
        let state = |num| VringState { index: 1, num };
        connection.set(Code::SetVringNum, state(256).as_bytes(), &[])?;
        connection.set(Code::SetVringAddr, address.as_bytes(), &[])?;
        connection.set(Code::SetVringKick, 1_u64.as_bytes(), &[event.as_fd()])?;
        let number = Code::SetVringEnable.number();
        let accepted = is_accepted(connection, number, state(1).as_bytes(), &[])?;
        ensure!(!accepted, "{what}");
    }
    target.is_unharmed()
}

#[test]
fn v_kicks_calls_and_errors_that_are_no_events_are_refused() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = prepared(&target)?;
    let connection = frontend.connection();
    let event = event()?;
    let file: OwnedFd = std::fs::File::options()
        .read(true)
        .write(true)
        .open(target.share().join("file"))?
        .into();
    let directory: OwnedFd = std::fs::File::open(target.share())?.into();
    let null: OwnedFd = std::fs::File::options()
        .write(true)
        .open("/dev/null")?
        .into();
    for code in [Code::SetVringKick, Code::SetVringCall, Code::SetVringErr] {
        let number = code.number();
        let send = |raw: u64, descriptors: &[BorrowedFd<'_>]| {
            is_accepted(connection, number, raw.as_bytes(), descriptors)
        };
        ensure!(send(1, &[event.as_fd()])?, "{code:?}");
        ensure!(!send(1, &[])?, "{code:?} announced and not sent");
        ensure!(
            !send(1 | NO_DESCRIPTOR, &[event.as_fd()])?,
            "{code:?} sent and not announced"
        );
        ensure!(!send(255, &[event.as_fd()])?, "{code:?} of ring 255");
        for (what, descriptor) in [
            ("file", &file),
            ("directory", &directory),
            ("/dev/null", &null),
        ] {
            ensure!(!send(1, &[descriptor.as_fd()])?, "{code:?} a {what}");
        }
        let without = send(1 | NO_DESCRIPTOR, &[])?;
        ensure!(
            without == (code != Code::SetVringKick),
            "{code:?} without one"
        );
    }
    ensure!(std::fs::read(target.share().join("file"))? == b"contents");
    drop(frontend);
    target.is_unharmed()
}

#[test]
fn v_a_call_eventfd_that_is_full_and_blocking_holds_nobody() -> Result<()> {
    let mut target = Target::start()?;
    let mut frontend = Frontend::connect(target.socket(), &Options::default())?;
    let full = eventfd(0, EventfdFlags::CLOEXEC)?;
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes())?;
    frontend
        .connection()
        .set(Code::SetVringCall, 1_u64.as_bytes(), &[full.as_fd()])?;
    let spinning = ClientOptions {
        waiting: virtiofs_testkit::frontend::Waiting::Spin,
        ..ClientOptions::default()
    };
    let mut client = FuseClient::on(&mut frontend, 1, &spinning)?;
    client.init()?;
    client.queue().want_call(true);
    for _ in 0..100 {
        client.getattr(ROOT)?;
    }
    drop((client, frontend));
    target.is_unharmed()
}

#[test]
fn v_a_kick_that_somebody_else_empties_holds_nobody() -> Result<()> {
    let mut target = Target::start()?;
    let options = Options::default();
    let mut session = Session::open_with(target.socket(), &options, &ClientOptions::default())?;
    let client = session.client();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        let kick = client.queue().kick_fd();
        // The description is shared: so is O_NONBLOCK.
        rustix::fs::fcntl_setfl(kick, OFlags::empty())?;
        rustix::io::write(kick, &1_u64.to_ne_bytes())?;
        let mut poll = [rustix::event::PollFd::new(
            &kick,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if rustix::event::poll(&mut poll, Some(&now))? > 0 {
            rustix::fs::fcntl_setfl(kick, OFlags::NONBLOCK)?;
            let _ = rustix::io::read(kick, &mut [0; 8]);
        }
    }
    client.getattr(ROOT)?;
    drop(session);
    target.is_unharmed()
}

/// The three parts of a ring at one place: what the device writes is what it reads next.
#[test]
fn v_rings_that_overlap_harm_nobody_but_the_guest() -> Result<()> {
    let mut target = Target::start()?;
    let (kick, call) = (event()?, event()?);
    for (available, used) in [(0, 0), (0, 4096), (4096, 0), (16, 32), (4096, 4096)] {
        let frontend = prepared(&target)?;
        let start = frontend.memory().regions()[0].message.user_address;
        let address = VringAddr {
            index: 1,
            flags: 0,
            descriptor: start,
            used: start + used,
            available: start + available,
            log: 0,
        };
        let connection = frontend.connection();
        let state = |num| VringState { index: 1, num };
        connection.set(Code::SetVringNum, state(256).as_bytes(), &[])?;
        connection.set(Code::SetVringAddr, address.as_bytes(), &[])?;
        connection.set(Code::SetVringCall, 1_u64.as_bytes(), &[call.as_fd()])?;
        connection.set(Code::SetVringKick, 1_u64.as_bytes(), &[kick.as_fd()])?;
        let number = Code::SetVringEnable.number();
        is_accepted(connection, number, state(1).as_bytes(), &[])?;
        rustix::io::write(&kick, &1_u64.to_ne_bytes())?;
        let _: u64 = connection.get_value(Code::GetFeatures, &[])?;
    }
    target.is_unharmed()
}
