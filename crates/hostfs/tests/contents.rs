//! What is in files: bytes, holes, times, and getting them onto the disk.

mod kit;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use kit::store::Store;
use kit::{Guest, READ, READ_WRITE, ROOT, WRITE, make_fifo};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use virtiofs_hostfs::{NoAtime, Options, Submounts, Writeback};
use virtiofs_protocol::op::{Durability, Extras, Open, Opendir, Setattr, TimeChange, Whence};
use virtiofs_protocol::{
    Errno, FallocateMode, FileOffset, Filesystem, FopenFlags, InitFlags, NodeId, Timestamp,
};
use virtiofs_testkit::bridge::share::{can_mount, skipped};
use virtiofs_testkit::slowfs::{FILE, SlowFs};

const GIB: u64 = 1 << 30;

/// `O_APPEND` and `O_TRUNC`.
const APPEND: u32 = 0o2000;
const TRUNCATE: u32 = 0o1000;

#[test]
fn syncing_through_a_fifo_does_not_open_it() {
    let share = tempfile::tempdir().unwrap();
    let fifo = share.path().join("fifo");
    make_fifo(&fifo);
    let guest = Guest::on(share.path());
    let node = guest.lookup(ROOT, "fifo").unwrap().node;
    let path = fifo.clone();
    // Whoever opens a FIFO for writing sleeps until somebody opens it for reading.
    let writer = std::thread::spawn(move || std::fs::File::options().write(true).open(path));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(guest.syncfs(node), Err(Errno::INVAL));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!writer.is_finished(), "the FIFO was opened");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = std::fs::File::options();
    let reader = reader.read(true).custom_flags(nonblocking).open(&fifo);
    assert!(writer.join().unwrap().is_ok());
    drop(reader);
}

/// NFS tells at close that there was no room for what was written.
#[test]
fn what_a_store_says_when_a_file_is_closed_is_what_the_guest_hears() {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let slow = SlowFs::mount(share.path()).unwrap();
    let guest = Guest::on(share.path());
    let node = guest.lookup(ROOT, FILE).unwrap().node;
    let file = guest.open(node, READ).unwrap();
    assert_eq!(guest.flush(node, file), Ok(()));
    slow.fail_flush(Errno::DQUOT);
    assert_eq!(guest.flush(node, file), Err(Errno::DQUOT));
    guest.release(node, file).unwrap();
}

#[test]
fn data_directories_and_the_whole_file_system_are_synced() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    let (entry, file) = guest.create(ROOT, "file", WRITE).unwrap();
    guest.write(entry.node, file, 0, b"x").unwrap();
    guest.fsync(entry.node, file, Durability::Full).unwrap();
    guest.fsync(entry.node, file, Durability::DataOnly).unwrap();
    let directory = guest.opendir(ROOT).unwrap();
    guest.fsyncdir(ROOT, directory).unwrap();
    guest.syncfs(ROOT).unwrap();
    guest.syncfs(entry.node).unwrap();
    // A handle of the wrong kind is none.
    assert_eq!(guest.fsyncdir(ROOT, file), Err(Errno::BADF));
    assert_eq!(
        guest.fsync(ROOT, directory, Durability::Full),
        Err(Errno::BADF)
    );
}

#[test]
fn the_numbers_of_statfs_are_the_hosts() {
    let Some(store) = Store::tmpfs() else { return };
    let guest = Guest::on(store.path());
    let told = guest.statfs(ROOT).unwrap();
    let want = rustix::fs::statvfs(store.path()).unwrap();
    assert_eq!(told.blocks, want.f_blocks);
    assert_eq!(told.files, want.f_files);
    assert_eq!(u64::from(told.block_bytes), want.f_bsize);
    assert_eq!(u64::from(told.fragment_bytes), want.f_frsize);
    assert_eq!(told.name_max, 255);
}

#[test]
fn names_are_bytes_up_to_255_of_them() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    let longest = "n".repeat(255);
    guest.create(ROOT, &longest, WRITE).unwrap();
    assert!(share.path().join(&longest).exists());
    assert!(guest.lookup(ROOT, &longest).is_ok());
    let longer = "n".repeat(256);
    assert_eq!(
        guest.create(ROOT, &longer, WRITE).map(drop),
        Err(Errno::NAMETOOLONG)
    );
    let raw: &[u8] = b"\xff\xfe \n\x01";
    std::fs::write(share.path().join(OsStr::from_bytes(raw)), b"raw").unwrap();
    let node = guest.lookup(ROOT, raw).unwrap().node;
    assert_eq!(guest.contents(node).unwrap(), b"raw");
    let listed = guest.list(ROOT, 4096, kit::listing::Kind::Names).unwrap();
    assert!(listed.iter().any(|entry| entry.name == raw));
    assert!(listed.iter().any(|entry| entry.name == longest.as_bytes()));
}

