//! What checks are written with. Each works in a directory of its own, which is the working
//! directory of its process, as root; [`as_user`] and [`in_child`] do a part as somebody else.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::Location;
use std::time::{Duration, Instant};

pub(super) use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
pub(super) use rustix::io::Errno;

use rustix::fs::{Gid, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::sys::{self, Child};

/// What a check comes to.
pub(super) type Outcome<T = ()> = Result<T, Ended>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// What was promised did not hold.
    Fail(String),
    /// This store cannot do what the check is about.
    NotHere(String),
}

impl From<Errno> for Ended {
    #[track_caller]
    fn from(errno: Errno) -> Self {
        let text = format!("{errno} in {}", line());
        // Only what a store does not have is answered so.
        match errno {
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => Self::NotHere(text),
            _ => Self::Fail(text),
        }
    }
}

impl From<std::io::Error> for Ended {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::Fail(format!("{error} in {}", line())),
        }
    }
}

#[track_caller]
fn line() -> String {
    let place = Location::caller();
    let file = place.file().rsplit('/').next().unwrap_or_default();
    format!("{file}:{}", place.line())
}

/// Two values are the same.
#[track_caller]
pub(super) fn is<T: PartialEq + Debug>(got: T, want: T) -> Outcome {
    if got == want {
        return Ok(());
    }
    Err(Ended::Fail(format!("{got:?}, not {want:?}, in {}", line())))
}

/// A condition holds.
#[track_caller]
pub(super) fn holds(condition: bool, what: &str) -> Outcome {
    if condition {
        return Ok(());
    }
    Err(Ended::Fail(format!("not so: {what}, in {}", line())))
}

/// A call failed with this error.
#[track_caller]
pub(super) fn refused<T>(got: Result<T, Errno>, want: Errno) -> Outcome {
    refused_as(got, &[want])
}

/// A call failed with one of these errors.
#[track_caller]
pub(super) fn refused_as<T>(got: Result<T, Errno>, want: &[Errno]) -> Outcome {
    match got {
        Err(errno) if want.contains(&errno) => Ok(()),
        Err(errno @ (Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY)) => Err(errno.into()),
        Err(errno) => Err(Ended::Fail(format!(
            "{errno:?}, not {want:?}, in {}",
            line()
        ))),
        Ok(_) => Err(Ended::Fail(format!("success, not {want:?}, in {}", line()))),
    }
}

/// An error of the standard library as the number that it stands for.
pub(super) fn errno<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

pub(super) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits)
}

pub(super) fn open(name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(name, flags | OFlags::CLOEXEC, mode(0o644))
}

/// A new file, empty, mode 0644, open for reading and writing.
pub(super) fn new(name: &str) -> Outcome<OwnedFd> {
    Ok(open(name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR)?)
}

/// A new file with these bytes.
#[track_caller]
pub(super) fn with(name: &str, bytes: &[u8]) -> Outcome<OwnedFd> {
    let file = new(name)?;
    put(&file, bytes, 0)?;
    Ok(file)
}

/// Writes all of these bytes at an offset.
#[track_caller]
pub(super) fn put(file: impl AsFd, bytes: &[u8], offset: u64) -> Outcome {
    let written = rustix::io::pwrite(file, bytes, offset)?;
    is(written, bytes.len())
}

/// At most `len` bytes from an offset.
#[track_caller]
pub(super) fn get(file: impl AsFd, len: usize, offset: u64) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = rustix::io::pread(file, &mut bytes[..], offset)?;
    bytes.truncate(read);
    Ok(bytes)
}

pub(super) fn dir(name: &str) -> Outcome {
    rustix::fs::mkdir(name, mode(0o755))?;
    Ok(())
}

/// What a name stands for; a symlink is itself.
#[track_caller]
pub(super) fn of(name: &str) -> Outcome<Stat> {
    Ok(rustix::fs::lstat(name)?)
}

