//! What is limited, used up: the request that meets the end of it is refused, everything else is served, and it
//! is all there again when it is given back.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::skipped;
use virtiofs_testkit::cgroup::MemoryGroup;
use virtiofs_testkit::frontend::hostile::messages::header;
use virtiofs_testkit::frontend::hostile::{
    Descriptor, LIMIT, NEXT, OpenShare, RingRig, Scribbler, Target, readable,
};
use virtiofs_testkit::frontend::message::Code;
use virtiofs_testkit::frontend::trace::Trace;
use virtiofs_testkit::frontend::{Connection, Launch, Options, RegionSpec};
use virtiofs_testkit::fuse::abi::{ForgetOne, ROOT, opcode};
use virtiofs_testkit::fuse::{ClientOptions, FuseClient, Request, Session, errno};
use virtiofs_testkit::random::Random;
use zerocopy::IntoBytes;

const MIB: u64 = 1 << 20;
const O_RDWR: u32 = 2;
/// More than a minute may tell, and what a start says.
const LINES: usize = 220;

fn is_long() -> bool {
    std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1")
}

fn has_no_reply(code: u32) -> bool {
    [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT].contains(&code)
}

/// Sends random requests: whatever they say, each has a well-formed answer.
fn random_requests(rig: &mut OpenShare, count: u32, seed: u64) -> Result<()> {
    println!("seed {seed:#x}");
    let mut random = Random::new(seed);
    let nodes = [ROOT, rig.file, rig.directory, rig.stale, 0, u64::MAX];
    let handles = [rig.fh, rig.directory_fh, rig.closed_fh, 0, u64::MAX];
    // Names that stay in the share are made and removed at random, too.
    let names: [&[u8]; 4] = [b"a", b"b", b"..", b""];
    for round in 0..count {
        let code = u32::try_from(random.below(56))?;
        if code == opcode::DESTROY || code == opcode::INIT {
            continue;
        }
        let mut request = Request::new(code, random.one_of(&nodes));
        for word in 0..random.below(12) {
            let value = match (word, random.below(3)) {
                (0, _) => random.one_of(&handles),
                (_, 0) => random.bits(),
                (_, 1) => random.below(8192),
                _ => 0,
            };
            request = request.with(&value);
        }
        for _ in 0..random.below(3) {
            request = request.name(random.one_of(&names));
        }
        let bytes = rig.scribbler.bytes(&request);
        let reply = rig
            .scribbler
            .any(&bytes, 8192)
            .with_context(|| format!("round {round}, opcode {code}"))?;
        ensure!(
            reply.is_none() == has_no_reply(code),
            "opcode {code}: {reply:?}"
        );
    }
    Ok(())
}

/// A hundred thousand; ten million with `VIRTIOFSD_LONG=1`.
#[test]
fn x_random_requests_have_answers_and_leave_memory_and_descriptors_as_they_were() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let count = if is_long() { 10_000_000 } else { 100_000 };
    random_requests(&mut rig, count, 0x5eed_0001)?;
    rig.finish()
}

/// OPENDIR until the daemon lacks a descriptor, and RELEASEDIR of what it opened.
fn directories_too_are_refused_at_last(client: &mut FuseClient) -> Result<()> {
    let mut listings = Vec::new();
    let refused = loop {
        match client.opendir(ROOT) {
            Ok(opened) if listings.len() < 100 => listings.push(opened.fh),
            failed => break errno(failed),
        }
    };
    ensure!(refused == Some(Errno::MFILE), "{refused:?}");
    for listing in listings {
        client.releasedir(ROOT, listing)?;
    }
    Ok(())
}

