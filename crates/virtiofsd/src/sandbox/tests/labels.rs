//! From inside, where labels of new files are said: what of procfs a thread reaches.

use std::os::fd::AsFd;

use rustix::fs::{CWD, OFlags};
use virtiofs_protocol::Access;

use super::*;
use crate::sandbox::{Mode, Owner, labelling, landlock};

/// Where labels of new files are said, a thread may write its own files of a procfs; no other way out opens.
#[test]
fn a_thread_reaches_its_own_label_and_nothing_else_of_its_process() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let namespace = Mode::Namespace(Owner::Host);
    for mode in [namespace, Mode::None] {
        let opened = |path: &str, flags: OFlags| match sys::fork().unwrap() {
            Forked::Parent(child) => sys::wait_for(child).unwrap(),
            Forked::Child => {
                let labelling = labelling::find(&mode).unwrap();
                let share = open(CWD, place.share(), LOOK).unwrap();
                let files = Some(labelling.own_files.as_fd());
                landlock::restrict_to(share.as_fd(), Kind::Directory, Access::ReadWrite, files)
                    .unwrap();
                let ended = match open(&labelling.proc, path, flags | OFlags::CLOEXEC) {
                    Ok(_) => 0,
                    Err(errno) => u8::try_from(errno.raw_os_error()).unwrap_or(NOT_THERE),
                };
                sys::exit_now(ended)
            }
        };
        assert_eq!(opened("thread-self/attr/fscreate", OFlags::WRONLY), 0);
        assert_eq!(opened("thread-self/attr/fscreate", OFlags::RDONLY), ACCES);
        assert_eq!(opened("self/oom_score_adj", OFlags::WRONLY), ACCES);
        assert_eq!(opened("self/status", OFlags::RDONLY), ACCES);
    }
}
