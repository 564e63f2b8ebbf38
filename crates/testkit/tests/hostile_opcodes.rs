//! Every opcode with arguments that are cut off, name nothing, or lie.

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::OpenShare;
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{self, opcode};
use zerocopy::{FromZeros, IntoBytes};

const EINVAL: i32 = 22;

const ENOTTY: i32 = 25;

const ENOSYS: i32 = 38;

const BIG: u64 = 1 << 63;

/// What a request names besides its node.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    Nothing,
    File,
    Directory,
}

/// One well-formed request of each opcode, and what its handle is; what ends
/// the session or begins one has its own tests.
fn every(node: u64, fh: u64) -> Vec<(Request<'static>, Names)> {
    [
        on_nodes(node),
        on_names(node),
        on_files(node, fh),
        on_directories(node, fh),
    ]
    .concat()
}

fn on_nodes(node: u64) -> Vec<(Request<'static>, Names)> {
    let statx = abi::StatxIn::new_zeroed();
    [
        Request::getattr(node, None),
        Request::setattr(node, &abi::SetattrIn::default()),
        Request::readlink(node),
        Request::open(node, 0),
        Request::opendir(node),
        Request::statfs(node),
        set_attribute(node),
        Request::getxattr(node, b"user.x", 100),
        Request::listxattr(node, 100),
        Request::removexattr(node, b"user.x"),
        Request::access(node, 7),
        Request::bmap(node, 0, 4096),
        Request::removemapping(&[[0, 4096]]),
        Request::syncfs(node),
        Request::statx(node, &statx),
        Request::forget(node, 0),
        Request::batch_forget(&[]),
        Request::interrupt(1),
    ]
    .map(|request| (request, Names::Nothing))
    .to_vec()
}

fn on_names(node: u64) -> Vec<(Request<'static>, Names)> {
    let create = abi::CreateIn {
        flags: 2,
        mode: 0o644,
        ..Default::default()
    };
    let mknod = abi::MknodIn {
        mode: 0o100_644,
        ..Default::default()
    };
    [
        Request::lookup(node, b"x"),
        Request::symlink(node, b"x", b"y"),
        Request::mknod(node, b"x", &mknod),
        Request::mkdir(node, b"x", 0o755, 0),
        Request::unlink(node, b"x"),
        Request::rmdir(node, b"x"),
        Request::rename(node, b"x", node, b"y"),
        Request::rename2(node, b"x", node, b"y", 0),
        Request::link(node, node, b"x"),
        Request::create(node, b"x", &create),
        Request::tmpfile(node, b"x", &create),
    ]
    .map(|request| (request, Names::Nothing))
    .to_vec()
}

fn on_files(node: u64, fh: u64) -> Vec<(Request<'static>, Names)> {
    let release = abi::ReleaseIn {
        fh,
        ..Default::default()
    };
    let lock = abi::LkIn {
        fh,
        ..Default::default()
    };
    let copy = abi::CopyFileRangeIn {
        fh_in: fh,
        nodeid_out: node,
        fh_out: fh,
        off_out: 4096,
        len: 1,
        ..Default::default()
    };
    let fallocate = abi::FallocateIn {
        fh,
        length: 1,
        ..Default::default()
    };
    let ioctl = abi::IoctlIn {
        fh,
        ..Default::default()
    };
    let poll = abi::PollIn {
        fh,
        ..Default::default()
    };
    let mapping = abi::SetupmappingIn {
        fh,
        ..Default::default()
    };
    [
        Request::getattr(node, Some(fh)),
        Request::read(node, fh, 0, 4096),
        Request::write(node, fh, 0, b"contents"),
        Request::release(node, &release),
        Request::fsync(node, fh, 0),
        Request::flush(node, fh, 1),
        Request::getlk(node, &lock),
        Request::setlk(node, &lock),
        Request::setlkw(node, &lock),
        Request::ioctl(node, &ioctl, b""),
        Request::poll(node, &poll),
        Request::fallocate(node, &fallocate),
        Request::lseek(node, fh, 0, 0),
        Request::copy_file_range(node, &copy),
        Request::copy_file_range_64(node, &copy),
        Request::setupmapping(node, &mapping),
    ]
    .map(|request| (request, Names::File))
    .to_vec()
}