#[test]
fn a_symlink_keeps_4095_bytes_of_target() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    for len in [1, 59, 60, 4095] {
        let target = vec![b't'; len];
        // ext4 holds no target that does not fit into its block with the end.
        match guest.symlink(ROOT, &format!("symlink-{len}"), &target) {
            Ok(entry) => assert_eq!(guest.readlink(entry.node).unwrap(), target),
            Err(errno) => assert_eq!((errno, len), (Errno::NAMETOOLONG, 4095)),
        }
    }
    let Some(store) = Store::tmpfs() else { return };
    let guest = Guest::on(store.path());
    let target = vec![b't'; 4095];
    let entry = guest.symlink(ROOT, "symlink", &target).unwrap();
    assert_eq!(guest.readlink(entry.node).unwrap(), target);
    assert_eq!(guest.readlink(ROOT), Err(Errno::INVAL));
}

#[test]
fn offsets_beyond_four_gib_keep_their_place() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    let (entry, file) = guest.create(ROOT, "sparse", READ_WRITE).unwrap();
    let node = entry.node;
    let far = 5 * GIB + 3;
    guest.write(node, file, far, b"far").unwrap();
    assert_eq!(guest.read(node, file, far, 100).unwrap(), b"far");
    assert_eq!(guest.read(node, file, far - 2, 4).unwrap(), b"\0\0fa");
    let attributes = guest.getattr(node).unwrap();
    assert_eq!(attributes.size_bytes, far + 3);
    assert!(attributes.blocks_512 * 512 < GIB, "it is sparse");
    let data = guest.lseek((node, file), 0, Whence::Data).unwrap();
    assert!(data > 4 * GIB && data <= far, "{data}");
    assert_eq!(guest.lseek((node, file), 0, Whence::Hole).unwrap(), 0);
    let end = guest.lseek((node, file), data, Whence::Hole).unwrap();
    assert_eq!(end, far + 3);
    assert_eq!(
        guest.lseek((node, file), end, Whence::Data),
        Err(Errno::NXIO)
    );
    let change = Setattr {
        size: FileOffset::new(6 * GIB).ok(),
        ..Setattr::default()
    };
    assert_eq!(guest.setattr(node, change).unwrap().size_bytes, 6 * GIB);
    // Beyond what any file may hold, and within what an offset may be.
    let end = 1 << 60;
    assert_eq!(guest.write(node, file, end, b"x"), Err(Errno::FBIG));
    assert_eq!(guest.read(node, file, end, 10), Ok(Vec::new()));
}

#[test]
fn each_mode_of_fallocate_does_what_the_host_does() {
    let Some(store) = Store::xfs() else { return };
    let guest = Guest::on(store.path());
    let (entry, file) = guest.create(ROOT, "file", READ_WRITE).unwrap();
    let open = (entry.node, file);
    let block = 4096;
    let page = |byte| vec![byte; 4096];
    for (at, byte) in [(0, b'a'), (1, b'b'), (2, b'c')] {
        guest
            .write(open.0, open.1, at * block, &page(byte))
            .unwrap();
    }
    let size = || guest.getattr(open.0).unwrap().size_bytes;
    let first = |at| guest.read(open.0, open.1, at * block, 1).unwrap()[0];
    let none = FallocateMode::empty();
    guest.fallocate(open, (0, 5 * block), none).unwrap();
    assert_eq!(size(), 5 * block);
    guest
        .fallocate(open, (0, 9 * block), FallocateMode::KEEP_SIZE)
        .unwrap();
    assert_eq!(size(), 5 * block);
    let punch = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    guest.fallocate(open, (block, block), punch).unwrap();
    assert_eq!((first(0), first(1), first(2)), (b'a', 0, b'c'));
    guest
        .fallocate(open, (0, block), FallocateMode::COLLAPSE_RANGE)
        .unwrap();
    assert_eq!((size(), first(0), first(1)), (4 * block, 0, b'c'));
    guest
        .fallocate(open, (block, block), FallocateMode::INSERT_RANGE)
        .unwrap();
    assert_eq!((size(), first(1), first(2)), (5 * block, 0, b'c'));
    guest
        .fallocate(open, (2 * block, block), FallocateMode::ZERO_RANGE)
        .unwrap();
    assert_eq!(first(2), 0);
    let undefined = FallocateMode::from_bits_retain(1 << 20);
    assert_eq!(
        guest.fallocate(open, (0, block), undefined),
        Err(Errno::OPNOTSUPP)
    );
    assert_eq!(guest.fallocate(open, (0, 0), none), Err(Errno::INVAL));
}

