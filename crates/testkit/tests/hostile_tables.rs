//! Tables of guest memory as no front-end sends them.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, open};
use virtiofs_testkit::frontend::hostile::Target;
use virtiofs_testkit::frontend::hostile::messages::{
    event, header, is_accepted, memfd, prepared, region, shares,
};
use virtiofs_testkit::frontend::message::{Code, MemoryRegion, VERSION};
use virtiofs_testkit::frontend::{Frontend, Options};
use zerocopy::IntoBytes;

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
        let accepted = shares(&frontend, regions, &files).with_context(|| (*what).to_owned())?;
        ensure!(accepted == *want, "{what}: accepted {accepted}");
    }
    // Counts that lie about the descriptors, and about the payload.
    ensure!(!shares(&frontend, &[region(MIB, MIB)], &[])?);
    ensure!(!shares(&frontend, &[region(MIB, MIB)], &[file.as_fd(); 2])?);
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
        let accepted = shares(&frontend, &[region(1 << 20, 4096)], &[descriptor.as_fd()])?;
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

/// As many regions as the message says, which is longer than any message.
#[test]
fn v_tables_of_509_and_1000_regions_end_the_connection_alone() -> Result<()> {
    let mut target = Target::start()?;
    let file = memfd(4096)?;
    for count in [509_u32, 1000] {
        let frontend = prepared(&target)?;
        let regions: Vec<MemoryRegion> = (0..u64::from(count))
            .map(|number| region(number * 8192, 4096))
            .collect();
        let payload = [[count, 0].as_bytes(), regions.as_bytes()].concat();
        let size = u32::try_from(payload.len())?;
        let code = Code::SetMemTable.number();
        let connection = frontend.connection();
        connection.send_raw(&header(code, VERSION, size), &[file.as_fd(); 8])?;
        ensure!(connection.is_closed_by_peer()?, "{count}");
    }
    target.is_unharmed()
}
