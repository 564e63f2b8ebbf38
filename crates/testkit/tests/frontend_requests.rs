//! What the daemon answers to a front-end that is not a VM: requests through
//! real rings, in every layout that the specifications allow.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use tempfile::TempDir;
use virtiofs_testkit::frontend::message::feature;
use virtiofs_testkit::frontend::{
    Daemon, Descriptors, Launch, MemoryMessages, Options, RegionSpec, Waiting,
};
use virtiofs_testkit::fuse::abi::{self, ROOT, fattr};
use virtiofs_testkit::fuse::{ClientOptions, Request, Session, Shape, errno, pattern, round_trip};

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;
const O_RDONLY: u32 = 0;
const O_RDWR: u32 = 2;
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;

fn share() -> Result<(TempDir, Daemon)> {
    let share = tempfile::tempdir()?;
    let daemon = Launch::new(share.path()).start()?;
    Ok((share, daemon))
}

#[test]
fn names_are_made_found_renamed_linked_and_removed() -> Result<()> {
    let (share, daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();

    let directory = client.mkdir(ROOT, "directory", 0o750)?;
    ensure!(directory.attr.mode == 0o040_750);
    let file = client.create(directory.nodeid, "file", O_RDWR, 0o600)?;
    client.write(file.entry.nodeid, file.open.fh, 0, b"hello")?;
    let host = share.path().join("directory/file");
    ensure!(std::fs::read(&host)? == b"hello");
    ensure!(host.metadata()?.permissions().mode() == 0o100_600);

    let link = client.link(file.entry.nodeid, ROOT, "link")?;
    ensure!(link.nodeid == file.entry.nodeid && link.attr.nlink == 2);
    ensure!(client.lookup(ROOT, "link")?.nodeid == file.entry.nodeid);
    let symlink = client.symlink(ROOT, "symlink", "../outside")?;
    ensure!(client.readlink(symlink.nodeid)? == b"../outside");
    let fifo = client.mknod(ROOT, "fifo", 0o010_600, 0)?;
    ensure!(fifo.attr.mode == 0o010_600);

    client.rename((ROOT, b"link"), (directory.nodeid, b"renamed"), 0)?;
    ensure!(share.path().join("directory/renamed").metadata()?.nlink() == 2);
    let taken = client.rename((ROOT, b"fifo"), (ROOT, b"symlink"), RENAME_NOREPLACE);
    ensure!(errno(taken) == Some(Errno::EXIST));
    client.rename((ROOT, b"fifo"), (ROOT, b"symlink"), RENAME_EXCHANGE)?;
    ensure!(client.lookup(ROOT, "fifo")?.attr.mode & 0o170_000 == 0o120_000);

    ensure!(errno(client.rmdir(ROOT, "directory")) == Some(Errno::NOTEMPTY));
    client.unlink(directory.nodeid, "file")?;
    client.unlink(directory.nodeid, "renamed")?;
    ensure!(client.read(file.entry.nodeid, file.open.fh, 0, 100)? == b"hello");
    client.release(file.entry.nodeid, file.open.fh)?;
    client.rmdir(ROOT, "directory")?;
    for name in ["fifo", "symlink"] {
        client.unlink(ROOT, name)?;
    }
    ensure!(std::fs::read_dir(share.path())?.next().is_none());
    Ok(())
}

#[test]
fn attributes_are_read_and_set() -> Result<()> {
    let (share, daemon) = share()?;
    let host = share.path().join("file");
    std::fs::write(&host, b"0123456789")?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let entry = client.lookup(ROOT, "file")?;
    let metadata = host.metadata()?;
    ensure!((entry.attr.ino, entry.attr.size) == (metadata.ino(), 10));
    let change = abi::SetattrIn {
        valid: fattr::MODE | fattr::SIZE | fattr::MTIME,
        mode: 0o604,
        size: 4,
        mtime: 1_000_000_000,
        mtimensec: 5,
        ..Default::default()
    };
    let attr = client.setattr(entry.nodeid, &change)?;
    ensure!((attr.mode, attr.size, attr.mtime, attr.mtimensec) == (0o100_604, 4, 1_000_000_000, 5));
    let metadata = host.metadata()?;
    ensure!((metadata.mode(), metadata.len()) == (0o100_604, 4));
    ensure!((metadata.mtime(), metadata.mtime_nsec()) == (1_000_000_000, 5));
    ensure!(client.getattr(entry.nodeid)? == attr);
    let statfs = client.statfs(ROOT)?;
    ensure!(statfs.bsize > 0 && statfs.namelen == 255 && statfs.blocks > 0);
    Ok(())
}

#[test]
fn space_is_allocated_punched_searched_and_copied() -> Result<()> {
    let (_share, daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let made = client.create(ROOT, "sparse", O_RDWR, 0o600)?;
    let (node, fh) = (made.entry.nodeid, made.open.fh);
    let allocate = abi::FallocateIn {
        fh,
        length: MIB,
        ..Default::default()
    };
    client.fallocate(node, &allocate)?;
    ensure!(client.getattr(node)?.size == MIB);
    client.write(node, fh, 0, &pattern(256 << 10))?;
    let punch = abi::FallocateIn {
        offset: 64 << 10,
        length: 64 << 10,
        mode: 3, // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
        ..allocate
    };
    client.fallocate(node, &punch)?;
    ensure!(client.read(node, fh, 64 << 10, 64 << 10)? == vec![0; 64 << 10]);
    ensure!(client.lseek(node, fh, 0, 4)? == 64 << 10, "SEEK_HOLE");
    ensure!(
        client.lseek(node, fh, 64 << 10, 3)? == 128 << 10,
        "SEEK_DATA"
    );
    let copy = abi::CopyFileRangeIn {
        fh_in: fh,
        nodeid_out: node,
        fh_out: fh,
        off_out: 2 * MIB,
        len: 4096,
        ..Default::default()
    };
    ensure!(client.copy_file_range(node, &copy)? == 4096);
    ensure!(client.read(node, fh, 2 * MIB, 4096)? == pattern(4096));
    Ok(())
}

#[test]
fn a_directory_is_listed_whole_in_either_form() -> Result<()> {
    let (share, daemon) = share()?;
    for number in 0..500 {
        std::fs::write(share.path().join(format!("entry-{number:03}")), b"")?;
    }
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let plus = client.list(ROOT)?;
    let named = |name: &[u8]| plus.iter().find(|e| e.name == name).and_then(|e| e.entry);
    for number in 0..500 {
        let name = format!("entry-{number:03}");
        let entry = named(name.as_bytes()).with_context(|| name.clone())?;
        let found = client.lookup(ROOT, &name)?;
        ensure!(
            (found.nodeid, found.attr.ino) == (entry.nodeid, entry.attr.ino),
            "{name}"
        );
    }
    ensure!(
        plus.len() == 502,
        "{} entries with `.` and `..`",
        plus.len()
    );
    ensure!(
        named(b"..").is_some_and(|entry| entry.nodeid == 0),
        "`..` is no lookup"
    );
    let fh = client.opendir(ROOT)?.fh;
    let mut plain = 0;
    let mut offset = 0;
    loop {
        let some = client.readdir(ROOT, fh, offset)?;
        let Some(last) = some.last() else { break };
        offset = last.dirent.off;
        plain += some.len();
    }
    ensure!(plain == 502, "{plain} entries");
    Ok(())
}

/// Each row is one way to put the same requests into a ring.
#[test]
fn requests_are_understood_in_every_layout() -> Result<()> {
    let (_share, daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let layouts = [
        (Shape::Linux, Descriptors::Direct),
        (Shape::Linux, Descriptors::Indirect),
        (Shape::Whole, Descriptors::Direct),
        (Shape::Whole, Descriptors::Indirect),
        (Shape::Pieces(4096), Descriptors::Direct),
        (Shape::Pieces(13), Descriptors::Indirect),
        (Shape::Pieces(1), Descriptors::Direct),
        (Shape::Pieces(1), Descriptors::Indirect),
    ];
    for (shape, descriptors) in layouts {
        client.set_shape(shape, descriptors);
        round_trip(client, "layout", &pattern(100_001))
            .with_context(|| format!("{shape:?}, {descriptors:?}"))?;
    }
    Ok(())
}

/// Each row leaves out one ring feature.
#[test]
fn rings_work_with_and_without_each_feature() -> Result<()> {
    let all = Options::default().features;
    for without in [
        0,
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
        feature::EVENT_IDX | feature::INDIRECT_DESC,
    ] {
        let (_share, daemon) = share()?;
        let options = Options {
            features: all & !without,
            ..Options::default()
        };
        let mut session = Session::open_with(daemon.socket(), &options, &ClientOptions::default())?;
        for waiting in [Waiting::Sleep, Waiting::Spin] {
            session.client().set_waiting(waiting, 10 * SECOND);
            for _ in 0..50 {
                round_trip(session.client(), "ring", b"bytes")
                    .with_context(|| format!("without {without:#x}, {waiting:?}"))?;
            }
        }
    }
    Ok(())
}

/// With EVENT_IDX, a driver that looks by itself is not called.
#[test]
fn a_driver_that_asks_for_no_calls_gets_none() -> Result<()> {
    let (_share, daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    client.set_waiting(Waiting::Spin, 10 * SECOND);
    client.getattr(ROOT)?;
    let call = client.queue().call_fd().try_clone_to_owned()?;
    let mut counter = [0; 8];
    let _ = rustix::io::read(&call, &mut counter);
    for _ in 0..1000 {
        client.getattr(ROOT)?;
    }
    ensure!(
        rustix::io::read(&call, &mut counter) == Err(Errno::AGAIN),
        "{counter:?}"
    );
    Ok(())
}

fn two_regions() -> Vec<RegionSpec> {
    let spec = |guest_address| RegionSpec {
        guest_address,
        len_bytes: 32 * MIB,
    };
    vec![spec(64 * MIB), spec(96 * MIB)]
}

#[test]
fn a_buffer_may_cross_two_adjacent_regions() -> Result<()> {
    for memory_messages in [MemoryMessages::Table, MemoryMessages::Slots] {
        let (share, daemon) = share()?;
        let options = Options {
            memory: two_regions(),
            memory_messages,
            ..Options::default()
        };
        let across = ClientOptions {
            data_across_border: true,
            ..ClientOptions::default()
        };
        let mut session = Session::open_with(daemon.socket(), &options, &across)?;
        let bytes = pattern(usize::try_from(MIB)?);
        round_trip(session.client(), "crossing", &bytes)?;
        let made = session.client().create(ROOT, "kept", O_RDWR, 0o600)?;
        session
            .client()
            .write(made.entry.nodeid, made.open.fh, 0, &bytes)?;
        ensure!(std::fs::read(share.path().join("kept"))? == bytes);
    }
    Ok(())
}

#[test]
fn several_threads_are_served_on_several_queues() -> Result<()> {
    let (_share, daemon) = share()?;
    let options = Options {
        request_queues: 4,
        ..Options::default()
    };
    let client = ClientOptions {
        data_bytes: 1 << 20,
        ..ClientOptions::default()
    };
    let mut session = Session::open_with(daemon.socket(), &options, &client)?;
    let threads: Vec<_> = std::mem::take(&mut session.clients)
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            std::thread::spawn(move || -> Result<()> {
                for round in 0..50 {
                    let bytes = pattern(1000 * (number + 1) + round);
                    round_trip(&mut client, &format!("thread-{number}"), &bytes)?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok(())
}

#[test]
fn many_requests_in_flight_each_get_their_own_answer() -> Result<()> {
    let (share, daemon) = share()?;
    for number in 0..64 {
        std::fs::write(share.path().join(format!("{number}")), vec![b'x'; number])?;
    }
    let deep = ClientOptions {
        depth: 64,
        data_bytes: 4096,
        ..ClientOptions::default()
    };
    let mut session = Session::open_with(daemon.socket(), &Options::default(), &deep)?;
    let client = session.client();
    for _ in 0..100 {
        let mut expected = std::collections::HashMap::new();
        for number in 0..64_u64 {
            let name = number.to_string();
            let unique = client.start(&Request::lookup(ROOT, name.as_bytes()))?;
            expected.insert(unique, number);
        }
        client.publish();
        for _ in 0..64 {
            let answer = client.finish()?;
            client.check(&answer)?;
            let entry: abi::EntryOut = client.body(&answer)?;
            let number = expected.remove(&answer.unique);
            ensure!(number == Some(entry.attr.size), "{number:?}: {entry:?}");
        }
    }
    Ok(())
}

#[test]
fn forget_is_completed_without_a_reply_and_frees_the_node() -> Result<()> {
    let (share, daemon) = share()?;
    std::fs::write(share.path().join("file"), b"")?;
    let mut session = Session::open(daemon.socket())?;
    let node = session.client().lookup(ROOT, "file")?.nodeid;
    ensure!(session.client().lookup(ROOT, "file")?.nodeid == node);
    session.hiprio.forget(node, 1)?;
    session.client().getattr(node)?;
    session.hiprio.forget(node, 1)?;
    let gone = errno(session.client().getattr(node));
    ensure!(
        matches!(
            gone,
            Some(Errno::NOENT | Errno::STALE | Errno::INVAL | Errno::BADF)
        ),
        "{gone:?}"
    );
    let node = session.client().lookup(ROOT, "file")?.nodeid;
    session.hiprio.batch_forget(&[
        abi::ForgetOne {
            nodeid: node,
            nlookup: 1,
        },
        abi::ForgetOne {
            nodeid: ROOT,
            nlookup: 1000,
        },
    ])?;
    ensure!(session.client().getattr(node).is_err());
    session.client().getattr(ROOT)?;
    Ok(())
}

/// Each row: what the header says is wrong about it, the errno that comes back.
#[test]
fn a_malformed_request_is_answered_and_the_next_one_served() -> Result<()> {
    let (_share, daemon) = share()?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let mut short = Request::getattr(ROOT, None);
    short.declared_len = Some(41);
    let mut long = Request::getattr(ROOT, None);
    long.declared_len = Some(1 << 20);
    let mut bare = Request::lookup(ROOT, b"x");
    bare.names = [None, None];
    let cases = [
        (
            "a header that says less than its operation takes",
            short,
            Errno::INVAL,
        ),
        ("a header that says more than there is", long, Errno::INVAL),
        ("a lookup without a name", bare, Errno::INVAL),
        (
            "an unknown operation",
            Request::new(4711, ROOT),
            Errno::NOSYS,
        ),
        (
            "a name with a slash",
            Request::lookup(ROOT, b"a/b"),
            Errno::INVAL,
        ),
    ];
    for (what, request, want) in cases {
        let answer = client.call(&request);
        ensure!(errno(answer.map(drop)) == Some(want), "{what}: {answer:?}");
        client.getattr(ROOT).context(what)?;
    }
    Ok(())
}

#[test]
fn a_second_init_and_destroy_drop_all_state() -> Result<()> {
    let (share, daemon) = share()?;
    std::fs::write(share.path().join("file"), b"text")?;
    let mut session = Session::open(daemon.socket())?;
    let client = session.client();
    let node = client.lookup(ROOT, "file")?.nodeid;
    let fh = client.open(node, O_RDONLY)?.fh;
    ensure!(client.read(node, fh, 0, 10)? == b"text");
    client.init()?;
    ensure!(client.getattr(node).is_err(), "a node outlived INIT");
    ensure!(
        client.read(node, fh, 0, 10).is_err(),
        "a handle outlived INIT"
    );
    let node = client.lookup(ROOT, "file")?.nodeid;
    client.destroy()?;
    ensure!(client.getattr(node).is_err(), "a node outlived DESTROY");
    client.init()?;
    round_trip(client, "after", b"again")
}
