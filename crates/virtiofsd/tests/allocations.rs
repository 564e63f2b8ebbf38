//! No allocation on the fast path: what a queue's thread asks the allocator for, request by request.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, open};
use virtiofs_device::{DeviceOptions, serve_connection};
use virtiofs_hostfs::{Options, PassthroughFs, SharedRoot};
use virtiofs_protocol::{Session, SessionOptions};
use virtiofs_testkit::allocations::Counting;
use virtiofs_testkit::fuse::FuseClient;
use virtiofs_testkit::fuse::Session as Guest;
use virtiofs_testkit::fuse::abi::ROOT;

#[global_allocator]
static ALLOCATOR: Counting = Counting::of_threads("fs-queue");

/// Buffers and tables have their sizes after so many.
const WARM_UP: usize = 300;
const COUNTED: usize = 300;

/// A file system on a share, and the device before it, on threads of this process.
fn serve(share: &Path, listener: UnixListener) -> Result<std::thread::JoinHandle<Result<()>>> {
    let hold = |path: &Path| open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let root = SharedRoot::new(hold(share)?, hold(Path::new("/proc/self/fd"))?);
    let fs = PassthroughFs::new(root, Options::default())?;
    let session = Arc::new(Session::new(fs, SessionOptions::default()));
    Ok(std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        serve_connection(&stream, &session, &DeviceOptions::default(), stop.as_fd())?;
        Ok(())
    }))
}

type Asked<'a> = (&'a str, Box<dyn FnMut(&mut FuseClient) -> Result<()> + 'a>);

#[test]
fn requests_of_the_fast_path_allocate_nothing() -> Result<()> {
    let place = tempfile::tempdir()?;
    let share = place.path().join("share");
    std::fs::create_dir(&share)?;
    std::fs::write(share.join("file"), [1; 10_000])?;
    let socket = place.path().join("socket");
    let served = serve(&share, UnixListener::bind(&socket)?)?;
    let mut guest = Guest::open(&socket)?;
    let client = guest.client();
    let node = client.lookup(ROOT, "file")?.nodeid;
    let fh = client.open(node, 2)?.fh;
    let data = [7; 4096];
    let mut requests: Vec<Asked<'_>> = vec![
        ("GETATTR", Box::new(|c| Ok(c.getattr(node).map(drop)?))),
        (
            "LOOKUP, known",
            Box::new(|c| Ok(c.lookup(ROOT, "file").map(drop)?)),
        ),
        (
            "LOOKUP, missing",
            Box::new(|c| {
                ensure!(c.lookup(ROOT, "missing").is_err());
                Ok(())
            }),
        ),
        (
            "READ",
            Box::new(|c| Ok(c.read(node, fh, 0, 4096).map(drop)?)),
        ),
        (
            "WRITE",
            Box::new(|c| Ok(c.write(node, fh, 0, &data).map(drop)?)),
        ),
        ("FLUSH", Box::new(|c| Ok(c.flush(node, fh, 1)?))),
    ];
    let mut excesses = Vec::new();
    for (what, ask) in &mut requests {
        let mut ask_often = |times| (0..times).try_for_each(|_| ask(client));
        ask_often(WARM_UP)?;
        let mut asked = Ok(());
        let count = ALLOCATOR.during(|| asked = ask_often(COUNTED));
        asked?;
        println!("{what:16} {count} in {COUNTED}");
        if count > 0 {
            excesses.push(format!("{what}: {count} in {COUNTED}"));
        }
    }
    // The account works: an open file is a row of a table.
    let opened = ALLOCATOR.during(|| {
        let _ = client.open(node, 0);
    });
    ensure!(opened > 0, "nothing was counted");
    drop(requests);
    drop(guest);
    served
        .join()
        .map_err(|_| anyhow::anyhow!("the device panicked"))??;
    ensure!(excesses.is_empty(), "{excesses:?}");
    Ok(())
}
