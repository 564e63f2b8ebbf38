//! Names that change hands on the host while the guest asks for them.
//!
//! Some seconds of each; a million rounds with `VIRTIOFSD_LONG=1`.

mod kit;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kit::listing::Kind;
use kit::store::Store;
use kit::{Guest, READ, ROOT, make_fifo};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use virtiofs_hostfs::Options;
use virtiofs_protocol::{Errno, NodeId};

const ROUNDS: usize = 1_000_000;
const SHORT: Duration = Duration::from_secs(4);

/// Exchanges or moves names on the host until dropped.
struct Exchange {
    stop: std::sync::Arc<AtomicBool>,
    count: std::sync::Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exchange {
    fn of(directory: &Path, one: &str, two: &str) -> Self {
        let (one, two): (PathBuf, PathBuf) = (directory.join(one), directory.join(two));
        Self::repeating(move || renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE))
    }

    /// Takes a directory away, and back.
    fn to_and_fro(here: PathBuf, there: PathBuf) -> Self {
        Self::repeating(move || {
            rustix::fs::rename(&here, &there)?;
            rustix::fs::rename(&there, &here)?;
            std::thread::sleep(Duration::from_micros(50));
            Ok(())
        })
    }

    fn repeating(exchange: impl Fn() -> Result<(), Errno> + Send + 'static) -> Self {
        let (stop, count) = (
            std::sync::Arc::new(AtomicBool::new(false)),
            std::sync::Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counted) = (std::sync::Arc::clone(&stop), std::sync::Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(exchange(), Ok(()), "the exchange itself");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            count,
            thread: Some(thread),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        println!("RESULT: {} exchanges", self.count.load(Ordering::Relaxed));
        assert!(ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

/// Calls so often or, in the short form, for so long.
fn rounds(mut round: impl FnMut(usize)) {
    let long = std::env::var("VIRTIOFSD_LONG").is_ok_and(|value| value == "1");
    let began = Instant::now();
    for number in 0.. {
        let enough = number >= ROUNDS || (!long && began.elapsed() > SHORT);
        if enough {
            println!("RESULT: {number} rounds");
            return;
        }
        round(number);
    }
}

/// An answer, or ESTALE where the name had changed hands: anything else is an error.
fn unless_stale<T>(result: Result<T, Errno>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(errno) => {
            assert_eq!(errno, Errno::STALE);
            None
        }
    }
}

/// Two files that differ in everything that can be asked for: number, size, contents.
fn two_files(directory: &Path) -> [(u64, Vec<u8>); 2] {
    ["a", "b"].map(|name| {
        let path = directory.join(name);
        let contents = name.repeat(1 + usize::from(name == "b")).into_bytes();
        std::fs::write(&path, &contents).expect("a share that can be written");
        let number = std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("just made"));
        (number, contents)
    })
}

fn exchanged_files_stay_themselves(share: &Path) {
    let files = two_files(share);
    std::thread::sleep(Duration::from_millis(40));
    let options = Options {
        descriptor_idle: Duration::ZERO,
        ..Options::default()
    };
    let guest = Guest::with(share, options);
    let exchange = Exchange::of(share, "a", "b");
    let mut read = 0;
    let mut check = |node: NodeId, number: u64| {
        let (_, contents) = files
            .iter()
            .find(|file| file.0 == number)
            .expect("one of the two");
        if let Some(attributes) = unless_stale(guest.getattr(node)) {
            assert_eq!(attributes.ino, number);
            assert_eq!(
                attributes.size_bytes,
                contents.len().try_into().expect("small")
            );
        }
        if let Some(bytes) = unless_stale(guest.contents(node)) {
            assert_eq!(bytes, *contents);
            read += 1;
        }
    };
    rounds(|round| {
        let name = if round % 2 == 0 { "a" } else { "b" };
        let entry = guest
            .lookup(ROOT, name)
            .expect("a name that is always there");
        check(entry.node, entry.attributes.ino);
        if round % 7 == 0 {
            for listed in guest.list(ROOT, 4096, Kind::LookedUp).expect("a directory") {
                // The name was read first and looked up then: the number is that of the lookup.
                let node = listed.node.expect("looked up");
                if let Some(attributes) = unless_stale(guest.getattr(node)) {
                    check(node, attributes.ino);
                }
            }
        }
        if round % 50 == 0 {
            guest.cool_a_little();
        }
        if round % 500 == 0 {
            guest.forget(entry.node, u64::MAX);
        }
    });
    drop(exchange);
    assert!(read > 100, "{read} were read");
    assert!(guest.fs.known_inodes() <= 3, "two files are two nodes");
}

#[test]
fn exchanged_files_stay_themselves_where_births_tell() {
    let Some(store) = Store::tmpfs() else { return };
    exchanged_files_stay_themselves(store.path());
}

#[test]
fn exchanged_files_stay_themselves_where_descriptors_tell() {
    let Some(store) = Store::overlay(|_| ()) else {
        return;
    };
    exchanged_files_stay_themselves(store.path());
}

/// The symlink leads out; whatever stands under the name, nothing outside is ever seen or made.
#[test]
fn a_directory_that_becomes_a_symlink_never_leads_out() {
    let share = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(share.path().join("a")).unwrap();
    std::fs::write(share.path().join("a/file"), b"inside").unwrap();
    std::fs::write(outside.path().join("file"), b"outside").unwrap();
    std::os::unix::fs::symlink(outside.path(), share.path().join("b")).unwrap();
    let guest = Guest::forgetful(share.path());
    let exchange = Exchange::of(share.path(), "a", "b");
    let mut entered = 0;
    rounds(|round| {
        let entry = guest.lookup(ROOT, "a").unwrap();
        match guest.lookup(entry.node, "file") {
            Ok(file) => {
                entered += 1;
                if let Some(bytes) = unless_stale(guest.contents(file.node)) {
                    assert_eq!(bytes, b"inside");
                }
                let made = guest.create(entry.node, &format!("new-{}", round % 10), READ);
                if let Some((made, open)) = unless_stale(made) {
                    guest.release(made.node, open).unwrap();
                }
            }
            Err(errno) => assert!(matches!(errno, Errno::NOTDIR | Errno::STALE), "{errno}"),
        }
        if round % 20 == 0 {
            guest.cool_a_little();
        }
    });
    drop(exchange);
    assert!(entered > 100, "{entered} times inside");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

/// Opening a FIFO for reading would wake its writer, and opening it for writing would sleep.
#[test]
fn a_file_that_becomes_a_fifo_is_never_opened_as_one() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("a"), b"file").unwrap();
    make_fifo(&share.path().join("b"));
    let fifo = share.path().join("held");
    std::fs::hard_link(share.path().join("b"), &fifo).unwrap();
    let guest = Guest::forgetful(share.path());
    let exchange = Exchange::of(share.path(), "a", "b");
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::File::options().write(true).open(fifo)
    });
    let mut read = 0;
    rounds(|round| {
        let entry = guest.lookup(ROOT, "a").unwrap();
        match guest.contents(entry.node) {
            Ok(bytes) => {
                assert_eq!(bytes, b"file");
                read += 1;
            }
            Err(errno) => assert!(matches!(errno, Errno::NXIO | Errno::STALE), "{errno}"),
        }
        match guest.create(ROOT, "a", kit::READ_WRITE) {
            Ok((made, open)) => guest.release(made.node, open).unwrap(),
            Err(errno) => assert!(
                matches!(errno, Errno::NXIO | Errno::STALE | Errno::EXIST),
                "{errno}"
            ),
        }
        if round % 20 == 0 {
            guest.cool_a_little();
        }
    });
    drop(exchange);
    assert!(!writer.is_finished(), "the FIFO was opened");
    assert!(read > 100, "{read} were read");
    let reader = rustix::fs::open(
        &fifo,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    assert!(writer.join().unwrap().is_ok() && reader.is_ok());
}