/// What is still in the guest would be a hole to who copies the file.
#[test]
fn nothing_is_searched_while_the_guest_writes_back_later() {
    let share = tempfile::tempdir().unwrap();
    let through = Guest::on(share.path());
    let (entry, file) = through.create(ROOT, "file", READ_WRITE).unwrap();
    through.write(entry.node, file, 0, b"content").unwrap();
    assert_eq!(through.lseek((entry.node, file), 3, Whence::Data), Ok(3));
    let options = Options {
        writeback: Writeback::On,
        ..Options::default()
    };
    let later = Guest::with(share.path(), options);
    let node = later.lookup(ROOT, "file").unwrap().node;
    let file = later.open(node, READ).unwrap();
    for whence in [Whence::Data, Whence::Hole] {
        assert_eq!(later.lseek((node, file), 3, whence), Err(Errno::NOSYS));
    }
}

#[test]
fn a_file_that_may_only_grow_is_opened_for_appending() {
    let Some(store) = Store::ext4() else { return };
    let path = store.path().join("file");
    std::fs::write(&path, b"content").unwrap();
    let flagged = std::fs::File::open(&path).unwrap();
    let flags = ioctl_getflags(&flagged).unwrap();
    ioctl_setflags(&flagged, flags | IFlags::APPEND).unwrap();
    let guest = Guest::on(store.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    for refused in [WRITE, READ_WRITE, WRITE | APPEND | TRUNCATE] {
        let opened = guest.open(node, refused).map(drop);
        assert_eq!(opened, Err(Errno::PERM), "{refused:o}");
    }
    let file = guest.open(node, WRITE | APPEND).unwrap();
    assert_eq!(guest.write(node, file, 0, b" grows"), Ok(6));
    assert_eq!(std::fs::read(&path).unwrap(), b"content grows");
    // What the guest's page cache holds of a mapping has a place, and cannot be appended.
    let stored = guest.write_of_the_cache((node, file), 0, b"CONTENT");
    assert_eq!(stored, Err(Errno::PERM));
    assert_eq!(std::fs::read(&path).unwrap(), b"content grows");
}

#[test]
fn a_range_is_copied_between_files_and_stops_at_the_end() {
    let share = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    std::fs::write(share.path().join("from"), &bytes).unwrap();
    let guest = Guest::on(share.path());
    let from = guest.lookup(ROOT, "from").unwrap().node;
    let from = (from, guest.open(from, READ).unwrap());
    let (entry, to) = guest.create(ROOT, "to", READ_WRITE).unwrap();
    let copied = guest.copy((from.0, from.1, 1000), (entry.node, to, 500), 10_000_000);
    assert_eq!(copied, Ok(99_000));
    let copy = std::fs::read(share.path().join("to")).unwrap();
    assert_eq!(copy[500..], bytes[1000..]);
    assert_eq!(
        guest.copy((from.0, from.1, 100_000), (entry.node, to, 0), 10),
        Ok(0)
    );
}

#[test]
fn times_before_1970_and_their_nanoseconds_are_kept() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"").unwrap();
    let guest = Guest::on(share.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let time = |secs: i64, nanos| {
        Some(TimeChange::To(
            Timestamp::new(secs.cast_unsigned(), nanos).unwrap(),
        ))
    };
    let change = Setattr {
        atime: time(-1, 999_999_999),
        mtime: time(-86_400 * 365, 1),
        ..Setattr::default()
    };
    let told = guest.setattr(node, change).unwrap();
    assert_eq!(told.atime, (-1, 999_999_999));
    assert_eq!(told.mtime, (-86_400 * 365, 1));
    let metadata = share.path().join("file").metadata().unwrap();
    assert_eq!((metadata.atime(), metadata.atime_nsec()), (-1, 999_999_999));
    let only_mtime = Setattr {
        mtime: Some(TimeChange::Now),
        ..Setattr::default()
    };
    let told = guest.setattr(node, only_mtime).unwrap();
    assert_eq!(told.atime, (-1, 999_999_999), "what is not mentioned stays");
    assert!(told.mtime.0 > 1_600_000_000);
}

