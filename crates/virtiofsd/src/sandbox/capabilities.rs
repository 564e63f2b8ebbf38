//! Exactly the capabilities that serving a share needs.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups,
};
use virtiofs_hostfs::XattrPolicy;
use virtiofs_protocol::Access;

use super::{SandboxError, step};
use crate::plan::Plan;

/// For their guest's root, files whatever their mode; to write also owners, modes, identities and device nodes.
fn needed(access: Access) -> CapabilitySet {
    let read = CapabilitySet::DAC_OVERRIDE;
    match access {
        Access::ReadOnly => read,
        Access::ReadWrite => {
            read | CapabilitySet::CHOWN
                | CapabilitySet::FOWNER
                | CapabilitySet::FSETID
                | CapabilitySet::SETGID
                | CapabilitySet::SETUID
                | CapabilitySet::MKNOD
        }
    }
}

const ADVICE: &str = "this is a kernel or container that forbids giving up rights";

/// What the server keeps of what it has.
pub(super) fn of_the_server(
    plan: &Plan,
    useless: CapabilitySet,
) -> Result<CapabilitySet, SandboxError> {
    let permitted = capabilities(None)
        .map_err(step("capget", ADVICE))?
        .permitted;
    let missing = plan.modcaps.keep - permitted;
    if let Some(name) = missing.iter_names().map(|(name, _)| name).next() {
        return Err(SandboxError::Missing(name.to_ascii_lowercase()));
    }
    let mut wanted = needed(plan.session.access);
    if plan.session.access == Access::ReadWrite && plan.filesystem.xattr != XattrPolicy::Off {
        // The guest's root sets capabilities of files.
        wanted |= CapabilitySet::SETFCAP;
    }
    wanted -= useless;
    Ok(((permitted & wanted) | plan.modcaps.keep) - plan.modcaps.give_up)
}

/// Gives up every other capability, and the supplementary groups.
pub(super) fn keep_only(kept: CapabilitySet) -> Result<(), SandboxError> {
    let have = capabilities(None).map_err(step("capget", ADVICE))?;
    if have.effective.contains(CapabilitySet::SETGID) {
        match set_thread_groups(&[]) {
            // A user namespace whose maker may not change groups (man 7 user_namespaces, setgroups).
            Err(Errno::PERM) => tracing::debug!("supplementary groups stay: setgroups is denied"),
            done => done.map_err(step("setgroups", ADVICE))?,
        }
    } else {
        tracing::debug!("supplementary groups stay: there is no CAP_SETGID");
    }
    if have.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            // A capability that this kernel does not know is not in its bounding set.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    clear_ambient_capability_set().map_err(step("prctl(PR_CAP_AMBIENT)", ADVICE))?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(step("capset", ADVICE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_only_read_needs_one() {
        assert_eq!(needed(Access::ReadOnly), CapabilitySet::DAC_OVERRIDE);
        assert!(!needed(Access::ReadWrite).contains(CapabilitySet::DAC_READ_SEARCH));
    }
}
