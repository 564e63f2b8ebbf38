//! Messages as no front-end sends them: each is refused, or its connection
//! is closed, and the daemon takes the next one with nothing left behind.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::frontend::message::{
    Code, Header, MemoryRegion, NEED_REPLY, NO_DESCRIPTOR, REPLY, VERSION, VringAddr, VringState,
};
use virtiofs_testkit::frontend::{Connection, Frontend, Launch, MemoryMessages, Options};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Session};
use zerocopy::{FromBytes, IntoBytes};

const LIMIT: Duration = Duration::from_secs(10);
/// One message number after the last that is known.
const NUMBERS: u32 = 64;

fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    let header = Header {
        request,
        flags,
        size,
    };
    header.as_bytes().to_vec()
}

fn event() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Sends a message that wants to be told; true when it was carried out.
fn is_accepted(
    connection: &Connection,
    code: u32,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<bool> {
    let size = u32::try_from(payload.len())?;
    let bytes = [&header(code, VERSION | NEED_REPLY, size)[..], payload].concat();
    connection.send_raw(&bytes, descriptors)?;
    let reply = connection.receive()?;
    ensure!(
        reply.header.request == code && reply.header.flags & REPLY != 0,
        "{:?}",
        reply.header
    );
    let status = u64::read_from_bytes(&reply.payload);
    status
        .map(|status| status == 0)
        .map_err(|_| anyhow::anyhow!("{reply:?}"))
}

/// A front-end that has agreed on everything and shared its memory.
fn prepared(target: &Target) -> Result<Frontend> {
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    frontend.share_memory(MemoryMessages::Table)?;
    Ok(frontend)
}

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
fn v_a_peer_that_never_reads_loses_its_connection() -> Result<()> {
    let mut target = Target::start()?;
    let connection = Connection::open(target.socket(), LIMIT)?;
    connection.limit(Duration::from_secs(30))?;
    let many: Vec<u8> = header(1, VERSION, 0).repeat(1000);
    // Ends when the daemon closes: until then both directions fill up.
    let ended = (0..100_000).any(|_| connection.stream().write_all(&many).is_err());
    ensure!(ended, "a million replies were kept for it");
    target.is_unharmed()
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

/// A memory table of these regions; true when it was accepted.
fn share(frontend: &Frontend, regions: &[MemoryRegion], files: &[BorrowedFd<'_>]) -> Result<bool> {
    let count = u32::try_from(regions.len())?;
    let payload = [[count, 0].as_bytes(), regions.as_bytes()].concat();
    is_accepted(
        frontend.connection(),
        Code::SetMemTable.number(),
        &payload,
        files,
    )
}

fn region(guest_address: u64, size: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address,
        size,
        user_address: guest_address.wrapping_add(1 << 40),
        mmap_offset: 0,
    }
}

fn memfd(len: u64) -> Result<OwnedFd> {
    let file = memfd_create(c"guest", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, len)?;
    Ok(file)
}

#[test]
fn v_memory_tables_that_cannot_be_are_refused() -> Result<()> {
    const MIB: u64 = 1 << 20;
    let mut target = Target::start()?;
    let frontend = prepared(&target)?;
    let file = memfd(MIB)?;
    let with_offset = |mmap_offset| MemoryRegion {
        mmap_offset,
        ..region(MIB, MIB)
    };
    let cases: &[(&str, Vec<MemoryRegion>, bool)] = &[
        ("none", vec![], true),
        ("one", vec![region(MIB, MIB)], true),
        (
            "nine side by side",
            (0..9).map(|n| region(n * MIB, MIB)).collect(),
            true,
        ),
        ("32", (0..32).map(|n| region(n * MIB, MIB)).collect(), true),
        ("empty", vec![region(MIB, 0)], false),
        ("larger than the file", vec![region(MIB, MIB + 1)], false),
        ("very large", vec![region(0, u64::MAX)], false),
        ("overflowing", vec![region(u64::MAX - 4095, MIB)], false),
        ("behind the file", vec![with_offset(MIB)], false),
        (
            "offset overflows",
            vec![with_offset(u64::MAX - 4095)],
            false,
        ),
        (
            "overlapping",
            vec![region(MIB, MIB), region(2 * MIB - 4096, MIB)],
            false,
        ),
        (
            "the same twice",
            vec![region(MIB, MIB), region(MIB, MIB)],
            false,
        ),
    ];
    for (what, regions, want) in cases {
        let files = vec![file.as_fd(); regions.len()];
        let accepted = share(&frontend, regions, &files).with_context(|| (*what).to_owned())?;
        ensure!(accepted == *want, "{what}: accepted {accepted}");
    }
    // Counts that lie about the descriptors, and about the payload.
    ensure!(!share(&frontend, &[region(MIB, MIB)], &[])?);
    ensure!(!share(&frontend, &[region(MIB, MIB)], &[file.as_fd(); 2])?);
    for count in [1_u32, 9, 509, 1000, u32::MAX] {
        let payload = [count, 0];
        let files = vec![file.as_fd(); usize::try_from(count.min(32))?];
        let connection = frontend.connection();
        let code = Code::SetMemTable.number();
        ensure!(
            !is_accepted(connection, code, payload.as_bytes(), &files)?,
            "{count}"
        );
    }
    drop(frontend);
    target.is_unharmed()
}

#[test]
fn v_memory_that_is_no_memory_is_refused() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = prepared(&target)?;
    let path = target.share().join("big");
    std::fs::write(&path, vec![0; 1 << 20])?;
    let (pipe, _other_end) = rustix::pipe::pipe()?;
    let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
    let open = |path: &std::path::Path, flags| open(path, flags, Mode::empty());
    let cases: [(&str, OwnedFd); 7] = [
        ("a pipe", pipe),
        ("a socket", socket.into()),
        ("an eventfd", event()?),
        ("a directory", open(target.share(), OFlags::RDONLY)?),
        ("a read-only file", open(&path, OFlags::RDONLY)?),
        ("an O_PATH descriptor", open(&path, OFlags::PATH)?),
        ("/dev/zero", open("/dev/zero".as_ref(), OFlags::RDWR)?),
    ];
    for (what, descriptor) in &cases {
        let accepted = share(&frontend, &[region(1 << 20, 4096)], &[descriptor.as_fd()])?;
        ensure!(!accepted, "{what}");
    }
    drop(frontend);
    target.is_unharmed()
}

#[test]
fn v_memory_slots_are_counted_and_come_back() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    let connection = frontend.connection();
    let most: u64 = connection.get_value(Code::GetMaxMemSlots, &[])?;
    let file = memfd(4096)?;
    let slot = |n: u64| [0_u64.as_bytes(), region(n * 8192, 4096).as_bytes()].concat();
    let add = Code::AddMemReg.number();
    let remove = Code::RemMemReg.number();
    for n in 0..most {
        ensure!(
            is_accepted(connection, add, &slot(n), &[file.as_fd()])?,
            "slot {n}"
        );
    }
    ensure!(!is_accepted(connection, add, &slot(most), &[file.as_fd()])?);
    ensure!(is_accepted(connection, remove, &slot(7), &[])?);
    ensure!(
        !is_accepted(connection, remove, &slot(7), &[])?,
        "removed twice"
    );
    ensure!(is_accepted(connection, add, &slot(most), &[file.as_fd()])?);
    ensure!(
        !is_accepted(connection, add, &slot(7), &[])?,
        "without a descriptor"
    );
    drop(frontend);
    target.is_unharmed()
}

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

