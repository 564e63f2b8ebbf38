//! A daemon that is not root. Credentials belong to a thread, and each test has its own.

mod kit;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kit::listing::Kind;
use kit::{Guest, ROOT, WRITE, set_mode};
use rustix::fs::OFlags;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use virtiofs_hostfs::{NoAtime, Options};
use virtiofs_protocol::op::Extras;
use virtiofs_protocol::{Caller, Errno};
use virtiofs_testkit::bridge::share::skipped;

const DAEMON: u32 = 1000;

/// A share of the daemon's user; none where the test cannot become that user.
fn share() -> Option<tempfile::TempDir> {
    if !rustix::process::geteuid().is_root() {
        skipped("needs root");
        return None;
    }
    let share = tempfile::tempdir().ok()?;
    std::os::unix::fs::chown(share.path(), Some(DAEMON), Some(DAEMON)).ok()?;
    set_mode(share.path(), 0o777);
    Some(share)
}

fn become_the_daemon() -> Result<(), Errno> {
    let (uid, gid) = (Some(Uid::from_raw(DAEMON)), Some(Gid::from_raw(DAEMON)));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn made_by(guest: &Guest, share: &Path, caller: u32) -> Result<(u32, u32), Errno> {
    let name = format!("by-{caller}");
    let caller = Caller::new(caller, caller, 1);
    guest.create_as(caller, (ROOT, &name), (WRITE, 0o600), Extras::default())?;
    let made = share.join(name).metadata().map_err(|_| Errno::NOENT)?;
    Ok((made.uid(), made.gid()))
}

#[test]
fn without_the_right_to_switch_everything_made_is_the_daemons() {
    let Some(share) = share() else { return };
    become_the_daemon().unwrap();
    let guest = Guest::on(share.path());
    for caller in [0, 1001, DAEMON] {
        assert_eq!(made_by(&guest, share.path(), caller), Ok((DAEMON, DAEMON)));
    }
    // Nor does a stated group change anything.
    let extras = Extras {
        supplementary_group: Some(virtiofs_protocol::Guest(virtiofs_protocol::Gid(50))),
        ..Extras::default()
    };
    let caller = Caller::new(0, 0, 1);
    guest
        .create_as(caller, (ROOT, "grouped"), (WRITE, 0o600), extras)
        .unwrap();
    assert_eq!(
        share.path().join("grouped").metadata().unwrap().gid(),
        DAEMON
    );
}

/// Capabilities without the user they were made for: what it kept while it acted as a caller would
/// be the caller's, and coming back from acting as root would cost it all of them.
#[test]
fn a_daemon_with_capabilities_that_is_not_root_does_not_switch() {
    let Some(share) = share() else { return };
    set_keep_capabilities(true).unwrap();
    become_the_daemon().unwrap();
    let mut sets = capabilities(None).unwrap();
    let rights = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::DAC_OVERRIDE;
    (sets.effective, sets.permitted) = (rights, rights);
    set_capabilities(None, sets).unwrap();
    let guest = Guest::on(share.path());
    for caller in [0, 1001, 2, DAEMON] {
        assert_eq!(made_by(&guest, share.path(), caller), Ok((DAEMON, DAEMON)));
        assert_eq!(
            capabilities(None).unwrap().effective,
            rights,
            "after {caller}"
        );
    }
    assert_eq!(rustix::process::geteuid().as_raw(), DAEMON);
}

/// open(2): only the owner of a file may ask for O_NOATIME.
#[test]
fn a_daemon_that_may_not_leave_access_times_alone_opens_the_file() {
    let Some(share) = share() else { return };
    std::fs::write(share.path().join("of-root"), b"content").unwrap();
    become_the_daemon().unwrap();
    let options = Options {
        no_atime: NoAtime::PassedOn,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    let node = guest.lookup(ROOT, "of-root").unwrap().node;
    let file = guest.open(node, OFlags::NOATIME.bits()).unwrap();
    assert_eq!(guest.read(node, file, 0, 100).unwrap(), b"content");
}

#[test]
fn a_directory_that_the_daemon_may_read_and_not_search_is_listed() {
    let Some(share) = share() else { return };
    let closed = share.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("file"), b"").unwrap();
    set_mode(&closed, 0o744);
    become_the_daemon().unwrap();
    let guest = Guest::on(share.path());
    let node = guest.lookup(ROOT, "closed").unwrap().node;
    let directory = guest.opendir(node).unwrap();
    let piece = guest.piece((node, directory), 0, 4096, Kind::Names);
    let names: Vec<_> = piece.unwrap().into_iter().map(|at| at.name).collect();
    assert!(names.contains(&b"file".to_vec()), "{names:?}");
    assert_eq!(guest.lookup(node, "file").map(drop), Err(Errno::ACCESS));
}