/// Several queues' threads on two names that the guest itself exchanges, links and removes, while
/// descriptors are closed as fast as they come.
#[test]
fn many_threads_lose_no_file_that_the_guest_knows() {
    let share = tempfile::tempdir().unwrap();
    for number in 0..8 {
        std::fs::write(
            share.path().join(format!("file-{number}")),
            number.to_string(),
        )
        .unwrap();
    }
    std::thread::sleep(Duration::from_millis(40));
    let options = Options {
        descriptor_budget: 16,
        descriptor_idle: Duration::ZERO,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    let nodes: Vec<NodeId> = (0..8)
        .map(|number| guest.lookup(ROOT, format!("file-{number}")).unwrap().node)
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                guest.cool_a_little();
            }
        });
        rounds(|round| {
            let number = round % 8;
            let (name, node) = (format!("file-{number}"), nodes[number]);
            let other = format!("other-{number}");
            guest
                .rename(
                    (ROOT, &name),
                    (ROOT, &other),
                    virtiofs_protocol::RenameFlags::empty(),
                )
                .unwrap();
            assert_eq!(guest.contents(node).unwrap(), number.to_string().as_bytes());
            let linked = guest.link(node, ROOT, &name).unwrap();
            assert_eq!(linked.node, node);
            guest.unlink(ROOT, &other).unwrap();
            assert_eq!(guest.getattr(node).unwrap().nlink, 1);
            if round % 64 == 63 {
                // The last name goes and the file stays, for as long as it is known.
                let (entry, open) = guest.create(ROOT, "gone", kit::READ_WRITE).unwrap();
                guest.release(entry.node, open).unwrap();
                guest.unlink(ROOT, "gone").unwrap();
                assert_eq!(guest.getattr(entry.node).unwrap().nlink, 0);
                guest.forget(entry.node, 1);
            }
            guest.forget(node, 1);
        });
        stop.store(true, Ordering::Relaxed);
    });
}

