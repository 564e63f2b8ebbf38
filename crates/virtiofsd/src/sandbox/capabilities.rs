//! Exactly the capabilities that serving a share needs.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups,
};

use super::{SandboxError, step};

/// Owners and modes that guests set, their files whatever the mode, their identities, device nodes.
fn needed() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP
}

const ADVICE: &str = "this is a kernel or container that forbids giving up rights";

/// Gives up everything else, and the supplementary groups.
pub(super) fn reduce() -> Result<(), SandboxError> {
    let have = capabilities(None).map_err(step("capget", ADVICE))?;
    if have.effective.contains(CapabilitySet::SETGID) {
        set_thread_groups(&[]).map_err(step("setgroups", ADVICE))?;
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
    let kept = have.permitted & needed();
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(step("capset", ADVICE))
}