fn on_directories(node: u64, fh: u64) -> Vec<(Request<'static>, Names)> {
    [
        Request::readdir(node, fh, 0, 4096),
        Request::readdirplus(node, fh, 0, 4096),
        Request::releasedir(node, fh),
        Request::fsyncdir(node, fh, 0),
    ]
    .map(|request| (request, Names::Directory))
    .to_vec()
}

/// SETXATTR in the form that every guest may send.
fn set_attribute(node: u64) -> Request<'static> {
    Request::new(opcode::SETXATTR, node)
        .with(&[1_u32, 0])
        .name(b"user.x")
        .payload(b"y")
}

fn has_no_reply(code: u32) -> bool {
    [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT].contains(&code)
}

#[test]
fn o_every_opcode_cut_off_at_every_byte_is_einval() -> Result<()> {
    let mut rig = OpenShare::new()?;
    for (request, _) in every(rig.file, rig.fh) {
        // Nothing but a header, or a name that may be as short as that.
        let whole = rig.scribbler.bytes(&request);
        for len in 40..whole.len() {
            let mut bytes = whole[..len].to_vec();
            bytes[..4].copy_from_slice(&u32::try_from(len)?.to_ne_bytes());
            let what = || format!("opcode {} cut to {len} of {}", request.opcode, whole.len());
            let reply = rig.scribbler.any(&bytes, 8192).with_context(what)?;
            match reply {
                None => ensure!(has_no_reply(request.opcode), "{}", what()),
                Some(reply) => {
                    ensure!(!has_no_reply(request.opcode), "{}", what());
                    ensure!(reply.error == -EINVAL, "{}: {reply:?}", what());
                }
            }
        }
        rig.scribbler.is_served()?;
    }
    rig.finish()
}

#[test]
fn o_every_opcode_on_a_node_that_is_not_there_fails() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let nodes = [0, rig.stale, rig.file + (1 << 20), u64::MAX, BIG];
    for node in nodes {
        for (request, names) in every(node, rig.fh) {
            if has_no_reply(request.opcode) {
                let bytes = rig.scribbler.bytes(&request);
                ensure!(rig.scribbler.any(&bytes, 4096)?.is_none());
                continue;
            }
            // A handle says enough: these are served, and RELEASE would close it.
            if names != Names::Nothing || request.opcode == opcode::REMOVEMAPPING {
                continue;
            }
            let error = rig.error_of(&request)?;
            ensure!(error != 0, "opcode {} on node {node:#x}", request.opcode);
        }
        rig.scribbler.is_served()?;
    }
    rig.finish()
}

#[test]
fn o_every_opcode_on_a_node_of_another_type_is_answered() -> Result<()> {
    let mut rig = OpenShare::new()?;
    // On a file: what wants a directory. On a directory: what wants a file.
    for (node, fails) in [
        (
            rig.file,
            &[
                opcode::LOOKUP,
                opcode::MKDIR,
                opcode::MKNOD,
                opcode::SYMLINK,
                opcode::UNLINK,
                opcode::RMDIR,
                opcode::RENAME,
                opcode::RENAME2,
                opcode::LINK,
                opcode::CREATE,
                opcode::OPENDIR,
                opcode::READLINK,
            ][..],
        ),
        (
            rig.directory,
            &[opcode::OPEN, opcode::READLINK, opcode::LINK][..],
        ),
    ] {
        for (request, names) in every(node, rig.fh) {
            if names != Names::Nothing || has_no_reply(request.opcode) {
                continue;
            }
            let error = rig.error_of(&request)?;
            if fails.contains(&request.opcode) {
                ensure!(error != 0, "opcode {} on node {node:#x}", request.opcode);
            }
        }
    }
    rig.finish()
}

