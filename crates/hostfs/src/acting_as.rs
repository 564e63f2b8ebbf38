//! Creating with the caller's identity, and without privileges that the caller lacks.
//!
//! Credentials belong to a thread on Linux. A guard takes an identity on and gives it back when it
//! is dropped; a thread that cannot get back ends the daemon, because it would serve the next
//! request with the wrong rights.

use std::marker::PhantomData;
use std::sync::Once;

use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use virtiofs_protocol::Errno;

use crate::idmap::Host;

/// Who the daemon is, and whether it may act as somebody else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    uid: Uid,
    gid: Gid,
    may_switch: bool,
    may_give: bool,
    /// What every thread has while it acts as nobody else: never looked at again.
    sets: CapabilitySets,
}

impl Service {
    /// Looks at the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        // A kernel that does not say has given nothing that could be counted on.
        let sets = capabilities(None).unwrap_or(CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        });
        let may_switch = sets.effective.contains(needed);
        let uid = geteuid();
        Self {
            uid,
            gid: getegid(),
            // Another user would keep its capabilities while it acts as somebody, and lose them when
            // it comes back from acting as root (man 7 capabilities).
            may_switch: may_switch && uid.is_root(),
            may_give: sets.effective.contains(CapabilitySet::CHOWN),
            sets,
        }
    }

    /// Whether a file made by the daemon can be given to somebody else, who these are.
    pub(crate) fn may_hand_over(&self, uid: Uid, gid: Gid) -> bool {
        self.may_switch && self.may_give && (uid != self.uid || gid != self.gid)
    }
}

/// Who is going to own what is made, in the host's numbering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Creator {
    pub(crate) user: Host<virtiofs_protocol::Uid>,
    pub(crate) group: Host<virtiofs_protocol::Gid>,
    /// The parent's group, where the caller is a member of it.
    pub(crate) supplementary_group: Option<Host<virtiofs_protocol::Gid>>,
}

/// This thread acts as the guest's caller until the value is dropped.
///
/// Not `Send`: Linux keeps credentials per thread, so the guard must end on the thread it began on.
#[derive(Debug)]
#[must_use]
pub(crate) struct ActingAs {
    uid_back: Option<Uid>,
    gid_back: Option<Gid>,
    groups_back: bool,
    sets: CapabilitySets,
    _this_thread_only: PhantomData<*const ()>,
}

impl ActingAs {
    /// Takes on the creator's user and group, and the supplementary group it states where groups may be changed.
    ///
    /// Where the daemon may not switch, it creates as itself: told once in the log.
    ///
    /// # Errors
    ///
    /// EINVAL for an id outside our user namespace.
    pub(crate) fn creator(service: Service, creator: Creator) -> Result<Self, Errno> {
        let mut acting = Self {
            uid_back: None,
            gid_back: None,
            groups_back: false,
            sets: service.sets,
            _this_thread_only: PhantomData,
        };
        let (uid, gid) = (owner_uid(creator.user), owner_gid(creator.group));
        if uid == service.uid && gid == service.gid {
            return Ok(acting);
        }
        if !service.may_switch {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!("new files belong to the daemon's user: it is not root with the right to switch identity (CAP_SETUID, CAP_SETGID)");
            });
            return Ok(acting);
        }
        let member = creator.supplementary_group;
        if let Some(group) = member.filter(|_| uid != service.uid) {
            match set_thread_groups(&[owner_gid(group)]) {
                Ok(()) => acting.groups_back = true,
                // A user namespace whose maker may not change groups (man 7 user_namespaces, setgroups):
                // the caller acts without this one, as without those that the guest does not state.
                Err(Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        if gid != service.gid {
            set_thread_res_gid(None, gid, None)?;
            acting.gid_back = Some(service.gid);
        }
        if uid != service.uid {
            set_thread_res_uid(None, uid, None)?;
            acting.uid_back = Some(service.uid);
        }
        Ok(acting)
    }

    /// Makes something as the caller; where the caller's groups do not reach, with the right to
    /// pass permissions: the guest has checked them already, with all of the caller's groups.
    pub(crate) fn make<T>(&self, mut make: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        match make() {
            Err(Errno::ACCESS) if self.uid_back.is_some() => {}
            done => return done,
        }
        let mut sets = self.sets;
        sets.effective = sets.permitted & CapabilitySet::DAC_OVERRIDE;
        set_capabilities(None, sets)?;
        // The right goes with the switch back: a change of the effective user id from nonzero to
        // zero copies the permitted set, and below us it stays with this request (man 7 capabilities).
        make()
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        let back = || {
            if self.uid_back.is_some() {
                set_thread_res_uid(None, self.uid_back, None)?;
            }
            if self.gid_back.is_some() {
                set_thread_res_gid(None, self.gid_back, None)?;
            }
            if self.groups_back {
                set_thread_groups(&[])?;
            }
            Ok::<(), Errno>(())
        };
        // A thread that keeps a guest's identity would serve the next request with the wrong
        // rights. There is no safe way on from here.
        if back().is_err() {
            std::process::abort();
        }
    }
}

/// While it lives, the host drops set-id bits as it does for a caller without CAP_FSETID.
#[derive(Debug)]
#[must_use]
pub(crate) struct WithoutSetid {
    back: Option<CapabilitySets>,
    _this_thread_only: PhantomData<*const ()>,
}

impl WithoutSetid {
    /// Gives CAP_FSETID up for a moment, where the thread has it.
    pub(crate) fn begin(service: Service) -> Result<Self, Errno> {
        let back = Some(service.sets).filter(|sets| sets.effective.contains(CapabilitySet::FSETID));
        if let Some(mut sets) = back {
            sets.effective.remove(CapabilitySet::FSETID);
            set_capabilities(None, sets)?;
        }
        Ok(Self {
            back,
            _this_thread_only: PhantomData,
        })
    }
}

impl Drop for WithoutSetid {
    fn drop(&mut self) {
        if self
            .back
            .is_some_and(|sets| set_capabilities(None, sets).is_err())
        {
            // The thread would go on with fewer rights than the next request needs.
            std::process::abort();
        }
    }
}

/// An id as `chown(2)` takes it; the type says that it is not the one that means "leave".
pub(crate) fn owner_uid(id: Host<virtiofs_protocol::Uid>) -> Uid {
    Uid::from_raw(id.0.0)
}

/// As [`owner_uid`], for a group.
pub(crate) fn owner_gid(id: Host<virtiofs_protocol::Gid>) -> Gid {
    Gid::from_raw(id.0.0)
}