/// What the guest does in a directory lands in it, wherever the host has moved it; beside it nothing is touched.
#[test]
fn a_directory_that_leaves_the_share_and_comes_back_leads_nowhere_else() {
    let place = tempfile::tempdir().unwrap();
    let (share, outside) = (place.path().join("share"), place.path().join("outside"));
    let (here, there) = (share.join("a"), outside.join("a"));
    std::fs::create_dir_all(here.join("deep")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(here.join("file"), b"inside").unwrap();
    for bait in ["file", "deep"] {
        std::fs::write(outside.join(bait), b"outside").unwrap();
    }
    let guest = Guest::forgetful(&share);
    let mover = Exchange::to_and_fro(here.clone(), there);
    let (mut entered, mut missed) = (0, 0);
    rounds(|round| {
        let entry = match guest.lookup(ROOT, "a") {
            Ok(entry) => entry,
            Err(errno) => {
                assert_eq!(errno, Errno::NOENT);
                missed += 1;
                return;
            }
        };
        match unless_stale(guest.lookup(entry.node, "file")) {
            Some(file) => {
                entered += 1;
                if let Some(bytes) = unless_stale(guest.contents(file.node)) {
                    assert_eq!(bytes, b"inside");
                }
                guest.forget(file.node, 1);
            }
            None => missed += 1,
        }
        let name = format!("new-{}", round % 10);
        if let Some((made, open)) = unless_stale(guest.create(entry.node, &name, READ)) {
            guest.release(made.node, open).unwrap();
            if let Some(deep) = unless_stale(guest.lookup(entry.node, "deep")) {
                let moved = guest.rename(
                    (entry.node, &name),
                    (deep.node, "moved"),
                    virtiofs_protocol::RenameFlags::empty(),
                );
                let _ = unless_stale(moved);
                let _ = unless_stale(guest.getattr(deep.node));
                guest.forget(deep.node, 1);
            }
            guest.forget(made.node, 1);
        }
        // The next round begins with the name alone.
        guest.forget(entry.node, 1);
        if round % 20 == 0 {
            guest.cool_a_little();
        }
    });
    drop(mover);
    println!("{entered} entered, {missed} missed");
    assert!(entered > 100 && missed > 0);
    let names = |path: &Path| {
        let names = std::fs::read_dir(path).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&outside), ["deep", "file"]);
    assert_eq!(names(&share), ["a"]);
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"outside");
    assert_eq!(std::fs::read(here.join("file")).unwrap(), b"inside");
}

/// Each thread forgets only what it has looked up itself, so what it knows must work.
#[test]
fn forget_against_lookup_takes_no_node_from_who_still_knows_it() {
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir(share.path().join("directory")).unwrap();
    std::fs::write(share.path().join("directory/file"), b"contents").unwrap();
    let options = Options {
        descriptor_idle: Duration::ZERO,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let guest = &guest;
            scope.spawn(move || {
                rounds(|round| {
                    let directory = guest.lookup(ROOT, "directory").unwrap().node;
                    let file = guest.lookup(directory, "file").unwrap().node;
                    if round % 3 == thread {
                        // The parent goes first: its child still hangs on it.
                        guest.forget(directory, 1);
                        assert_eq!(guest.getattr(file).unwrap().size_bytes, 8);
                        guest.forget(file, 1);
                        return;
                    }
                    assert_eq!(guest.contents(file).unwrap(), b"contents");
                    guest.forget(file, 1);
                    assert_eq!(guest.getattr(directory).map(|it| it.nlink), Ok(2));
                    guest.forget(directory, 1);
                });
            });
        }
        scope.spawn(|| {
            rounds(|_| {
                guest.cool_a_little();
            });
        });
    });
    assert_eq!(guest.fs.known_inodes(), 1, "all was forgotten");
}

/// A handle that is closed in another thread reads its own file to the last, or is no handle any more.
#[test]
fn release_against_read_never_reads_another_file() {
    use std::sync::Mutex;
    let share = tempfile::tempdir().unwrap();
    for number in 0..4_u8 {
        let path = share.path().join(number.to_string());
        std::fs::write(path, [number; 64]).unwrap();
    }
    let guest = Guest::on(share.path());
    let nodes: Vec<NodeId> = (0..4)
        .map(|number| guest.lookup(ROOT, number.to_string()).unwrap().node)
        .collect();
    let open = |number: u8| {
        (
            number,
            guest.open(nodes[usize::from(number)], READ).unwrap(),
        )
    };
    let current = Mutex::new(open(0));
    let (stop, read, closed) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (number, file) = *current.lock().unwrap();
                    match guest.read(nodes[usize::from(number)], file, 0, 64) {
                        Ok(bytes) => {
                            assert_eq!(bytes, [number; 64]);
                            read.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(errno) => {
                            assert_eq!(errno, Errno::BADF);
                            closed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        rounds(|round| {
            // Closed first: the readers still have its number.
            let (number, file) = *current.lock().unwrap();
            guest.release(nodes[usize::from(number)], file).unwrap();
            *current.lock().unwrap() = open(u8::try_from(round % 4).unwrap());
        });
        stop.store(true, Ordering::Relaxed);
    });
    let (read, closed) = (read.into_inner(), closed.into_inner());
    println!("{read} reads, {closed} of what was closed");
    assert!(read > 100 && closed > 0);
}
