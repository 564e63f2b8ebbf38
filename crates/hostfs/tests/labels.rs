//! New objects have the label that their request brings, or are not made.

mod kit;

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{Mode, OFlags, lgetxattr, open};
use virtiofs_hostfs::{
    Options, PassthroughFs, SecurityLabels, SharedRoot, XattrPolicy, XattrRules,
};
use virtiofs_protocol::op::{
    self, Extras, KillPrivileges, Mknod, NodeKind, OpenOptions, Permissions, SecurityLabel,
};
use virtiofs_protocol::{Errno, Filesystem, InitFlags, Name, Negotiated, Outcome, Refusal};

use kit::{Guest, READ, READ_WRITE, ROOT, WRITE, c_name, shared_root};

/// Labels become attributes of users, which files and directories have, and nothing else.
const USERS: &[u8] = b":prefix:all:security.:user.virtiofs.::ok:all:::";
/// Labels become attributes of root, which everything has.
const TRUSTED: &[u8] = b":prefix:all:security.:trusted.virtiofs.::ok:all:::";
const PLAIN: &[u8] = b":ok:all:::";
const LABEL: &[u8] = b"system_u:object_r:etc_t:s0\0";
const O_EXCL: u32 = 0o200;

#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
fn options(map: &[u8], security_labels: SecurityLabels) -> Options {
    // Where the daemon reaches attributes from; the same for every test.
    std::env::set_current_dir("/proc/self/fd").unwrap();
    Options {
        xattr: XattrPolicy::On(XattrRules::parse(map).unwrap()),
        security_labels,
        ..Options::default()
    }
}

fn labelled(value: &[u8]) -> Extras<'_> {
    Extras {
        label: SecurityLabel::new(c"security.selinux", value),
        ..Extras::default()
    }
}

/// Each kind of creation, by the name of what it makes.
const KINDS: [&str; 6] = ["read", "write", "directory", "link", "node", "fifo"];

/// Makes an object of a kind, labelled.
fn make(guest: &Guest, kind: &str, value: &[u8]) -> Result<(), Errno> {
    let name = c_name(kind);
    let name = Name::new(&name)?;
    let (mode, umask) = (Permissions::from_wire(0o640), Permissions::from_wire(0));
    let extras = labelled(value);
    let (fs, cx) = (&guest.fs, guest.cx());
    let node = |kind| Mknod {
        name,
        kind,
        mode,
        umask,
        extras,
    };
    let target = c"target";
    let made = match kind {
        "read" => guest
            .create_as(guest.caller, (ROOT, kind), (READ | O_EXCL, 0o640), extras)
            .map(drop)
            .map_err(Refusal::Errno),
        "write" => guest
            .create_as(guest.caller, (ROOT, kind), (WRITE, 0o640), extras)
            .map(drop)
            .map_err(Refusal::Errno),
        "directory" => {
            let op = op::Mkdir {
                name,
                mode,
                umask,
                extras,
            };
            fs.mkdir(&cx, ROOT, op).map(drop)
        }
        "link" => {
            let op = op::Symlink {
                name,
                target,
                extras,
            };
            fs.symlink(&cx, ROOT, op).map(drop)
        }
        "node" => fs.mknod(&cx, ROOT, node(NodeKind::File)).map(drop),
        _ => fs.mknod(&cx, ROOT, node(NodeKind::Fifo)).map(drop),
    };
    errno(made)
}

fn errno<T>(outcome: Outcome<T>) -> Result<T, Errno> {
    outcome.map_err(|refusal| match refusal {
        Refusal::Errno(errno) => errno,
        Refusal::WouldSleep(_) => panic!("a patient thread was refused"),
    })
}

/// A file without a name in the root, labelled.
fn make_nameless(guest: &Guest, value: &[u8]) -> Result<(), Errno> {
    let op = op::Tmpfile {
        options: OpenOptions {
            guest_flags: READ_WRITE,
            kill_privileges: KillPrivileges::No,
        },
        mode: Permissions::from_wire(0o600),
        umask: Permissions::from_wire(0),
        extras: labelled(value),
    };
    errno(guest.fs.tmpfile(&guest.cx(), ROOT, op)).map(drop)
}

