//! Numbers at and beyond the limits of every opcode that takes one.

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::OpenShare;
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{self, EntryOut, OpenOut, ROOT, fattr, opcode};

const EINVAL: i32 = 22;
const BIG: u64 = 1 << 63;

/// Each row is a request that is refused so, and changes nothing.
fn refused(mut rig: OpenShare, cases: &[(&str, Request<'_>, i32)]) -> Result<()> {
    for (what, request, want) in cases {
        let error = rig.error_of(request).with_context(|| (*what).to_owned())?;
        ensure!(error == *want, "{what}: {error}");
    }
    ensure!(std::fs::read(rig.target.share().join("file"))? == b"contents");
    rig.finish()
}

#[test]
fn o_offsets_and_lengths_of_io_that_cannot_be_are_refused() -> Result<()> {
    let rig = OpenShare::new()?;
    let (file, fh) = (rig.file, rig.fh);
    let write = |offset, size| {
        Request::write_with(
            file,
            &abi::WriteIn {
                fh,
                offset,
                size,
                ..Default::default()
            },
            b"contents",
        )
    };
    refused(
        rig,
        &[
            ("read at 2^63", Request::read(file, fh, BIG, 8), EINVAL),
            (
                "read at the end of numbers",
                Request::read(file, fh, u64::MAX, 8),
                EINVAL,
            ),
            ("write at 2^63", write(BIG, 8), EINVAL),
            ("write at the end of numbers", write(u64::MAX, 8), EINVAL),
            ("write of more than came", write(0, 9), EINVAL),
            ("write of 4 GiB", write(0, u32::MAX), EINVAL),
        ],
    )
}

#[test]
fn o_sizes_times_and_owners_that_cannot_be_are_refused() -> Result<()> {
    let rig = OpenShare::new()?;
    let file = rig.file;
    let setattr = |valid, change: fn(&mut abi::SetattrIn)| {
        let mut arguments = abi::SetattrIn {
            valid,
            ..Default::default()
        };
        change(&mut arguments);
        Request::setattr(file, &arguments)
    };
    refused(
        rig,
        &[
            ("size 2^63", setattr(fattr::SIZE, |a| a.size = BIG), EINVAL),
            (
                "size at the end of numbers",
                setattr(fattr::SIZE, |a| a.size = u64::MAX),
                EINVAL,
            ),
            (
                "atime of 10^9 ns",
                setattr(fattr::ATIME, |a| a.atimensec = 1_000_000_000),
                EINVAL,
            ),
            (
                "mtime of 2^32-1 ns",
                setattr(fattr::MTIME, |a| a.mtimensec = u32::MAX),
                EINVAL,
            ),
            (
                "ctime of UTIME_OMIT",
                setattr(fattr::CTIME, |a| a.ctimensec = (1 << 30) - 2),
                EINVAL,
            ),
            (
                "owner 2^32-1",
                setattr(fattr::UID, |a| a.uid = u32::MAX),
                EINVAL,
            ),
            (
                "group 2^32-1",
                setattr(fattr::GID, |a| a.gid = u32::MAX),
                EINVAL,
            ),
            ("all of valid", setattr(u32::MAX, |_| {}), EINVAL),
            (
                "an undefined bit of valid",
                setattr(1 << 31, |_| {}),
                EINVAL,
            ),
        ],
    )
}

#[test]
fn o_ranges_and_types_that_cannot_be_are_refused() -> Result<()> {
    let rig = OpenShare::new()?;
    let (file, fh) = (rig.file, rig.fh);
    let fallocate = |offset, length, mode| {
        Request::fallocate(
            file,
            &abi::FallocateIn {
                fh,
                offset,
                length,
                mode,
                padding: 0,
            },
        )
    };
    let copy = |off_in, off_out, flags| {
        let arguments = abi::CopyFileRangeIn {
            fh_in: fh,
            off_in,
            nodeid_out: file,
            fh_out: fh,
            off_out,
            len: 8,
            flags,
        };
        Request::copy_file_range(file, &arguments)
    };
    refused(
        rig,
        &[
            ("allocate at 2^63", fallocate(BIG, 8, 0), EINVAL),
            ("allocate 2^63", fallocate(0, BIG, 0), EINVAL),
            ("allocate nothing", fallocate(0, 0, 0), EINVAL),
            ("seek at 2^63", Request::lseek(file, fh, BIG, 0), EINVAL),
            ("seek from nowhere", Request::lseek(file, fh, 0, 9), EINVAL),
            (
                "seek from 2^32-1",
                Request::lseek(file, fh, 0, u32::MAX),
                EINVAL,
            ),
            ("copy from 2^63", copy(BIG, 0, 0), EINVAL),
            ("copy to 2^63", copy(0, BIG, 0), EINVAL),
            ("copy with flags", copy(0, 8, u64::MAX), EINVAL),
            (
                "a node of no type",
                Request::mknod(
                    ROOT,
                    b"x",
                    &abi::MknodIn {
                        mode: 0o170_000,
                        ..Default::default()
                    },
                ),
                EINVAL,
            ),
        ],
    )
}

#[test]
fn o_sizes_beyond_the_buffers_are_cut_to_them() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let (file, fh) = (rig.file, rig.fh);
    let read = Request::read(file, fh, 0, u32::MAX);
    ensure!(rig.error_of(&read)? == 0 && rig.scribbler.reply().len == 16 + 8);
    let beyond = Request::read(file, fh, 1 << 40, 4096);
    ensure!(rig.error_of(&beyond)? == 0 && rig.scribbler.reply().len == 16);
    let (directory, directory_fh) = (rig.directory, rig.directory_fh);
    for size in [0, 1, 23, 24, 31, u32::MAX] {
        for offset in [0, 1, BIG - 1, BIG, u64::MAX] {
            for request in [
                Request::readdir(directory, directory_fh, offset, size),
                Request::readdirplus(directory, directory_fh, offset, size),
            ] {
                rig.error_of(&request)?;
                let written = rig.scribbler.reply().len - 16;
                ensure!(written <= size, "{written} bytes for {size}");
            }
        }
    }
    rig.finish()
}

#[test]
fn o_forgetting_too_much_forgets_what_there_is_and_never_the_root() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let file = rig.file;
    for (node, count) in [
        (ROOT, 0),
        (ROOT, 1),
        (ROOT, u64::MAX),
        (0, 1),
        (u64::MAX, 1),
        (file, 0),
    ] {
        let bytes = rig.scribbler.bytes(&Request::forget(node, count));
        ensure!(rig.scribbler.any(&bytes, 4096)?.is_none());
    }
    ensure!(rig.error_of(&Request::getattr(file, None))? == 0);
    // A count that lies about how many follow.
    let one = [abi::ForgetOne {
        nodeid: ROOT,
        nlookup: 1,
    }];
    for count in [0_u32, 1, 2, 1 << 28, u32::MAX] {
        let mut bytes = rig.scribbler.bytes(&Request::batch_forget(&one));
        bytes[40..44].copy_from_slice(&count.to_ne_bytes());
        ensure!(rig.scribbler.any(&bytes, 4096)?.is_none(), "{count}");
    }
    let bytes = rig.scribbler.bytes(&Request::forget(file, u64::MAX));
    ensure!(rig.scribbler.any(&bytes, 4096)?.is_none());
    rig.finish()
}