/// Permissions and set-id bits.
#[track_caller]
pub(super) fn bits(name: &str) -> Outcome<u32> {
    Ok(rustix::fs::lstat(name)?.st_mode & 0o7777)
}

/// User and group.
#[track_caller]
pub(super) fn owner(name: &str) -> Outcome<(u32, u32)> {
    let stat = of(name)?;
    Ok((stat.st_uid, stat.st_gid))
}

pub(super) fn exists(name: &str) -> bool {
    rustix::fs::lstat(name).is_ok()
}

pub(super) fn chmod(name: &str, bits: u32) -> Result<(), Errno> {
    rustix::fs::chmod(name, mode(bits))
}

pub(super) fn chown(name: &str, uid: u32, gid: u32) -> Result<(), Errno> {
    rustix::fs::chown(name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Somebody who is not root.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Further groups.
    pub(super) groups: &'static [u32],
}

pub(super) const ALICE: User = User {
    uid: 5001,
    gid: 5001,
    groups: &[],
};

pub(super) const BOB: User = User {
    uid: 5002,
    gid: 5002,
    groups: &[],
};

/// In Alice's group, too.
pub(super) const CAROL: User = User {
    uid: 5003,
    gid: 5003,
    groups: &[ALICE.gid],
};

/// A file of somebody's, with two bytes.
pub(super) fn given(name: &str, owner: User, bits: u32) -> Outcome {
    with(name, b"ab")?;
    chown(name, owner.uid, owner.gid)?;
    Ok(chmod(name, bits)?)
}

/// A directory of somebody's.
pub(super) fn given_dir(name: &str, owner: User, bits: u32) -> Outcome {
    dir(name)?;
    chown(name, owner.uid, owner.gid)?;
    Ok(chmod(name, bits)?)
}

/// Does a part as somebody else: Linux has an identity for each thread.
pub(super) fn as_user<T: Send>(user: User, part: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let changed = move || {
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        part()
    };
    std::thread::scope(|scope| scope.spawn(changed).join())
        .unwrap_or_else(|_| Err(Ended::Fail("panicked".to_owned())))
}

/// Does a part in a process of its own.
#[track_caller]
pub(super) fn in_child(part: impl FnOnce() -> Outcome) -> Outcome {
    Task::start(part)?.finish()
}

/// A part of a check that goes on in a process of its own.
pub(super) struct Task {
    child: Child,
    said: OwnedFd,
}

impl Task {
    pub(super) fn start(part: impl FnOnce() -> Outcome) -> Outcome<Self> {
        let (said, says) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = sys::fork(|| {
            let text = match part() {
                Ok(()) => "P".to_owned(),
                Err(Ended::Fail(why)) => format!("F{why}"),
                Err(Ended::NotHere(why)) => format!("N{why}"),
            };
            // Less than a pipe holds, so that nobody has to read meanwhile.
            let text = &text.as_bytes()[..text.len().min(4000)];
            u8::from(std::fs::File::from(says).write_all(text).is_err())
        })?;
        Ok(Self { child, said })
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Waits for its end; what it came to.
    #[track_caller]
    pub(super) fn finish(mut self) -> Outcome {
        let status = self.child.wait()?;
        // A grandchild may hold the other end: only what is there already counts.
        rustix::io::ioctl_fionbio(&self.said, true)?;
        let mut text = vec![0; 4000];
        let len = std::fs::File::from(self.said).read(&mut text).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..len]);
        match text.split_at_checked(1) {
            Some(("P", _)) if status.exit_status() == Some(0) => Ok(()),
            Some(("F", why)) => Err(Ended::Fail(why.to_owned())),
            Some(("N", why)) => Err(Ended::NotHere(why.to_owned())),
            _ => Err(Ended::Fail(format!("ended with {status:?}, in {}", line()))),
        }
    }
}

/// How long a wait must go on at least to be one.
pub(super) const A_WHILE: Duration = Duration::from_millis(100);