fn attribute(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 256];
    let len = lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

const NOTHING: [PathBuf; 0] = [];

#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("VIRTIOFSD_NO_SKIP").is_none(),
            "root's attributes need root"
        );
        println!("SKIPPED: root's attributes need root");
    }
    root
}

#[test]
fn each_kind_of_object_has_its_label_when_its_creation_is_answered() {
    if !is_root() {
        return;
    }
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::with(share.path(), options(TRUSTED, SecurityLabels::Required));
    for kind in KINDS {
        assert_eq!(make(&guest, kind, LABEL), Ok(()), "{kind}");
        let path = share.path().join(kind);
        let label = attribute(&path, "trusted.virtiofs.security.selinux");
        assert_eq!(label, Ok(LABEL.to_vec()), "{kind}");
        assert_eq!(make(&guest, kind, b"other"), again(kind), "{kind} again");
        let label = attribute(&path, "trusted.virtiofs.security.selinux");
        assert_eq!(label, Ok(LABEL.to_vec()), "{kind}");
    }
}

/// CREATE without O_EXCL opens what is there.
fn again(kind: &str) -> Result<(), Errno> {
    match kind {
        "write" => Ok(()),
        _ => Err(Errno::EXIST),
    }
}

#[test]
fn a_file_made_to_be_read_or_written_is_open_for_that() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::with(share.path(), options(USERS, SecurityLabels::Required));
    let create = |name, flags, mode| {
        let made = guest.create_as(guest.caller, (ROOT, name), (flags, mode), labelled(LABEL));
        made.unwrap()
    };
    let (entry, opened) = create("written", WRITE, 0o640);
    let written = guest.write(entry.node, opened.handle, 0, b"content");
    assert_eq!(written, Ok(7));
    let (entry, opened) = create("read", READ, 0o640);
    assert_eq!(guest.read(entry.node, opened.handle, 0, 10), Ok(Vec::new()));
    let written = guest.write(entry.node, opened.handle, 0, b"content");
    assert_eq!(written, Err(Errno::BADF), "it is not open for writing");
    assert_eq!(entry.attributes.mode & 0o7777, 0o640);
    for name in ["written", "read"] {
        let label = attribute(&share.path().join(name), "user.virtiofs.security.selinux");
        assert_eq!(label, Ok(LABEL.to_vec()), "{name}");
    }
}

#[test]
fn what_cannot_be_labelled_is_not_made() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::with(share.path(), options(USERS, SecurityLabels::Required));
    // Longer than any attribute (`XATTR_SIZE_MAX`).
    let too_long = vec![b'x'; 65_537];
    for kind in KINDS {
        assert!(make(&guest, kind, &too_long).is_err(), "{kind}");
        assert_eq!(names(share.path()), NOTHING, "{kind}");
    }
    assert!(make_nameless(&guest, &too_long).is_err());
    // Only files and directories have attributes of users (man 7 xattr).
    for kind in ["link", "fifo"] {
        assert_eq!(make(&guest, kind, LABEL), Err(Errno::PERM), "{kind}");
        assert_eq!(names(share.path()), NOTHING, "{kind}");
    }
    assert_eq!(make_nameless(&guest, LABEL), Ok(()));
}

#[test]
fn a_label_that_the_map_refuses_makes_nothing() {
    let share = tempfile::tempdir().unwrap();
    let map = b":bad:all:security.:security.::ok:all:::";
    let guest = Guest::with(share.path(), options(map, SecurityLabels::Required));
    for kind in KINDS {
        assert_eq!(make(&guest, kind, LABEL), Err(Errno::PERM), "{kind}");
    }
    assert_eq!(make_nameless(&guest, LABEL), Err(Errno::PERM));
    assert_eq!(names(share.path()), NOTHING);
}