#[test]
fn o_extended_attributes_of_any_size_are_answered() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let file = rig.file;
    let large = vec![b'v'; 48 << 10];
    let name = vec![b'n'; 300];
    let set = |size: u32, value| {
        let mut request = Request::new(opcode::SETXATTR, file);
        request = request.with(&[size, 0]).name(&b"user.x"[..]).payload(value);
        request
    };
    for (what, request) in [
        ("size that lies", set(u32::MAX, &b"v"[..])),
        ("a byte too many", set(2, b"v")),
        ("large", set(48 << 10, &large)),
        ("long name", Request::getxattr(file, &name, 0)),
        (
            "64 KiB and one",
            Request::getxattr(file, b"user.x", (64 << 10) + 1),
        ),
        ("as much as can be said", Request::listxattr(file, u32::MAX)),
        ("length alone", Request::listxattr(file, 0)),
    ] {
        rig.error_of(&request).with_context(|| what.to_owned())?;
        rig.scribbler.is_served()?;
    }
    rig.finish()
}

#[test]
fn o_open_flags_of_any_value_are_answered_and_block_nobody() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let fifo = rig.target.share().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )?;
    ensure!(rig.error_of(&Request::lookup(ROOT, b"fifo"))? == 0);
    let fifo = rig.scribbler.body::<EntryOut>().nodeid;
    let file = rig.file;
    for bit in 0..32 {
        for flags in [1_u32 << bit, !(1_u32 << bit), u32::MAX] {
            ensure!(
                rig.error_of(&Request::open(fifo, flags))? != 0,
                "a FIFO with {flags:#x}"
            );
            if rig.error_of(&Request::open(file, flags))? == 0 {
                let fh = rig.scribbler.body::<OpenOut>().fh;
                let release = abi::ReleaseIn {
                    fh,
                    ..Default::default()
                };
                ensure!(rig.error_of(&Request::release(file, &release))? == 0);
            }
        }
    }
    rig.finish()
}
