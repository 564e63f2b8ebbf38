//! Files that the guest has closed stay open on the host for a moment, where nobody can tell the difference.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kit;

use std::path::Path;
use std::time::Duration;

use kit::store::Store;
use kit::{Guest, READ, READ_WRITE, ROOT, WRITE};
use virtiofs_hostfs::{NoAtime, Options, RemoteLocks};
use virtiofs_protocol::{Filesystem, HangUp, NodeId};

/// `O_SYNC`, `O_TRUNC` and `O_NOATIME` of Linux on x86-64 and AArch64.
const SYNC: u32 = 0o4_010_000;
const TRUNC: u32 = 0o1000;
const NOATIME: u32 = 0o1_000_000;
/// `O_PATH`, as fdinfo shows it.
const PATH: u32 = 0o10_000_000;

/// How often this process has a file open, other than to hold it.
fn openings(path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|number| std::fs::read_link(number).is_ok_and(|open| open == path))
        .filter(|number| {
            let about = Path::new("/proc/self/fdinfo").join(number.file_name().unwrap());
            let about = std::fs::read_to_string(about).unwrap_or_default();
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
            flags.is_some_and(|flags| {
                u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & PATH == 0)
            })
        })
        .count()
}

fn open_and_close(guest: &Guest, node: NodeId, flags: u32) {
    let file = guest.open(node, flags).unwrap();
    guest.release(node, file).unwrap();
}

#[test]
fn what_was_read_and_closed_is_open_for_the_next_one_who_reads() {
    let Some(store) = Store::tmpfs() else { return };
    let path = store.path().join("file");
    std::fs::write(&path, b"old").unwrap();
    let options = Options {
        descriptor_idle: Duration::from_millis(50),
        ..Options::default()
    };
    let guest = Guest::with(store.path(), options);
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let first = guest.open(node, READ).unwrap();
    let second = guest.open(node, READ).unwrap();
    assert_eq!(openings(&path), 2, "each open has a description of its own");
    guest.release(node, first).unwrap();
    guest.release(node, second).unwrap();
    assert_eq!(openings(&path), 2, "they rest");
    std::fs::write(&path, b"newer").unwrap();
    let again = guest.open(node, READ).unwrap();
    assert_eq!(openings(&path), 2);
    assert_eq!(guest.read(node, again, 0, 16).unwrap(), b"newer");
    // What is open stays so; the other one has rested long enough some day, and nothing is due then.
    while let Some(pause) = guest.fs.rest() {
        std::thread::sleep(pause);
    }
    assert_eq!(openings(&path), 1);
    guest.release(node, again).unwrap();
    assert_eq!(openings(&path), 1);
    guest.forget(node, 1);
    assert_eq!(openings(&path), 0, "forgotten");
}

#[test]
fn only_what_was_opened_for_reading_and_nothing_else_rests() {
    let Some(store) = Store::tmpfs() else { return };
    let path = store.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let options = Options {
        no_atime: NoAtime::PassedOn,
        ..Options::default()
    };
    let guest = Guest::with(store.path(), options);
    let node = guest.lookup(ROOT, "file").unwrap().node;
    for flags in [WRITE, READ_WRITE, READ | SYNC, READ | TRUNC, READ | NOATIME] {
        open_and_close(&guest, node, flags);
        assert_eq!(openings(&path), 0, "{flags:o}");
    }
    open_and_close(&guest, node, READ);
    assert_eq!(openings(&path), 1);
    // Nor does any of these get what rests.
    for flags in [WRITE, READ_WRITE, READ | SYNC, READ | NOATIME] {
        let file = guest.open(node, flags).unwrap();
        assert_eq!(openings(&path), 2, "{flags:o}");
        guest.release(node, file).unwrap();
    }
}

#[test]
fn nothing_rests_where_closing_gives_back_a_lock() {
    let Some(store) = Store::tmpfs() else { return };
    let path = store.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let options = Options {
        flocks: RemoteLocks::On,
        ..Options::default()
    };
    let guest = Guest::with(store.path(), options);
    let node = guest.lookup(ROOT, "file").unwrap().node;
    open_and_close(&guest, node, READ);
    assert_eq!(openings(&path), 0);
}

/// What was opened before a copy-up shows the lower file for ever.
#[test]
fn on_an_overlay_a_file_is_opened_anew_after_it_was_copied_up() {
    let fill = |lower: &Path| std::fs::write(lower.join("file"), b"lower").unwrap();
    let Some(store) = Store::overlay(fill) else {
        return;
    };
    let guest = Guest::on(store.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    open_and_close(&guest, node, READ);
    std::fs::write(store.path().join("file"), b"upper").unwrap();
    let file = guest.open(node, READ).unwrap();
    assert_eq!(guest.read(node, file, 0, 16).unwrap(), b"upper");
}

#[test]
fn at_the_end_of_a_session_nothing_rests() {
    let Some(store) = Store::tmpfs() else { return };
    let path = store.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let guest = Guest::on(store.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    open_and_close(&guest, node, READ);
    assert_eq!(openings(&path), 1);
    guest.fs.end(HangUp::SessionEnded);
    assert_eq!(openings(&path), 0);
}