#[test]
fn v_truncated_guest_memory_ends_its_connection_alone() -> Result<()> {
    let mut target = Target::start()?;
    let mut session = Session::open(target.socket())?;
    session.client().getattr(ROOT)?;
    let file = session.frontend.memory().regions()[0].file();
    ftruncate(file, 0)?;
    // Only the daemon may touch what is gone now.
    rustix::io::write(session.clients[0].queue().kick_fd(), &1_u64.to_ne_bytes())?;
    ensure!(session.frontend.connection().is_closed_by_peer()?);
    let lines = target
        .log()
        .matches("truncated the memory it shares")
        .count();
    ensure!(lines == 1, "{}", target.log());
    ensure!(
        !target.log().contains("a queue is broken"),
        "{}",
        target.log()
    );
    // Its queues look at the memory when they are dropped: not these.
    std::mem::forget(session);
    target.daemon();
    target.serves()
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
fn v_user_mode_linux_pads_its_memory_table() -> Result<()> {
    let mut target = Target::start()?;
    let frontend = Frontend::negotiate(target.socket(), &Options::default())?;
    let file = memfd(1 << 20)?;
    let mut payload = [[1_u32, 0].as_bytes(), region(4096, 1 << 20).as_bytes()].concat();
    payload.resize(72, 0);
    let code = Code::SetMemTable.number();
    ensure!(is_accepted(
        frontend.connection(),
        code,
        &payload,
        &[file.as_fd()]
    )?);
    drop(frontend);
    target.is_unharmed()
}