#[test]
fn x_without_a_descriptor_left_a_request_fails_and_the_next_one_is_served() -> Result<()> {
    const FILES: u32 = 150;
    let mut target = Target::start_with(&["--rlimit-nofile=100"])?;
    for number in 0..FILES {
        fs::write(target.share().join(number.to_string()), b"contents")?;
    }
    let mut session = Session::open(target.socket())?;
    let client = session.client();
    let mut open = Vec::new();
    let refused = loop {
        // Each takes one descriptor to be known and one to be open: either may be the first to lack one.
        let name = (open.len() % 100).to_string();
        let opened = client
            .lookup(ROOT, &name)
            .map(|entry| entry.nodeid)
            .and_then(|node| Ok((node, client.open(node, O_RDWR)?.fh)));
        match opened {
            Ok(opened) => open.push(opened),
            failed => break errno(failed),
        }
        ensure!(open.len() < 100, "more files than descriptors");
    };
    ensure!(refused == Some(Errno::MFILE), "{refused:?}");
    // What needs none of its own works; what needs one says so.
    for number in 0..FILES {
        let found = client.lookup(ROOT, number.to_string());
        let new = number >= u32::try_from(open.len())?;
        let refused = errno(found);
        ensure!(
            refused.is_none() || (new && refused == Some(Errno::MFILE)),
            "{number}: {refused:?}"
        );
    }
    client.statfs(ROOT).context("STATFS")?;
    for (node, fh) in &open {
        ensure!(client.read(*node, *fh, 0, 8)? == b"contents");
    }
    client.mkdir(ROOT, "directory", 0o755).context("MKDIR")?;
    client
        .rename((ROOT, b"directory"), (ROOT, b"moved"), 0)
        .context("RENAME")?;
    client.rmdir(ROOT, "moved").context("RMDIR")?;
    // What has idled for some seconds closes, and is there to be had once more.
    let refused = loop {
        let name = format!("new-{}", open.len());
        match client.create(ROOT, &name, O_RDWR, 0o600) {
            Ok(made) => open.push((made.entry.nodeid, made.open.fh)),
            failed => {
                ensure!(!target.share().join(name).exists(), "half of a CREATE");
                break errno(failed);
            }
        }
        ensure!(open.len() < 100, "more files than descriptors");
    };
    ensure!(refused == Some(Errno::MFILE), "{refused:?}");
    directories_too_are_refused_at_last(client)?;
    for (node, fh) in open {
        client.release(node, fh)?;
    }
    // RELEASE is answered before the file is closed.
    let deadline = Instant::now() + LIMIT;
    while let Err(failure) = client.list(ROOT) {
        ensure!(Instant::now() < deadline, "{failure:?}");
    }
    drop(session);
    target.is_unharmed()
}

/// The host's own limit: nobody else may find it used up because of a test, so the kernel's answer is put in place.
#[test]
fn x_a_host_without_a_file_left_is_enfile_for_what_needs_one() -> Result<()> {
    if !Trace::is_available() {
        skipped("needs strace");
        return Ok(());
    }
    let share = tempfile::tempdir()?;
    fs::write(share.path().join("file"), b"contents")?;
    let launch = Launch::new(share.path()).sandbox("none");
    let mut daemon = launch
        .args(&["--keep-listening", "--seccomp=none"])
        .start()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let node = client.lookup(ROOT, "file")?.nodeid;
    let fh = client.open(node, O_RDWR)?.fh;
    let calls = "inject=open,openat,openat2,open_tree,dup,fcntl:error=ENFILE";
    let trace = Trace::attach_with(daemon.server_pid()?, daemon.scratch(), &["-e", calls])?;
    for refused in [
        errno(client.open(node, O_RDWR)),
        errno(client.create(ROOT, "new", O_RDWR, 0o600)),
        errno(client.opendir(ROOT)),
    ] {
        ensure!(refused == Some(Errno::NFILE), "{refused:?}");
    }
    ensure!(client.read(node, fh, 0, 8)? == b"contents");
    client.write(node, fh, 0, b"CONTENTS")?;
    client.getattr(node)?;
    client.mkdir(ROOT, "directory", 0o755).context("MKDIR")?;
    let calls = trace.finish()?;
    ensure!(calls.iter().any(|call| call.line.contains("(INJECTED)")));
    client.open(node, O_RDWR)?;
    client.create(ROOT, "new", O_RDWR, 0o600)?;
    drop(session);
    let mut session = Session::open(daemon.socket())?;
    session.client().lookup(ROOT, "new")?;
    ensure!(daemon.is_running());
    Ok(())
}

