//! Requests at the wrong time and in the wrong form.

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::Options;
use virtiofs_testkit::frontend::hostile::{Scribbler, Target};
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{self, EntryOut, InitOut, OpenOut, ROOT, opcode};
use zerocopy::IntoBytes;

const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const EPROTO: i32 = 71;
const LINUX: u64 = abi::init::INIT_EXT | abi::init::MAX_PAGES;

fn with_len(mut bytes: Vec<u8>, len: u32) -> Vec<u8> {
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

#[test]
fn f_a_stated_length_that_is_not_the_messages_is_einval() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    for len in [0, 1, 39, 57, 4096, 1 << 20, u32::MAX] {
        let bytes = scribbler.bytes(&Request::getattr(ROOT, None));
        let reply = scribbler.any(&with_len(bytes, len), 4096)?;
        let reply = reply.with_context(|| format!("{len}: no reply"))?;
        ensure!(
            reply.error == -EINVAL && reply.len == 16,
            "{len}: {reply:?}"
        );
        scribbler.is_served()?;
    }
    // Bytes behind the stated length belong to nobody.
    let mut bytes = scribbler.bytes(&Request::getattr(ROOT, None));
    bytes.extend_from_slice(&[0xff; 100]);
    let reply = scribbler.any(&bytes, 4096)?.context("no reply")?;
    ensure!(reply.error == 0);
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_unknown_opcodes_are_not_implemented() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    for unknown in (0..256).chain([4096, 1 << 16, 1 << 24, 1 << 31, u32::MAX]) {
        if (1..=opcode::COPY_FILE_RANGE_64).contains(&unknown) && ![7, 19, 41].contains(&unknown) {
            continue;
        }
        let error = scribbler.error_of(&Request::new(unknown, ROOT))?;
        ensure!(error == ENOSYS, "{unknown}: {error}");
    }
    scribbler.is_served()?;
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_nothing_but_init_is_served_before_init() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::before_init(target.socket(), &Options::default())?;
    for code in 1..=opcode::COPY_FILE_RANGE_64 {
        if [7, 19, 41, opcode::INIT].contains(&code) {
            continue;
        }
        let no_reply = [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT].contains(&code);
        let bytes = scribbler.bytes(&Request::new(code, ROOT).with(&[0_u64; 12]));
        let reply = scribbler
            .any(&bytes, 4096)
            .with_context(|| format!("opcode {code}"))?;
        match reply {
            None => ensure!(no_reply, "opcode {code} is not answered"),
            Some(reply) => {
                ensure!(
                    !no_reply && reply.error == -EINVAL,
                    "opcode {code}: {reply:?}"
                );
            }
        }
    }
    ensure!(scribbler.error_of(&Request::init(abi::MINOR, LINUX))? == 0);
    scribbler.is_served()?;
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_every_size_and_version_of_init_has_an_answer() -> Result<()> {
    let mut target = Target::start()?;
    let flags = u32::try_from(LINUX & 0xffff_ffff)?;
    // Major, minor, whether the long form is sent, error, minor answered.
    let cases = [
        (7, 45, true, 0, 45),
        (7, 31, true, 0, 31),
        (7, 27, true, 0, 27),
        (7, u32::MAX, true, 0, 45),
        (7, 26, true, EPROTO, 0),
        (7, 0, true, EPROTO, 0),
        (6, 45, true, EPROTO, 0),
        (0, 0, true, EPROTO, 0),
        (8, 0, true, 0, 45),
        (u32::MAX, u32::MAX, true, 0, 45),
        // The long form is announced by a flag and not there.
        (7, 45, false, EINVAL, 0),
    ];
    for (major, minor, long, error, answered) in cases {
        let case = format!("{major}.{minor}, long {long}");
        let mut scribbler = Scribbler::before_init(target.socket(), &Options::default())?;
        let short = [major, minor, 0, flags];
        let request = Request::new(opcode::INIT, 0).with(&short);
        let request = if long {
            request.with(&[0_u32; 12])
        } else {
            request
        };
        ensure!(scribbler.error_of(&request)? == error, "{case}");
        if error == 0 {
            let out: InitOut = scribbler.body();
            ensure!((out.major, out.minor) == (7, answered), "{case}: {out:?}");
        }
    }
    // Without the flag, four numbers are all there is.
    let mut scribbler = Scribbler::before_init(target.socket(), &Options::default())?;
    for len in [0_usize, 8, 15, 16, 20] {
        let numbers = [7_u32, 31, 0, 0, 0];
        let mut bytes = scribbler.bytes(&Request::new(opcode::INIT, 0));
        bytes.extend_from_slice(&numbers.as_bytes()[..len]);
        let total = u32::try_from(bytes.len())?;
        let reply = scribbler
            .any(&with_len(bytes, total), 4096)?
            .context("no reply")?;
        let want = if len < 16 { -EINVAL } else { 0 };
        ensure!(reply.error == want, "{len} bytes: {reply:?}");
    }
    scribbler.is_served()?;
    drop(scribbler);
    target.is_unharmed()
}

/// Node and handle of the file in the share.
fn open_file(scribbler: &mut Scribbler) -> Result<(u64, u64)> {
    ensure!(scribbler.error_of(&Request::lookup(ROOT, b"file"))? == 0);
    let node = scribbler.body::<EntryOut>().nodeid;
    ensure!(scribbler.error_of(&Request::open(node, 0))? == 0);
    Ok((node, scribbler.body::<OpenOut>().fh))
}

#[test]
fn f_a_guest_that_reboots_loses_what_it_held() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    let init = Request::init(abi::MINOR, LINUX);
    for round in 0..200 {
        let (node, fh) = open_file(&mut scribbler)?;
        ensure!(scribbler.error_of(&init)? == 0, "round {round}");
        ensure!(scribbler.error_of(&Request::read(node, fh, 0, 8))? != 0);
        ensure!(scribbler.error_of(&Request::getattr(node, None))? != 0);
        scribbler.is_served()?;
    }
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_after_destroy_only_init_is_served() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    let (node, fh) = open_file(&mut scribbler)?;
    ensure!(scribbler.error_of(&Request::destroy())? == 0);
    ensure!(scribbler.error_of(&Request::getattr(ROOT, None))? == EINVAL);
    ensure!(scribbler.error_of(&Request::destroy())? == EINVAL);
    ensure!(scribbler.error_of(&Request::init(abi::MINOR, LINUX))? == 0);
    ensure!(scribbler.error_of(&Request::read(node, fh, 0, 8))? != 0);
    scribbler.is_served()?;
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_extensions_longer_than_the_message_are_einval() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    for units in [1_u16, 2, 100, u16::MAX] {
        for request in [
            Request::getattr(ROOT, None),
            Request::mkdir(ROOT, b"never", 0o755, 0),
        ] {
            let mut bytes = scribbler.bytes(&request);
            bytes[36..38].copy_from_slice(&units.to_ne_bytes());
            let reply = scribbler.any(&bytes, 4096)?.context("no reply")?;
            ensure!(
                reply.error == -EINVAL,
                "{units} units of {}: {reply:?}",
                request.opcode
            );
        }
    }
    // Extensions that do not add up by themselves: size, type, groups.
    for extension in [
        [0_u32, abi::EXT_GROUPS],
        [7, abi::EXT_GROUPS],
        [9, abi::EXT_GROUPS],
        [u32::MAX, abi::EXT_GROUPS],
        [8, 33],
        [8, u32::MAX],
        [8, abi::EXT_GROUPS],
    ] {
        let mut request = Request::mkdir(ROOT, b"never", 0o755, 0);
        request.extension = extension.as_bytes();
        let error = scribbler.error_of(&request)?;
        ensure!(error == EINVAL, "{extension:?}: {error}");
    }
    ensure!(!target.share().join("never").exists());
    scribbler.is_served()?;
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_what_was_not_agreed_on_is_answered_all_the_same() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::before_init(target.socket(), &Options::default())?;
    ensure!(scribbler.error_of(&Request::init(31, 0))? == 0);
    let (node, fh) = open_file(&mut scribbler)?;
    ensure!(scribbler.error_of(&Request::opendir(ROOT))? == 0);
    let directory = scribbler.body::<OpenOut>().fh;
    for request in [
        Request::readdirplus(ROOT, directory, 0, 4096),
        Request::lookup(ROOT, b".."),
        Request::syncfs(ROOT),
        Request::write(node, fh, 0, b"x"),
        Request::setxattr(ROOT, b"user.x", b"y", 0),
        Request::setupmapping(node, &abi::SetupmappingIn::default()),
        Request::removemapping(&[[0, 4096]]),
        Request::rename2(ROOT, b"none", ROOT, b"too", u32::MAX),
    ] {
        let bytes = scribbler.bytes(&request);
        let reply = scribbler.any(&bytes, 8192)?;
        ensure!(reply.is_some(), "opcode {}", request.opcode);
        scribbler.is_served()?;
    }
    drop(scribbler);
    target.is_unharmed()
}

#[test]
fn f_requests_shorter_than_a_header_are_given_back_empty() -> Result<()> {
    let mut target = Target::start()?;
    let mut scribbler = Scribbler::connect(target.socket(), &Options::default())?;
    let whole = scribbler.bytes(&Request::getattr(ROOT, None));
    for len in [0, 1, 8, 39] {
        let reply = scribbler.any(&whole[..len], 4096)?;
        ensure!(reply.is_none(), "{len} bytes: {reply:?}");
        scribbler.is_served()?;
    }
    drop(scribbler);
    target.is_unharmed()
}
