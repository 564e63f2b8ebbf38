//! Who owns what is made, and with which bits.

mod kit;

use std::os::unix::fs::MetadataExt;

use kit::{Guest, READ, READ_WRITE, ROOT, WRITE, make_fifo, mode_of, options, set_mode};
use rustix::fs::OFlags;
use virtiofs_hostfs::{Options, Writeback};
use virtiofs_protocol::op::{
    self, Extras, KillPrivileges, Mknod, NodeKind, OpenOptions, Permissions, Setattr, Tmpfile,
};
use virtiofs_protocol::{
    Caller, Errno, FallocateMode, FileOffset, Filesystem, Gid, Guest as Theirs, InitFlags, Name,
    Uid,
};
use virtiofs_testkit::bridge::share::skipped;

const ALICE: Caller = Caller::new(1000, 1000, 1);
const STAFF: u32 = 50;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped("needs root");
    }
    root
}

fn bits(flags: OFlags) -> u32 {
    flags.bits()
}

/// A request that fails has made nothing.
#[test]
fn at_the_cap_of_inodes_nothing_is_made_and_what_is_known_is_opened() {
    let share = tempfile::tempdir().unwrap();
    let capped = Options {
        max_inodes: Some(1),
        ..Options::default()
    };
    let guest = Guest::with(share.path(), capped);
    let (known, file) = guest.create(ROOT, "known", WRITE).unwrap();
    guest.release(known.node, file).unwrap();
    let op = Mknod {
        name: Name::new(c"new").unwrap(),
        kind: NodeKind::Fifo,
        mode: Permissions::from_wire(0o640),
        umask: Permissions::from_wire(0),
        extras: Extras::default(),
    };
    let refused = [
        guest.mkdir(ROOT, "new").map(drop),
        guest.symlink(ROOT, "new", b"target").map(drop),
        guest.create(ROOT, "new", WRITE).map(drop),
        guest
            .create(ROOT, "new", WRITE | bits(OFlags::EXCL))
            .map(drop),
    ];
    assert_eq!(refused, [Err(Errno::NOMEM); 4]);
    assert!(guest.fs.mknod(&guest.cx(), ROOT, op).is_err());
    assert!(!share.path().join("new").exists());
    guest.create(ROOT, "known", WRITE).unwrap();
    guest.forget(known.node, 2);
    guest.mkdir(ROOT, "new").unwrap();
}

#[test]
fn what_is_made_belongs_to_the_caller() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    set_mode(share.path(), 0o777);
    let mut guest = Guest::on(share.path());
    guest.caller = ALICE;
    guest.create(ROOT, "file", WRITE).unwrap();
    guest.mkdir(ROOT, "directory").unwrap();
    guest.symlink(ROOT, "symlink", b"target").unwrap();
    let op = Mknod {
        name: Name::new(c"fifo").unwrap(),
        kind: NodeKind::Fifo,
        mode: Permissions::from_wire(0o640),
        umask: Permissions::from_wire(0),
        extras: Extras::default(),
    };
    guest.fs.mknod(&guest.cx(), ROOT, op).unwrap();
    for name in ["file", "directory", "symlink", "fifo"] {
        let made = share.path().join(name).symlink_metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), (1000, 1000), "{name}");
    }
    // The thread is itself again.
    assert!(rustix::process::geteuid().is_root() && rustix::process::getegid().is_root());
    guest.caller = Caller::new(0, 0, 1);
    guest.create(ROOT, "of-root", WRITE).unwrap();
    assert_eq!(share.path().join("of-root").metadata().unwrap().uid(), 0);
}

#[test]
fn an_id_that_means_nobody_makes_nothing() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    for caller in [Caller::new(u32::MAX, 0, 1), Caller::new(0, u32::MAX, 1)] {
        let made = guest.mkdir_as(caller, (ROOT, "directory"), 0o755);
        assert_eq!(made.map(drop), Err(Errno::INVAL));
    }
    assert!(!share.path().join("directory").exists());
}

