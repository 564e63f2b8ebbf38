//! A share whose daemon is made to meet errors, and what a request may find in it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use virtiofs_testkit::bridge::share::Tmpfs;
use virtiofs_testkit::frontend::hostile::Holdings;
use virtiofs_testkit::frontend::trace::Trace;
use virtiofs_testkit::frontend::{Daemon, Launch};
use virtiofs_testkit::fuse::abi::ROOT;
use virtiofs_testkit::fuse::{Caller, Failure, FuseClient, Session};

pub(crate) const O_RDWR: u32 = 2;
/// A group that is not the daemon's.
pub(crate) const GROUP: u32 = 1000;
/// Bytes of each file.
pub(crate) const FILE_BYTES: u64 = 10_000;

const LIMIT: Duration = Duration::from_secs(10);
/// So few that an inode which nobody can forget any more is missed soon.
const MOST_INODES: &str = "--max-inodes=40";

/// What a request is about: a directory of its own, looked up and opened.
pub(crate) struct Subject {
    /// On the host.
    pub(crate) place: PathBuf,
    pub(crate) directory: u64,
    pub(crate) listing: u64,
    pub(crate) file: u64,
    /// Of the file, for reading and writing.
    pub(crate) fh: u64,
    pub(crate) other_fh: u64,
    pub(crate) symlink: u64,
    /// A directory of [`GROUP`] that hands its group down.
    pub(crate) groups: u64,
    /// A file that the guest has made and closed: the daemon holds no descriptor of it.
    pub(crate) made: u64,
    /// A directory with one file in it, which every subject shares.
    pub(crate) listed: u64,
    pub(crate) listed_fh: u64,
    /// Everything that was looked up.
    nodes: Vec<u64>,
    /// Every open file with its node.
    open: Vec<(u64, u64)>,
}

/// What a request that worked has given the guest, to be given back.
#[derive(Debug, Default)]
pub(crate) struct Gained {
    pub(crate) nodes: Vec<u64>,
    /// With its node.
    pub(crate) open: Option<(u64, u64)>,
    pub(crate) listing: Option<u64>,
}

/// What stands in the directory of a subject: names with all that a request may have changed.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

impl Subject {
    /// Everything below its directory, as the host sees it.
    pub(crate) fn tree(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        let mut left = vec![self.place.clone()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                tree.insert(path.clone(), line_of(&path)?);
                if path.symlink_metadata()?.is_dir() {
                    left.push(path);
                }
            }
        }
        Ok(tree)
    }
}

fn line_of(path: &Path) -> Result<String> {
    let found = path.symlink_metadata()?;
    let contents = found.is_file().then(|| fs::read(path)).transpose()?;
    // A file of other bytes has another sum, as requests change them.
    let sum = contents.map(|bytes| {
        (
            bytes.len(),
            bytes.iter().map(|b| u64::from(*b)).sum::<u64>(),
        )
    });
    let (mode, links, owner) = (found.mode(), found.nlink(), (found.uid(), found.gid()));
    let changed = found.is_file().then(|| (found.mtime(), found.mtime_nsec()));
    let attribute = attribute(path);
    Ok(format!(
        "{mode:o} {links} {owner:?} {changed:?} {sum:?} {attribute:?}"
    ))
}

