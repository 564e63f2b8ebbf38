//! Which mode, from what was asked and the privileges at hand.

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{CapabilitySet, capabilities};

use super::user_namespace::Maps;
use super::{Mode, NEEDS_CHROOT, Owner, SandboxError, landlock, namespace, step};
use crate::cli::values::SandboxName;
use crate::plan::Plan;
use crate::sys::{self, Forked, Namespaces};

/// Decides, before anything is made.
///
/// # Errors
///
/// [`SandboxError`] when the mode asked for cannot work here.
pub fn choose(plan: &Plan) -> Result<Mode, SandboxError> {
    let have = capabilities(None)
        .map_err(step("capget", "is this Linux?"))?
        .effective;
    match plan.sandbox {
        SandboxName::Namespace => Ok(Mode::Namespace(owner(plan, have))),
        SandboxName::Chroot if !have.contains(CapabilitySet::SYS_CHROOT) => {
            Err(step("--sandbox chroot", NEEDS_CHROOT)(
                rustix::io::Errno::PERM,
            ))
        }
        SandboxName::Chroot => Ok(Mode::Chroot),
        SandboxName::None => Ok(Mode::None),
        // Only a user namespace has maps.
        SandboxName::Auto if plan.has_maps() => Ok(Mode::Namespace(owner(plan, have))),
        SandboxName::Auto => Ok(strongest(plan, have)),
    }
}

/// With CAP_SYS_ADMIN the namespaces belong to the host; with maps, or without it, to a user namespace.
fn owner(plan: &Plan, have: CapabilitySet) -> Owner {
    if have.contains(CapabilitySet::SYS_ADMIN) && !plan.has_maps() {
        Owner::Host
    } else {
        Owner::User(Maps::new(&plan.uid_map, &plan.gid_map, have))
    }
}

fn strongest(plan: &Plan, have: CapabilitySet) -> Mode {
    let maps = Maps::new(&plan.uid_map, &plan.gid_map, have);
    let (rank, why) = rank(Found {
        namespaces: have.contains(CapabilitySet::SYS_ADMIN) && works(Namespaces::ALL, None),
        chroot: have.contains(CapabilitySet::SYS_CHROOT),
        landlock: landlock::is_available(),
        user_namespaces: works(Namespaces::ALL_OF_A_USER, Some(&maps)),
    });
    let mode = match rank {
        Rank::Namespaces => Mode::Namespace(Owner::Host),
        Rank::UserNamespaces => Mode::Namespace(Owner::User(maps)),
        Rank::Chroot => Mode::Chroot,
        Rank::None => Mode::None,
    };
    tracing::info!("sandbox auto: {mode}, because {why}");
    mode
}

/// What works here.
#[derive(Clone, Copy, Debug)]
struct Found {
    namespaces: bool,
    chroot: bool,
    landlock: bool,
    user_namespaces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Namespaces,
    UserNamespaces,
    Chroot,
    None,
}

/// From the strongest to the weakest. Chroot keeps a descriptor from which a way leads to the host's tree: with
/// Landlock across that way it stands above a user namespace, because it keeps every id; without, below.
fn rank(found: Found) -> (Rank, &'static str) {
    if found.namespaces {
        (
            Rank::Namespaces,
            "CAP_SYS_ADMIN is there and namespaces can be made",
        )
    } else if found.chroot && found.landlock {
        (
            Rank::Chroot,
            "namespaces need a CAP_SYS_ADMIN that works; CAP_SYS_CHROOT and Landlock are there",
        )
    } else if found.user_namespaces {
        (
            Rank::UserNamespaces,
            "a user namespace can be made, and needs no privilege",
        )
    } else if found.chroot {
        (
            Rank::Chroot,
            "no namespaces can be made; CAP_SYS_CHROOT is there, Landlock is not",
        )
    } else {
        (
            Rank::None,
            "no namespaces can be made, and CAP_SYS_CHROOT is not there",
        )
    }
}

/// Tries, in a child that ends at once: a security module may allow the namespaces and forbid the mounts, and the
/// kernel may allow them and forbid the maps.
fn works(namespaces: Namespaces, maps: Option<&Maps>) -> bool {
    let Ok((ours, parents)) = pipe_with(PipeFlags::CLOEXEC) else {
        return false;
    };
    match sys::clone_into(namespaces) {
        Err(_) => false,
        Ok(Forked::Child) => {
            drop(parents);
            let mapped = matches!(rustix::io::read(&ours, &mut [0; 1]), Ok(1..));
            let done = mapped && namespace::receive_mounts_only().is_ok();
            sys::exit_now(u8::from(!done))
        }
        Ok(Forked::Parent(child)) => {
            let mapped = maps.is_none_or(|maps| maps.write(child).is_ok());
            if mapped {
                // A child that has ended says no by its exit code.
                let _ = rustix::io::write(&parents, &[1]);
            }
            drop(parents);
            sys::wait_for(child).is_ok_and(|code| code == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_that_works_is_chosen() {
        let found = |bits: [bool; 4]| {
            let [namespaces, chroot, landlock, user_namespaces] = bits;
            Found {
                namespaces,
                chroot,
                landlock,
                user_namespaces,
            }
        };
        let cases = [
            ([true, true, true, true], Rank::Namespaces),
            ([true, false, false, false], Rank::Namespaces),
            ([false, true, true, true], Rank::Chroot),
            ([false, true, true, false], Rank::Chroot),
            // Without Landlock nothing stands in the way that leads out of a chroot.
            ([false, true, false, true], Rank::UserNamespaces),
            ([false, true, false, false], Rank::Chroot),
            ([false, false, true, true], Rank::UserNamespaces),
            ([false, false, false, true], Rank::UserNamespaces),
            ([false, false, true, false], Rank::None),
            ([false, false, false, false], Rank::None),
        ];
        for (bits, want) in cases {
            assert_eq!(rank(found(bits)).0, want, "{bits:?}");
        }
    }
}