/// The bits arrive as the guest computed them: nothing of the daemon's umask is in them.
#[test]
fn the_mode_is_the_guests_whatever_the_daemons_umask_was() {
    let share = tempfile::tempdir().unwrap();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let guest = Guest::on(share.path());
    for (name, mode) in [("all", 0o777), ("some", 0o751), ("none", 0)] {
        let made = (WRITE, mode);
        guest
            .create_as(guest.caller, (ROOT, name), made, Extras::default())
            .unwrap();
        assert_eq!(mode_of(&share.path().join(name)), mode);
        let directory = format!("{name}-directory");
        guest
            .mkdir_as(guest.caller, (ROOT, &directory), mode)
            .unwrap();
        assert_eq!(mode_of(&share.path().join(directory)), mode);
    }
}

#[test]
fn a_setgid_directory_hands_its_group_down() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(share.path(), None, Some(STAFF)).unwrap();
    set_mode(share.path(), 0o2777);
    let mut guest = Guest::on(share.path());
    guest.caller = ALICE;
    guest.create(ROOT, "file", WRITE).unwrap();
    guest.mkdir(ROOT, "directory").unwrap();
    let file = share.path().join("file");
    assert_eq!(file.metadata().unwrap().gid(), STAFF);
    assert_eq!(mode_of(&file), 0o644);
    let directory = share.path().join("directory");
    assert_eq!(directory.metadata().unwrap().gid(), STAFF);
    assert_eq!(mode_of(&directory), 0o2755, "and the bit as well");
}

/// open(2): a caller outside the group makes no set-group-ID file of it, a member does.
#[test]
fn setgid_on_a_new_file_needs_membership_that_the_guest_states() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(share.path(), None, Some(STAFF)).unwrap();
    set_mode(share.path(), 0o2777);
    let guest = Guest::on(share.path());
    let member = Extras {
        supplementary_group: Some(Theirs(Gid(STAFF))),
        ..Extras::default()
    };
    for (name, extras, want) in [
        ("outsider", Extras::default(), 0o755),
        ("member", member, 0o2755),
    ] {
        guest
            .create_as(ALICE, (ROOT, name), (WRITE, 0o2755), extras)
            .unwrap();
        assert_eq!(mode_of(&share.path().join(name)), want, "{name}");
    }
    let groups = rustix::process::getgroups().unwrap();
    assert!(!groups.iter().any(|group| group.as_raw() == STAFF));
}

/// The guest's kernel has let the caller in with all of its groups; the host knows one of them.
#[test]
fn a_directory_open_to_a_group_the_host_is_not_told_of_still_takes_the_file() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(share.path(), None, Some(STAFF)).unwrap();
    set_mode(share.path(), 0o770);
    let mut guest = Guest::on(share.path());
    guest.caller = ALICE;
    guest.create(ROOT, "file", WRITE).unwrap();
    let made = share.path().join("file").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1000));
    assert!(rustix::process::geteuid().is_root());
}

#[test]
fn o_excl_refuses_and_without_it_the_file_is_opened_and_cut_only_on_demand() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"contents").unwrap();
    let guest = Guest::on(share.path());
    let exclusive = bits(OFlags::WRONLY | OFlags::EXCL);
    assert_eq!(
        guest.create(ROOT, "file", exclusive).map(drop),
        Err(Errno::EXIST)
    );
    let (entry, _) = guest.create(ROOT, "file", READ_WRITE).unwrap();
    assert_eq!(entry.attributes.size_bytes, 8);
    assert_eq!(guest.contents(entry.node).unwrap(), b"contents");
    let cutting = bits(OFlags::RDWR | OFlags::TRUNC);
    let (entry, _) = guest.create(ROOT, "file", cutting).unwrap();
    assert_eq!(
        entry.attributes.size_bytes, 0,
        "told as it is after the cut"
    );
}

#[test]
fn creating_over_a_symlink_a_fifo_or_a_directory_opens_none_of_them() {
    let share = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), share.path().join("symlink")).unwrap();
    std::fs::create_dir(share.path().join("directory")).unwrap();
    make_fifo(&share.path().join("fifo"));
    let guest = Guest::on(share.path());
    for (name, want) in [
        ("symlink", Errno::LOOP),
        ("directory", Errno::ISDIR),
        ("fifo", Errno::NXIO),
    ] {
        let known = guest.fs.known_inodes();
        assert_eq!(
            guest.create(ROOT, name, WRITE).map(drop),
            Err(want),
            "{name}"
        );
        assert_eq!(guest.fs.known_inodes(), known, "nothing stays counted");
    }
}