/// Each row: option, map, and whether labels are asked for.
#[test]
fn labels_are_asked_for_where_the_option_and_the_host_want_them() {
    let refusing = b":unsupported:all:security.:security.::ok:all:::".as_slice();
    let cases = [
        (SecurityLabels::Off, USERS, false),
        (SecurityLabels::IfPossible, USERS, true),
        (SecurityLabels::IfPossible, refusing, false),
        (SecurityLabels::Required, USERS, true),
        (SecurityLabels::Required, refusing, true),
    ];
    for (labels, map, want) in cases {
        let share = tempfile::tempdir().unwrap();
        let guest = Guest::with(share.path(), options(map, labels));
        let asked = guest.fs.wanted().contains(InitFlags::SECURITY_CTX);
        assert_eq!(asked, want, "{labels:?}");
        assert_eq!(names(share.path()), NOTHING);
        let without = Negotiated {
            flags: guest.fs.wanted() - InitFlags::SECURITY_CTX,
            ..guest.negotiated
        };
        let begun = guest.fs.begin(without);
        assert_eq!(begun.is_err(), labels == SecurityLabels::Required);
        assert_eq!(guest.fs.begin(guest.negotiated), Ok(()));
    }
}

#[test]
fn a_file_has_its_label_before_its_name_and_a_directory_behind_it() {
    let share = tempfile::tempdir().unwrap();
    let guest = Guest::with(share.path(), options(USERS, SecurityLabels::Required));
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    let watched = WatchFlags::CREATE | WatchFlags::ATTRIB;
    inotify::add_watch(&events, share.path(), watched).unwrap();
    let times = |kind: &str| {
        assert_eq!(make(&guest, kind, LABEL), Ok(()), "{kind}");
        let seen = happened(&events, -1);
        seen.iter().filter(|name| *name == kind).count()
    };
    // Its creation is all that is heard of the file by its name.
    assert_eq!(times("write"), 1);
    assert_eq!(times("read"), 1);
    assert_eq!(times("node"), 1);
    assert_eq!(times("directory"), 2);
}

/// What happened, in order: `c` and a name for each object that got one, `l` for each write to the thread's file.
fn happened(events: &OwnedFd, fscreate: i32) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(events, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| name.to_string_lossy());
        seen.push(match name {
            _ if event.wd() == fscreate => "label".to_owned(),
            Some(name) => name.into_owned(),
            None => "?".to_owned(),
        });
    }
    seen
}

/// A host with SELinux cannot be had here: a file stands for the one of its procfs, and shows what is written to it.
#[test]
fn selinux_hears_of_a_label_before_the_object_is_made_and_of_its_end_behind() {
    let place = tempfile::tempdir().unwrap();
    let (share, own) = (
        place.path().join("share"),
        place.path().join("thread-self/attr"),
    );
    fs::create_dir_all(&share).unwrap();
    fs::create_dir_all(&own).unwrap();
    let fscreate = own.join("fscreate");
    fs::write(&fscreate, "").unwrap();
    let proc = open(place.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let root: SharedRoot = shared_root(&share).labelling_through(proc);
    let options = options(PLAIN, SecurityLabels::Required);
    let guest = Guest::of(PassthroughFs::new(root, options).unwrap());

    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&events, &share, WatchFlags::CREATE).unwrap();
    let wd = inotify::add_watch(&events, &fscreate, WatchFlags::MODIFY).unwrap();
    let said = [LABEL, b"\n"].concat();
    for kind in KINDS {
        assert_eq!(make(&guest, kind, LABEL), Ok(()), "{kind}");
        assert_eq!(happened(&events, wd), ["label", kind, "label"]);
        assert_eq!(fs::read(&fscreate).unwrap(), said, "{kind}");
        fs::write(&fscreate, "").unwrap();
        happened(&events, wd);
    }
    // What fails is followed by the end of the label, too.
    assert_eq!(make(&guest, "directory", LABEL), Err(Errno::EXIST));
    assert_eq!(fs::read(&fscreate).unwrap(), said);
    fs::write(&fscreate, "").unwrap();
    assert_eq!(make_nameless(&guest, LABEL), Ok(()));
    assert_eq!(fs::read(&fscreate).unwrap(), said);
    fs::write(&fscreate, "").unwrap();
    // Without a label of its own, nothing is said.
    guest.mkdir(ROOT, "plain").unwrap();
    assert_eq!(fs::read(&fscreate).unwrap(), b"");
}