/// A symlink, a FIFO, a socket: their times and owners change, and nothing of them is opened.
#[test]
fn attributes_of_what_is_never_opened_can_be_changed() {
    let share = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), share.path().join("symlink")).unwrap();
    make_fifo(&share.path().join("fifo"));
    let _socket = std::os::unix::net::UnixListener::bind(share.path().join("socket")).unwrap();
    let guest = Guest::on(share.path());
    let before = outside.as_file().metadata().unwrap();
    for name in ["symlink", "fifo", "socket"] {
        let node = guest.lookup(ROOT, name).unwrap().node;
        let change = Setattr {
            mtime: Some(TimeChange::To(Timestamp::new(1_000_000, 5).unwrap())),
            ..Setattr::default()
        };
        assert_eq!(
            guest.setattr(node, change).unwrap().mtime,
            (1_000_000, 5),
            "{name}"
        );
        let cut = Setattr {
            size: FileOffset::new(0).ok(),
            ..Setattr::default()
        };
        assert_eq!(
            guest.setattr(node, cut).map(drop),
            Err(Errno::INVAL),
            "{name}"
        );
        assert!(guest.open(node, READ).is_err(), "{name}");
    }
    let after = outside.as_file().metadata().unwrap();
    assert_eq!(
        before.mtime_nsec(),
        after.mtime_nsec(),
        "the target is another file"
    );
    assert!(
        share
            .path()
            .join("fifo")
            .metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn a_single_file_is_a_share() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"alone").unwrap();
    let guest = Guest::on(file.path());
    assert_eq!(guest.getattr(ROOT).unwrap().size_bytes, 5);
    assert_eq!(guest.contents(ROOT).unwrap(), b"alone");
    let open = guest.open(ROOT, WRITE).unwrap();
    guest.write(ROOT, open, 5, b"!").unwrap();
    guest.fsync(ROOT, open, Durability::Full).unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), b"alone!");
    assert_eq!(guest.lookup(ROOT, "name").map(drop), Err(Errno::NOTDIR));
    assert_eq!(guest.opendir(ROOT).map(drop), Err(Errno::NOTDIR));
    guest.syncfs(ROOT).unwrap();
    guest.statfs(ROOT).unwrap();
}

#[test]
fn the_hosts_root_is_a_share() {
    let guest = Guest::on(Path::new("/"));
    let (mut node, place) = (ROOT, tempfile::NamedTempFile::new().unwrap());
    std::fs::write(place.path(), b"deep").unwrap();
    for name in place.path().iter().skip(1) {
        node = guest.lookup(node, name.as_bytes()).unwrap().node;
    }
    assert_eq!(guest.contents(node).unwrap(), b"deep");
    let listed = guest
        .list(ROOT, 1 << 16, kit::listing::Kind::LookedUp)
        .unwrap();
    for name in ["proc", "dev", "etc"] {
        assert!(
            listed.iter().any(|entry| entry.name == name.as_bytes()),
            "{name}"
        );
    }
    // The way up ends at the root for a guest: `..` is no name.
    assert_eq!(guest.lookup(ROOT, "..").map(drop), Err(Errno::INVAL));
    let root = rustix::fs::statat(rustix::fs::CWD, "/", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(guest.getattr(ROOT).unwrap().ino, root.st_ino);
}

/// Sets a time of access that any reading changes, where the mount keeps such times (relatime).
fn long_ago(path: &Path) -> std::io::Result<()> {
    let times = std::fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    std::fs::File::open(path)?.set_times(times)
}

fn was_accessed(path: &Path) -> bool {
    path.metadata().is_ok_and(|stat| stat.atime() != 0)
}

#[test]
fn access_times_stay_where_both_sides_want_that() {
    let share = tempfile::tempdir().unwrap();
    let path = |name: &str| share.path().join(name);
    std::fs::write(path("file"), b"content").unwrap();
    std::fs::create_dir(path("directory")).unwrap();
    long_ago(&path("file")).unwrap();
    std::fs::read(path("file")).unwrap();
    if !was_accessed(&path("file")) {
        skipped("needs a file system that keeps times of access");
        return;
    }
    let asked = rustix::fs::OFlags::NOATIME.bits();
    let rows = [
        (NoAtime::PassedOn, READ_WRITE | asked, false),
        (NoAtime::PassedOn, READ_WRITE, true),
        (NoAtime::Ignored, READ_WRITE | asked, true),
    ];
    for (no_atime, flags, accessed) in rows {
        let what = format!("{no_atime:?}, {flags:o}");
        let options = Options {
            no_atime,
            ..Options::default()
        };
        let guest = Guest::with(share.path(), options);
        let node = guest.lookup(ROOT, "file").unwrap().node;
        let file = guest.open(node, flags).unwrap();
        long_ago(&path("file")).unwrap();
        guest.read(node, file, 0, 100).unwrap();
        assert_eq!(was_accessed(&path("file")), accessed, "{what}: file");

        let (made, file) = guest.create(ROOT, "made", flags).unwrap();
        guest.write(made.node, file, 0, b"content").unwrap();
        long_ago(&path("made")).unwrap();
        guest.read(made.node, file, 0, 100).unwrap();
        assert_eq!(was_accessed(&path("made")), accessed, "{what}: made");
        guest.unlink(ROOT, "made").unwrap();

        let node = guest.lookup(ROOT, "directory").unwrap().node;
        let op = Opendir { guest_flags: flags };
        let directory = guest.fs.opendir(&guest.cx(), node, op).unwrap().handle;
        long_ago(&path("directory")).unwrap();
        let names = kit::listing::Kind::Names;
        guest
            .readdir_bytes((node, directory), 0, 4096, names)
            .unwrap();
        assert_eq!(was_accessed(&path("directory")), accessed, "{what}: list");
    }
}

/// On a FUSE store another symlink may come with the same number, and no birth tells it apart.
#[test]
fn targets_of_symlinks_are_not_kept_where_another_inode_may_look_the_same() {
    let share = tempfile::tempdir().unwrap();
    let offered = |path| Guest::on(path).negotiated.flags;
    assert!(offered(share.path()).contains(InitFlags::CACHE_SYMLINKS));
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return;
    }
    let _slow = SlowFs::mount(share.path()).unwrap();
    assert!(!offered(share.path()).contains(InitFlags::CACHE_SYMLINKS));
}