fn killing(guest_flags: u32) -> OpenOptions {
    OpenOptions {
        kill_privileges: KillPrivileges::Yes,
        ..options(guest_flags)
    }
}

/// With HANDLE_KILLPRIV_V2 the guest says when set-id bits go; root's writes leave them otherwise.
#[test]
fn set_id_bits_go_when_the_guest_says_so_and_stay_when_not() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let path = share.path().join("file");
    std::fs::write(&path, b"contents").unwrap();
    let guest = Guest::on(share.path());
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let file = guest.open(node, READ_WRITE).unwrap();
    let size = |kill_privileges| Setattr {
        size: FileOffset::new(4).ok(),
        kill_privileges,
        ..Setattr::default()
    };
    let reset = || set_mode(&path, 0o6755);
    let cases: [(&str, u32, &dyn Fn()); 6] = [
        ("a write that keeps", 0o6755, &|| {
            guest
                .write_with((node, file), 0, b"x", KillPrivileges::No)
                .map(drop)
                .unwrap();
        }),
        ("a write that kills", 0o755, &|| {
            guest
                .write_with((node, file), 0, b"x", KillPrivileges::Yes)
                .map(drop)
                .unwrap();
        }),
        ("a truncation that keeps", 0o6755, &|| {
            guest
                .setattr(node, size(KillPrivileges::No))
                .map(drop)
                .unwrap();
        }),
        ("a truncation that kills", 0o755, &|| {
            guest
                .setattr(node, size(KillPrivileges::Yes))
                .map(drop)
                .unwrap();
        }),
        ("an open that cuts and kills", 0o755, &|| {
            let options = killing(bits(OFlags::WRONLY | OFlags::TRUNC));
            guest
                .fs
                .open(&guest.cx(), node, op::Open { options })
                .map(drop)
                .unwrap();
        }),
        ("a change of owner", 0o755, &|| {
            let change = Setattr {
                guest_uid: Some(Theirs(Uid(1000))),
                ..Setattr::default()
            };
            guest.setattr(node, change).map(drop).unwrap();
        }),
    ];
    for (what, want, act) in cases {
        reset();
        act();
        assert_eq!(mode_of(&path), want, "{what}");
    }
    // The thread has its right back: the next write that may keep the bits keeps them.
    reset();
    guest.write(node, file, 0, b"y").unwrap();
    assert_eq!(mode_of(&path), 0o6755);
}

/// Before Linux 5.11: the guest leaves it to the daemon and says nothing (fuse.h, FUSE_HANDLE_KILLPRIV).
#[test]
fn with_the_first_form_every_write_and_truncation_drops_set_id_bits() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let path = share.path().join("file");
    std::fs::write(&path, b"contents").unwrap();
    let mut guest = Guest::on(share.path()).without(InitFlags::HANDLE_KILLPRIV_V2);
    guest.negotiated.flags.insert(InitFlags::HANDLE_KILLPRIV);
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let file = guest.open(node, READ_WRITE).unwrap();
    let size = |file| Setattr {
        size: FileOffset::new(4).ok(),
        file,
        ..Setattr::default()
    };
    let cases: [(&str, &dyn Fn()); 5] = [
        ("a write", &|| {
            guest.write(node, file, 0, b"x").map(drop).unwrap();
        }),
        ("a truncation", &|| {
            guest.setattr(node, size(None)).map(drop).unwrap();
        }),
        ("a truncation of what is open", &|| {
            guest.setattr(node, size(Some(file))).map(drop).unwrap();
        }),
        ("an open that cuts", &|| {
            let flags = bits(OFlags::WRONLY | OFlags::TRUNC);
            guest.open(node, flags).map(drop).unwrap();
        }),
        ("an allocation", &|| {
            guest
                .fallocate((node, file), (0, 1 << 16), FallocateMode::empty())
                .unwrap();
        }),
    ];
    for (what, act) in cases {
        set_mode(&path, 0o6755);
        act();
        assert_eq!(mode_of(&path), 0o755, "{what}");
    }
}