/// Longest that a thing may take that happens at once.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// The variable that is set where the mount's times come from two kernels' clocks, one of which
/// may lag behind the other: with write-back a guest sets times itself.
pub const TWO_CLOCKS: &str = "BEHAVIOURS_TWO_CLOCKS";

fn two_clocks() -> bool {
    std::env::var_os(TWO_CLOCKS).is_some()
}

/// Waits until what changes now has another time than what has changed before.
///
/// Files get their times from a clock that ticks every 10 ms at the slowest (`CONFIG_HZ` 100).
pub(super) fn tick() {
    let nap = Duration::from_millis(if two_clocks() { 100 } else { 12 });
    let (begun, mut last, mut moves) = (Instant::now(), sys::coarse_now(), 0);
    while moves < 2 || begun.elapsed() < nap {
        std::thread::sleep(Duration::from_millis(1));
        let now = sys::coarse_now();
        moves += i32::from(now != last);
        last = now;
    }
}

/// Times of change: seconds and nanoseconds.
pub(super) fn ctime(name: &str) -> Outcome<(i64, u64)> {
    let stat = of(name)?;
    Ok((stat.st_ctime, stat.st_ctime_nsec))
}

pub(super) fn mtime(name: &str) -> Outcome<(i64, u64)> {
    let stat = of(name)?;
    Ok((stat.st_mtime, stat.st_mtime_nsec))
}

pub(super) fn atime(name: &str) -> Outcome<(i64, u64)> {
    let stat = of(name)?;
    Ok((stat.st_atime, stat.st_atime_nsec))
}

/// Times of access and of modification.
pub(super) fn times(access: (i64, i64), modification: (i64, i64)) -> Timestamps {
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    Timestamps {
        last_access: time(access),
        last_modification: time(modification),
    }
}

/// Stands in a time for: leave it as it is.
pub(super) const OMIT: (i64, i64) = (0, UTIME_OMIT);

pub(super) fn set_times(name: &str, times: &Timestamps) -> Result<(), Errno> {
    rustix::fs::utimensat(CWD, name, times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the modification time to 1000 seconds, so that any change shows.
pub(super) fn make_old(name: &str) -> Outcome {
    Ok(set_times(name, &times((1000, 0), (1000, 0)))?)
}

/// Whether what was made old has been modified.
#[track_caller]
pub(super) fn modified(name: &str) -> Outcome<bool> {
    Ok(mtime(name)?.0 != 1000)
}

/// A step moves a file's time of change.
#[track_caller]
pub(super) fn changes(name: &str, step: impl FnOnce() -> Outcome) -> Outcome {
    changes_into(name, name, step)
}

/// A step moves the time of change of a file, which has another name then.
#[track_caller]
pub(super) fn changes_into(name: &str, then: &str, step: impl FnOnce() -> Outcome) -> Outcome {
    let before = ctime(name)?;
    tick();
    step()?;
    let after = ctime(then)?;
    let moved = after > before || (two_clocks() && after != before);
    holds(moved, &format!("the change shows: {before:?}, {after:?}"))
}

pub(super) fn set_attribute(name: &str, attribute: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(name, attribute, value, XattrFlags::empty())
}

pub(super) fn attribute(name: &str, attribute: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let len = rustix::fs::lgetxattr(name, attribute, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

/// The names of a file's attributes, in order.
pub(super) fn attributes(name: &str) -> Result<Vec<String>, Errno> {
    let mut list = vec![0; 65536];
    let len = rustix::fs::llistxattr(name, &mut list[..])?;
    let names = list[..len].split(|byte| *byte == 0);
    let mut names: Vec<String> = names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// What is written in a file.
pub(super) fn text(name: &str) -> Outcome<String> {
    Ok(std::fs::read_to_string(name)?)
}

/// Two files, `a` and `b`, with their names in them.
pub(super) fn two() -> Outcome {
    with("a", b"a")?;
    with("b", b"b")?;
    Ok(())
}