/// Whether a file system's image holds a block of this byte; the smallest block has 1024.
fn holds_block(image: &Path, byte: u8) -> bool {
    let image = std::fs::read(image).unwrap_or_default();
    image.chunks(1024).any(|block| block == [byte; 1024])
}

/// Each row: whether mounts are announced, and whether the mount itself is what the guest's kernel syncs.
#[test]
fn syncing_reaches_each_mount_that_the_guest_takes_for_the_same_file_system() {
    let Some(store) = Store::ext4() else { return };
    let share = store.path().parent().unwrap();
    let rows = [
        (Submounts::Hidden, false, b'h'),
        (Submounts::Announced, true, b'a'),
    ];
    for (submounts, itself, byte) in rows {
        let options = Options {
            submounts,
            ..Options::default()
        };
        let guest = Guest::with(share, options);
        let mounted = guest.lookup(ROOT, "mounted").unwrap().node;
        let name = format!("file-{itself}");
        let (entry, file) = guest.create(mounted, &name, WRITE).unwrap();
        guest.write(entry.node, file, 0, &[byte; 4096]).unwrap();
        guest.syncfs(if itself { mounted } else { ROOT }).unwrap();
        assert!(
            holds_block(&share.join("image"), byte),
            "{submounts:?}: not on the disk"
        );
    }
}

/// Whether the guest is told that closing the file needs no FLUSH.
fn is_told_not_to_flush(guest: &Guest, node: NodeId, guest_flags: u32) -> bool {
    let options = kit::options(guest_flags);
    let opened = guest.fs.open(&guest.cx(), node, Open { options });
    let flags = opened.expect("a regular file").flags;
    flags.contains(FopenFlags::NOFLUSH)
}

/// Each condition by itself: the open is for reading, no locks are kept here, the store says nothing at a close.
#[test]
fn a_close_without_flush_is_for_files_that_have_nothing_to_tell_or_to_give_back() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"content").unwrap();
    let mut guest = Guest::on(share.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    assert!(is_told_not_to_flush(&guest, node, READ));
    assert!(!is_told_not_to_flush(&guest, node, WRITE));
    assert!(!is_told_not_to_flush(&guest, node, READ_WRITE));
    let (_, made) = guest
        .create_as(
            guest.caller,
            (ROOT, "made"),
            (WRITE, 0o600),
            Extras::default(),
        )
        .unwrap();
    assert!(!made.flags.contains(FopenFlags::NOFLUSH));
    guest.negotiated.flags.insert(InitFlags::POSIX_LOCKS);
    assert!(!is_told_not_to_flush(&guest, node, READ));
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return;
    }
    let slow = tempfile::tempdir().unwrap();
    let _mounted = SlowFs::mount(slow.path()).unwrap();
    let guest = Guest::on(slow.path());
    let node = guest.lookup(ROOT, FILE).unwrap().node;
    assert!(!is_told_not_to_flush(&guest, node, READ));
}