#[test]
fn x_inodes_beyond_their_cap_are_enomem_until_others_are_forgotten() -> Result<()> {
    const CAP: u64 = 50;
    let mut target = Target::start_with(&["--max-inodes=50"])?;
    for number in 0..500 {
        fs::write(target.share().join(number.to_string()), b"")?;
    }
    let mut session = Session::open(target.socket())?;
    for round in 0..20 {
        let mut known = Vec::new();
        for number in 0..500 {
            match session.client().lookup(ROOT, number.to_string()) {
                Ok(entry) => known.push(entry.nodeid),
                failed => ensure!(errno(failed) == Some(Errno::NOMEM), "round {round}"),
            }
        }
        ensure!(known.len() as u64 == CAP, "round {round}: {}", known.len());
        let full = errno(session.client().mkdir(ROOT, "new", 0o755));
        ensure!(full == Some(Errno::NOMEM), "{full:?}");
        ensure!(!target.share().join("new").exists(), "half of a MKDIR");
        let forgets: Vec<ForgetOne> = known
            .into_iter()
            .map(|nodeid| ForgetOne { nodeid, nlookup: 1 })
            .collect();
        session.client().batch_forget(&forgets)?;
    }
    session.client().mkdir(ROOT, "new", 0o755)?;
    drop(session);
    target.is_unharmed()
}

/// A session whose guest memory the front-end has touched: what the daemon touches first is counted as the daemon's.
fn touched(socket: &Path) -> Result<Session> {
    let options = Options {
        memory: vec![RegionSpec {
            guest_address: 4096 * MIB,
            len_bytes: 16 * MIB,
        }],
        queue_size: 64,
        ..Options::default()
    };
    let session = Session::open_with(socket, &options, &ClientOptions::default())?;
    let file = session.frontend.memory().regions()[0].file();
    fallocate(file, FallocateFlags::empty(), 0, 16 * MIB)?;
    Ok(session)
}

/// Everything that a guest can make a daemon keep or move: names, handles, a listing, and contents many times the limit.
fn greedy(session: &mut Session, share: &Path) -> Result<()> {
    const FILES: u32 = 5000;
    for number in 0..FILES {
        fs::write(share.join(number.to_string()), b"")?;
    }
    let client = session.client();
    for number in 0..FILES {
        let node = client.lookup(ROOT, number.to_string())?.nodeid;
        client.open(node, O_RDWR)?;
    }
    for _ in 0..3 {
        ensure!(client.list(ROOT)?.len() >= usize::try_from(FILES)?);
    }
    let made = client.create(ROOT, "big", O_RDWR, 0o600)?;
    let (node, fh) = (made.entry.nodeid, made.open.fh);
    let block = vec![0x5a; 1 << 20];
    for number in 0..160 {
        client.write(node, fh, number * MIB, &block)?;
    }
    client.fsync(node, fh)?;
    for number in 0..160 {
        let read = client.read(node, fh, number * MIB, 1 << 20)?;
        ensure!(read == block, "MiB {number}");
    }
    Ok(())
}