#[test]
fn o_every_opcode_with_a_bad_handle_fails() -> Result<()> {
    let mut rig = OpenShare::new()?;
    for fh in [0, rig.closed_fh, 1 << 20, BIG, u64::MAX] {
        for (request, names) in every(rig.file, fh) {
            // FLUSH has nothing to do for a handle without locks.
            if names == Names::Nothing
                || [opcode::FLUSH, opcode::RELEASE, opcode::RELEASEDIR].contains(&request.opcode)
            {
                continue;
            }
            let error = rig.error_of(&request)?;
            if request.opcode != opcode::GETATTR && fh != 0 {
                ensure!(error != 0, "opcode {} with handle {fh:#x}", request.opcode);
            }
        }
    }
    rig.finish()
}

#[test]
fn o_every_opcode_with_a_handle_of_another_kind_fails() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let cases = [
        (rig.file, rig.directory_fh, Names::File),
        (rig.directory, rig.fh, Names::Directory),
    ];
    for (node, fh, wants) in cases {
        for (request, names) in every(node, fh) {
            let closes = [
                opcode::RELEASE,
                opcode::RELEASEDIR,
                opcode::FLUSH,
                opcode::GETATTR,
                opcode::FSYNC,
                opcode::FSYNCDIR,
            ];
            if names != wants || closes.contains(&request.opcode) {
                continue;
            }
            let error = rig.error_of(&request)?;
            ensure!(error != 0, "opcode {} with handle {fh:#x}", request.opcode);
        }
    }
    rig.finish()
}

#[test]
fn o_released_twice_is_an_error_or_nothing() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let release = abi::ReleaseIn {
        fh: rig.fh,
        ..Default::default()
    };
    let (file, directory, directory_fh) = (rig.file, rig.directory, rig.directory_fh);
    ensure!(rig.error_of(&Request::release(file, &release))? == 0);
    for _ in 0..10 {
        rig.error_of(&Request::release(file, &release))?;
    }
    ensure!(rig.error_of(&Request::releasedir(directory, directory_fh))? == 0);
    for _ in 0..10 {
        rig.error_of(&Request::releasedir(directory, directory_fh))?;
    }
    ensure!(rig.error_of(&Request::read(file, release.fh, 0, 8))? != 0);
    rig.finish()
}

#[test]
fn o_what_is_not_served_says_so_and_keeps_its_form() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let (file, fh) = (rig.file, rig.fh);
    // A command that is not on the list.
    let ioctl = abi::IoctlIn {
        fh,
        ..Default::default()
    };
    ensure!(rig.error_of(&Request::ioctl(file, &ioctl, b""))? == ENOTTY);
    for request in [
        Request::poll(
            file,
            &abi::PollIn {
                fh,
                ..Default::default()
            },
        ),
        Request::bmap(file, u64::MAX, u32::MAX),
        Request::setupmapping(
            file,
            &abi::SetupmappingIn {
                fh,
                len: u64::MAX,
                ..Default::default()
            },
        ),
        Request::removemapping(&[[u64::MAX, u64::MAX]]),
    ] {
        ensure!(
            rig.error_of(&request)? == ENOSYS,
            "opcode {}",
            request.opcode
        );
    }
    // Bytes that are announced and do not come.
    let lying = Request::ioctl(
        file,
        &abi::IoctlIn {
            fh,
            in_size: u32::MAX,
            ..Default::default()
        },
        b"",
    );
    ensure!(rig.error_of(&lying)? == EINVAL);
    let mut count = rig.scribbler.bytes(&Request::removemapping(&[[0, 1]]));
    count[40..44].copy_from_slice(u32::MAX.as_bytes());
    let reply = rig.scribbler.any(&count, 4096)?.context("no reply")?;
    ensure!(reply.error == -EINVAL);
    rig.finish()
}