/// FALLOCATE and COPY_FILE_RANGE have no flag for it, and the guest's kernel leaves it to the daemon.
#[test]
fn what_cannot_say_whether_set_id_bits_go_drops_them_unless_root_asks() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let path = share.path().join("file");
    std::fs::write(&path, b"contents").unwrap();
    let mut guest = Guest::on(share.path());
    for (caller, stays) in [(Caller::new(0, 0, 1), 0o6755), (ALICE, 0o755)] {
        guest.caller = caller;
        let node = guest.lookup(ROOT, "file").unwrap().node;
        let file = guest.open(node, READ_WRITE).unwrap();
        set_mode(&path, 0o6755);
        guest
            .fallocate((node, file), (0, 1 << 16), FallocateMode::empty())
            .unwrap();
        assert_eq!(mode_of(&path), stays, "allocated by {caller:?}");
        set_mode(&path, 0o6755);
        guest
            .copy((node, file, 0), (node, file, 1 << 15), 4096)
            .unwrap();
        assert_eq!(mode_of(&path), stays, "copied by {caller:?}");
    }
}

/// An overlay's work directory grants nothing to anybody.
#[test]
fn where_nobody_may_enter_no_file_without_a_name_is_made() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    let work = guest.mkdir(ROOT, "work").unwrap().node;
    let op = Tmpfile {
        options: options(READ_WRITE),
        mode: Permissions::from_wire(0o600),
        umask: Permissions::from_wire(0),
        extras: Extras::default(),
    };
    for (mode, answer) in [
        (0, Err(Errno::OPNOTSUPP.into())),
        (0o1000, Err(Errno::OPNOTSUPP.into())),
        (0o100, Ok(())),
    ] {
        set_mode(&share.path().join("work"), mode);
        let made = guest.fs.tmpfile(&guest.cx(), work, op).map(drop);
        assert_eq!(made, answer, "{mode:o}");
    }
}

/// The guest's kernel has granted the right; the host's is not asked again as somebody else.
#[test]
fn a_sticky_directory_lets_go_of_what_the_guest_lets_go_of() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    set_mode(share.path(), 0o1777);
    let mut guest = Guest::on(share.path());
    guest.caller = ALICE;
    guest.create(ROOT, "file", WRITE).unwrap();
    guest.caller = Caller::new(1001, 1001, 1);
    guest.unlink(ROOT, "file").unwrap();
    assert!(!share.path().join("file").exists());
}

#[test]
fn appending_finds_the_end_whatever_the_offset_says() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::on(share.path());
    let appending = bits(OFlags::WRONLY | OFlags::APPEND);
    let (entry, file) = guest.create(ROOT, "file", appending).unwrap();
    let path = share.path().join("file");
    guest.write(entry.node, file, 0, b"one ").unwrap();
    // Somebody on the host appends as well, which the guest's idea of the size knows nothing of.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"two ");
    std::fs::write(&path, bytes).unwrap();
    guest.write(entry.node, file, 4, b"three").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one two three");
}

/// A daemon that offers a write-back cache to a guest that does not take it has guests whose
/// offsets are guesses, as without the offer.
#[test]
fn appending_finds_the_end_where_a_write_back_cache_was_offered_in_vain() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"host ").unwrap();
    let offered = Options {
        writeback: Writeback::On,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), offered).without(InitFlags::WRITEBACK_CACHE);
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let file = guest
        .open(node, bits(OFlags::WRONLY | OFlags::APPEND))
        .unwrap();
    guest.write(node, file, 0, b"guest").unwrap();
    assert_eq!(
        std::fs::read(share.path().join("file")).unwrap(),
        b"host guest"
    );
}

#[test]
fn a_write_back_cache_places_its_writes_itself_and_may_read_what_is_open_for_writing() {
    let share = tempfile::tempdir().unwrap();
    std::fs::write(share.path().join("file"), b"0123456789").unwrap();
    let options = Options {
        writeback: Writeback::On,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    let node = guest.lookup(ROOT, "file").unwrap().node;
    let file = guest
        .open(node, bits(OFlags::WRONLY | OFlags::APPEND))
        .unwrap();
    guest.write(node, file, 2, b"xx").unwrap();
    assert_eq!(guest.read(node, file, 0, 100).unwrap(), b"01xx456789");
    assert!(guest.open(node, READ).is_ok());
}