/// Contents are the kernel's to drop. What the daemon keeps for 5000 files that are never closed has to fit.
#[test]
fn x_sixty_four_mib_of_memory_are_enough_for_a_guest_that_takes_all_it_can() -> Result<()> {
    let group = match MemoryGroup::new(64 * MIB) {
        Ok(group) => group,
        Err(why) => {
            skipped(&format!("no group that limits memory: {why:#}"));
            return Ok(());
        }
    };
    // Not in memory: contents must be something that can be dropped.
    let share = tempfile::tempdir_in(disk())?;
    fs::write(share.path().join("file"), b"contents")?;
    let launch = Launch::new(share.path()).arg("--keep-listening");
    let mut daemon = launch.through(group.through()).start()?;
    for _ in 0..2 {
        let mut session = touched(daemon.socket())?;
        greedy(&mut session, share.path()).with_context(|| daemon.log())?;
    }
    ensure!(daemon.is_running(), "{}", daemon.log());
    Session::open(daemon.socket())?.client().getattr(ROOT)?;
    let killed = group.killed()?;
    ensure!(killed == 0, "{killed} processes: {}", daemon.log());
    Ok(())
}

/// Where files lie on a disk: the directory of build products.
fn disk() -> PathBuf {
    let here = std::env::current_exe().ok();
    let folder = here.as_deref().and_then(Path::parent);
    folder.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

#[test]
fn x_a_flood_of_malformed_requests_is_not_a_flood_of_lines() -> Result<()> {
    let mut rig = RingRig::new()?;
    let bad: [Descriptor; 1] = [Descriptor {
        flags: NEXT,
        next: u16::MAX,
        ..readable(8, 8)
    }];
    for _ in 0..2000 {
        ensure!(rig.scribbler.chain(&bad)? == 0);
        let cut = rig.scribbler.bytes(&Request::getattr(ROOT, None));
        rig.scribbler.any(&cut[..39], 4096)?;
        rig.scribbler.error_of(&Request::new(4711, ROOT))?;
        rig.scribbler.error_of(&Request::lookup(ROOT, b"a/b"))?;
    }
    let lines = rig.target.log().lines().count();
    ensure!(lines < 20, "{lines} lines: {}", rig.target.log());
    rig.finish()
}

/// A front-end, or a guest that has its device set up again each time.
#[test]
fn x_a_flood_of_connections_and_broken_rings_is_not_a_flood_of_lines() -> Result<()> {
    let mut target = Target::start()?;
    for _ in 0..60 {
        let mut scribbler = Scribbler::connect(target.socket(), &RingRig::options())?;
        let base = scribbler.queue.base();
        scribbler.queue.jump_to(base.wrapping_sub(1));
        ensure!(scribbler.is_broken());
    }
    for _ in 0..600 {
        let connection = Connection::open(target.socket(), LIMIT)?;
        connection.send_raw(&header(1, 0, 0), &[])?;
        ensure!(connection.is_closed_by_peer()?);
    }
    let log = target.log();
    let lines = log.lines().count();
    ensure!(lines < LINES, "{lines} lines");
    ensure!(log.contains("the rest of it is left out"), "{log}");
    target.is_unharmed()
}

/// A guest with as many files open as it may have, whose kernel masks an interrupt: its monitor passes another eventfd.
#[test]
fn x_without_a_descriptor_left_a_front_ends_message_finds_room_for_those_that_it_brings()
-> Result<()> {
    let mut target = Target::start_with(&["--rlimit-nofile=100"])?;
    let mut session = Session::open(target.socket())?;
    let client = session.client();
    let node = client.lookup(ROOT, "file")?.nodeid;
    let mut open = Vec::new();
    let refused = loop {
        match client.open(node, O_RDWR) {
            Ok(opened) => open.push(opened.fh),
            failed => break errno(failed),
        }
        ensure!(open.len() < 100, "more files than descriptors");
    };
    ensure!(refused == Some(Errno::MFILE), "{refused:?}");
    for _ in 0..100 {
        let frontend = &session.frontend;
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        frontend
            .connection()
            .set(Code::SetVringCall, 0_u64.as_bytes(), &[event.as_fd()])
            .with_context(|| target.log())?;
    }
    let client = session.client();
    for fh in open {
        client.release(node, fh)?;
    }
    client.getattr(node)?;
    drop(session);
    target.is_unharmed()
}
