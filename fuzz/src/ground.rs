//! Where requests are served for real: one share, and file systems on it that outlive a run.
//!
//! A run ends its session as a guest does that goes away, and the next one begins it anew. Making a file system each time
//! would cost more than most requests do.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{fchdir, getegid, geteuid};
use virtiofs_hostfs::{CachePolicy, Options, PassthroughFs, PosixAcl, XattrPolicy, XattrRules};
use virtiofs_protocol::{Access, HangUp, Session, SessionOptions};

use crate::held::Descriptors;
use crate::model::{Limits, Model, Setxattrs};
use crate::share::Share;

/// What an operator may have chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Rules for names of extended attributes.
    pub xattr_map: &'static [u8],
    /// What the guest may believe.
    pub cache: CachePolicy,
    /// Most inodes that the guest may know.
    pub max_inodes: Option<u64>,
    /// Whether there are ACLs.
    pub posix_acl: PosixAcl,
    /// Descriptors kept for inodes.
    pub descriptor_budget: usize,
    /// Whether the guest may change anything.
    pub access: Access,
}

impl Choice {
    /// Names of extended attributes as they are.
    pub const AS_THEY_ARE: &'static [u8] = b":ok:all:::";
    /// A guest's `trusted.` attributes under names that any user may set.
    pub const MAPPED: &'static [u8] = b":map:trusted.:user.virtiofs.:";

    /// A model of the share as such a file system serves it.
    pub fn model(self, share: &Share) -> Model {
        let limits = match self.max_inodes {
            None => Limits::None,
            Some(_) => Limits::FewInodes,
        };
        let setxattrs = match self.posix_acl {
            PosixAcl::Off => Setxattrs::Short,
            PosixAcl::IfOffered | PosixAcl::Required => Setxattrs::Unsure,
        };
        Model::new(share.secret().as_os_str().as_bytes(), limits, setxattrs)
    }

    fn session(self, share: &Share) -> Session<PassthroughFs> {
        let rules = XattrRules::parse(self.xattr_map).expect("a map");
        let options = Options {
            cache: self.cache,
            access: self.access,
            max_inodes: self.max_inodes,
            xattr: XattrPolicy::On(rules),
            posix_acl: self.posix_acl,
            descriptor_budget: self.descriptor_budget,
            ..Options::default()
        };
        let fs = PassthroughFs::new(share.root().expect("a root"), options).expect("a share");
        let access = self.access;
        Session::new(
            fs,
            SessionOptions {
                access,
                ..SessionOptions::default()
            },
        )
    }
}

/// File systems that are kept; each holds some forty descriptors.
const MOST_KEPT: usize = 3;

struct Ground {
    share: Share,
    /// Where extended attributes are reached from, and where everybody else is.
    descriptors: OwnedFd,
    home: OwnedFd,
    kept: Vec<(Choice, Session<PassthroughFs>)>,
}

impl Ground {
    fn new() -> Self {
        let folder = |path: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).expect("a folder")
        };
        Self {
            share: Share::new().expect("a share"),
            descriptors: folder("/proc/self/fd"),
            home: folder("."),
            kept: Vec::new(),
        }
    }
}

static GROUND: Mutex<Option<Ground>> = Mutex::new(None);

/// Has something done with a session that waits for a guest's INIT, then ends it and looks at what is left.
///
/// # Panics
///
/// When something beside the share was touched, the guest's inodes or a descriptor were kept, or the thread is somebody
/// else.
pub fn with_session(choice: Choice, work: impl FnOnce(&Share, &Session<PassthroughFs>)) {
    let mut ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let Ground {
        share,
        descriptors,
        home,
        kept,
    } = ground.get_or_insert_with(Ground::new);
    fchdir(&*descriptors).expect("a folder of this process");
    let place = kept.iter().position(|(its, _)| *its == choice);
    let place = place.unwrap_or_else(|| {
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push((choice, choice.session(share)));
        kept.len() - 1
    });
    let session = &kept[place].1;
    let before = Descriptors::now();
    let us = (geteuid(), getegid());
    work(share, session);
    assert_eq!((geteuid(), getegid()), us, "the thread is somebody else");
    share.assert_untouched();
    session.end(HangUp::Disconnected);
    session.rest();
    assert_eq!(
        session.filesystem().known_inodes(),
        1,
        "the root alone is known"
    );
    before.assert_again();
    fchdir(&*home).expect("where we came from");
    if share.restore().is_err() {
        // Somebody made something that cannot be removed.
        *ground = None;
    }
}
