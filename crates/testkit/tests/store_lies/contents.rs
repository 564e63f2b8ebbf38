//! Lies about bytes: what is read, written and synced.

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use virtiofs_testkit::fuse::abi::{self, opcode};
use virtiofs_testkit::fuse::errno;
use virtiofs_testkit::slowfs::lies::{self, Caching, Told};

use crate::rig::{O_RDWR, PAGE, Rig, well_formed};

/// A store whose attributes say ten bytes. Each row: what it gives for a page, and what of that arrives.
#[test]
fn what_is_read_is_what_the_store_gave_whatever_size_it_stated() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let (node, fh) = rig.file()?;
    let page = usize::try_from(PAGE)?;
    let rows = [
        (page, Ok(page)),
        (10, Ok(10)),
        (3, Ok(3)),
        (0, Ok(0)),
        // The host's kernel takes no more than was asked for.
        (page + 1, Err(Errno::IO)),
    ];
    for (given, want) in rows {
        rig.fs.lie(move |question| match question.opcode {
            opcode::GETATTR if question.node == lies::FILE => {
                Told::Bytes(lies::attr_out(abi::Attr {
                    size: 10,
                    ..lies::attributes(lies::FILE)
                }))
            }
            // A second one asks whether that was the end.
            opcode::READ if question.nth > 1 => Told::Bytes(Vec::new()),
            opcode::READ => Told::Bytes(vec![b'l'; given]),
            _ => Told::Honestly,
        });
        ensure!(rig.client().getattr(node)?.size == 10);
        let read = well_formed(rig.client().read(node, fh, 0, PAGE))?;
        ensure!(
            read == want.map(|len| vec![b'l'; len]),
            "{given} given: {read:?}"
        );
    }
    rig.finish_unharmed()
}

/// Each row: bytes written, what the store says to each part of them, and what the guest is told.
#[test]
fn what_is_acknowledged_is_what_the_store_took() -> Result<()> {
    type Row = (
        usize,
        fn(u32, usize) -> Result<u32, Errno>,
        Result<u32, Errno>,
    );
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let (node, fh) = rig.file()?;
    // The most that this store is sent at once.
    const PART: u32 = 128 << 10;
    let rows: [Row; 6] = [
        (100, |size, _| Ok(size), Ok(100)),
        (100, |_, _| Ok(40), Ok(40)),
        (100, |_, _| Ok(0), Ok(0)),
        (100, |size, _| Ok(size + 1), Err(Errno::IO)),
        (100, |_, _| Err(Errno::DQUOT), Err(Errno::DQUOT)),
        (
            300 << 10,
            |size, nth| {
                if nth == 1 {
                    Ok(size)
                } else {
                    Err(Errno::NOSPC)
                }
            },
            Ok(PART),
        ),
    ];
    for (len, answer, want) in rows {
        rig.lie(opcode::WRITE, move |question| {
            let write: abi::WriteIn = question.argument().unwrap_or_default();
            match answer(write.size, question.nth) {
                Ok(size) => Told::Bytes(lies::write_out(size)),
                Err(errno) => Told::Error(errno),
            }
        });
        let told = well_formed(rig.client().write(node, fh, 0, &vec![b'w'; len]))?;
        ensure!(told == want, "{len} bytes: {told:?} instead of {want:?}");
    }
    rig.finish_unharmed()
}

/// A short answer would say that the file ends there, and a guest would believe it.
#[test]
fn an_error_behind_the_first_page_is_an_error_and_not_the_end_of_the_file() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::Writeback, &[])? else {
        return Ok(());
    };
    let (node, fh) = rig.file()?;
    rig.lie(opcode::READ, |question| {
        let read: abi::ReadIn = question.argument().unwrap_or_default();
        if read.offset + u64::from(read.size) > u64::from(PAGE) {
            Told::Error(Errno::IO)
        } else {
            Told::Honestly
        }
    });
    let both = well_formed(rig.client().read(node, fh, 0, 2 * PAGE))?;
    ensure!(
        both == Err(Errno::IO),
        "{:?} bytes",
        both.map(|bytes| bytes.len())
    );
    let first = rig.client().read(node, fh, 0, PAGE)?;
    ensure!(first == vec![b'h'; first.len()] && first.len() == usize::try_from(PAGE)?);
    rig.finish_unharmed()
}

#[test]
fn an_fsync_that_fails_is_told_once_by_each_file_that_was_open() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::Writeback, &[])? else {
        return Ok(());
    };
    let (node, first) = rig.file()?;
    let second = rig.client().open(node, O_RDWR)?.fh;
    rig.lie(opcode::WRITE, |_| Told::Error(Errno::IO));
    // The host's page cache takes them, and loses them later.
    let taken = rig.client().write(node, first, 0, &[b'w'; 4096])?;
    ensure!(taken == PAGE, "{taken}");
    for fh in [first, second] {
        let told = errno(rig.client().fsync(node, fh));
        ensure!(told == Some(Errno::IO), "{told:?}");
        rig.client().fsync(node, fh).context("told a second time")?;
    }
    rig.finish_unharmed()
}

/// The store itself fails once, with everything written: nobody else hears of it.
#[test]
fn a_store_that_fails_one_fsync_fails_one_request() -> Result<()> {
    let Some(mut rig) = Rig::start(Caching::None, &[])? else {
        return Ok(());
    };
    let (node, first) = rig.file()?;
    let second = rig.client().open(node, O_RDWR)?.fh;
    rig.lie(opcode::FSYNC, |question| match question.nth {
        1 => Told::Error(Errno::NOSPC),
        _ => Told::Honestly,
    });
    let told = errno(rig.client().fsync(node, first));
    ensure!(told == Some(Errno::NOSPC), "{told:?}");
    rig.client().fsync(node, first)?;
    rig.client().fsync(node, second)?;
    ensure!(rig.fs.asked(opcode::FSYNC) == 3);
    rig.finish_unharmed()
}