/// The one attribute that requests set and take away.
fn attribute(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let len = rustix::fs::lgetxattr(path, "user.known", &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

/// What the share lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Its inodes are told by their births, and need no descriptors.
    Tmpfs,
    /// An inode is told by its descriptor alone.
    Overlay,
}

/// An overlay, unmounted when dropped.
struct Overlay(PathBuf);

impl Overlay {
    /// All its layers on a tmpfs.
    fn on(place: &Path) -> Result<Self> {
        let merged = place.join("merged");
        for directory in ["lower", "upper", "work", "merged"] {
            fs::create_dir(place.join(directory))?;
        }
        let layer = |name| place.join(name).display().to_string();
        let (lower, upper, work) = (layer("lower"), layer("upper"), layer("work"));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let options = CString::new(options)?;
        mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )?;
        Ok(Self(merged))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The daemon and its front-end. Fields are dropped in this order.
pub(crate) struct Rig {
    session: Session,
    daemon: Daemon,
    _overlay: Option<Overlay>,
    _tmpfs: Tmpfs,
    share: PathBuf,
    subjects: u32,
    at_rest: usize,
}

impl Rig {
    pub(crate) fn new(store: Store) -> Result<Self> {
        let tmpfs = Tmpfs::new()?;
        let overlay = match store {
            Store::Tmpfs => None,
            Store::Overlay => Some(Overlay::on(tmpfs.path())?),
        };
        let share = overlay.as_ref().map_or(tmpfs.path(), |overlay| &overlay.0);
        let share = share.to_path_buf();
        let options = [
            "--seccomp=none",
            "--xattr",
            "--posix-lock",
            "--flock",
            MOST_INODES,
        ];
        let daemon = Launch::new(&share).sandbox("none").args(&options).start()?;
        let session = Session::open(daemon.socket())?;
        let mut rig = Self {
            session,
            daemon,
            _overlay: overlay,
            _tmpfs: tmpfs,
            share,
            subjects: 0,
            at_rest: 0,
        };
        fs::create_dir(rig.share.join("listed"))?;
        let old = rig.share.join("listed/old");
        fs::write(&old, b"x")?;
        // Whoever was born just now is held when it is listed; these are not to be.
        while old.metadata()?.created()?.elapsed()? < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        // Code paths are warm and every thread is there that any request needs.
        for _ in 0..2 {
            let subject = rig.subject()?;
            let (file, fh) = (subject.file, subject.fh);
            rig.client().fsync(file, fh)?;
            rig.client().read(file, fh, 0, 10)?;
            rig.give_back(subject, Gained::default())?;
        }
        rig.at_rest = rig.descriptors()?;
        Ok(rig)
    }

    pub(crate) fn client(&mut self) -> &mut FuseClient {
        self.session.client()
    }

    /// Makes certain calls of the daemon fail, as strace is told by `inject`.
    ///
    /// Only those that touch one of `paths`, where there are any.
    pub(crate) fn trace(&self, inject: &[&str], paths: &[&Path]) -> Result<Trace> {
        let mut arguments: Vec<&str> = inject.iter().flat_map(|one| ["-e", *one]).collect();
        for path in paths {
            arguments.extend(["-P", path.to_str().context("UTF-8")?]);
        }
        Trace::attach_with(self.daemon.pid(), self.daemon.scratch(), &arguments)
    }

    /// A new directory with something of each kind in it.
    pub(crate) fn subject(&mut self) -> Result<Subject> {
        self.subjects += 1;
        let name = format!("subject-{}", self.subjects);
        let place = self.share.join(&name);
        fs::create_dir(&place)?;
        for file in ["file", "other", "victim", "known"] {
            fs::write(place.join(file), vec![b'x'; usize::try_from(FILE_BYTES)?])?;
        }
        fs::create_dir(place.join("empty"))?;
        let groups = place.join("groups");
        fs::create_dir(&groups)?;
        std::os::unix::fs::chown(&groups, None, Some(GROUP))?;
        fs::set_permissions(&groups, fs::Permissions::from_mode(0o2777))?;
        symlink("target", place.join("symlink"))?;
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(place.join("file"), "user.known", b"value", flags)?;
        let client = self.session.client();
        client.caller = Caller::default();
        let directory = client.lookup(ROOT, &name)?.nodeid;
        let mut nodes = vec![directory];
        let mut look_up = |client: &mut FuseClient, name: &str| -> Result<u64, Failure> {
            let node = client.lookup(directory, name)?.nodeid;
            nodes.push(node);
            Ok(node)
        };
        let file = look_up(client, "file")?;
        let other = look_up(client, "other")?;
        let symlink = look_up(client, "symlink")?;
        look_up(client, "victim")?;
        look_up(client, "empty")?;
        let groups = look_up(client, "groups")?;
        let made = client.create(directory, "made", O_RDWR, 0o644)?;
        let (made, made_fh) = (made.entry.nodeid, made.open.fh);
        nodes.push(made);
        client.release(made, made_fh)?;
        let listed = client.lookup(ROOT, "listed")?.nodeid;
        nodes.push(listed);
        let listed_fh = client.opendir(listed)?.fh;
        let fh = client.open(file, O_RDWR)?.fh;
        let other_fh = client.open(other, O_RDWR)?.fh;
        let listing = client.opendir(directory)?.fh;
        Ok(Subject {
            place,
            directory,
            listing,
            file,
            fh,
            other_fh,
            symlink,
            groups,
            made,
            listed,
            listed_fh,
            nodes,
            open: vec![(file, fh), (other, other_fh)],
        })
    }

    /// Closes and forgets everything about a subject, and removes it.
    pub(crate) fn give_back(&mut self, subject: Subject, gained: Gained) -> Result<()> {
        let client = self.session.client();
        client.caller = Caller::default();
        for (node, fh) in subject.open.into_iter().chain(gained.open) {
            client.release(node, fh)?;
        }
        for listing in gained
            .listing
            .into_iter()
            .chain([subject.listing, subject.listed_fh])
        {
            client.releasedir(subject.directory, listing)?;
        }
        for node in gained.nodes.into_iter().rev().chain(subject.nodes) {
            self.session.hiprio.forget(node, 1)?;
        }
        fs::remove_dir_all(&subject.place)?;
        Ok(())
    }

    /// The daemon lives, serves, and holds no descriptor more than at the start.
    pub(crate) fn is_unharmed(&mut self) -> Result<()> {
        ensure!(self.daemon.is_running(), "it ended: {}", self.daemon.log());
        self.client().getattr(ROOT)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = self.descriptors()?;
            if now <= self.at_rest {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{now} descriptors, {} before: {:#?}",
                self.at_rest,
                self.open()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What its descriptors lead to.
    fn open(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(format!("/proc/{}/fd", self.daemon.pid()));
        let links = all.into_iter().flatten().flatten();
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .collect()
    }

    fn descriptors(&self) -> Result<usize> {
        Ok(Holdings::of(self.daemon.pid())?.descriptors)
    }
}
