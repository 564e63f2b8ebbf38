//! Landlock: the file system ends at the share, even for a descriptor that leads out of it.
//!
//! Needs no privilege, so it is there in every mode. What it refuses outside the share: opening (but for `O_PATH`),
//! creating, linking, renaming, removing, truncating; beyond files: TCP, abstract sockets and signals to other
//! processes, as far as the kernel knows them. It does not refuse to look at attributes or to change them.

use std::os::fd::{AsFd, BorrowedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, make_bitflags,
};
use virtiofs_protocol::Access as GuestAccess;

use super::SandboxError;
use crate::share::Kind;

/// Newest generation whose every refusal is wanted; an older kernel enforces what it has of it.
const KNOWN: ABI = ABI::V6;

/// Whether the kernel has what is needed at least: the first generation refuses every rename and link across
/// directories, so the second (Linux 5.19) is the least.
pub(super) fn is_available() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .and_then(Ruleset::create)
        .is_ok()
}

/// Restricts this thread, and those it will start, to the share, and to writing `own_files`; warns where the kernel
/// cannot.
pub(super) fn restrict_to(
    share: BorrowedFd<'_>,
    kind: Kind,
    access: GuestAccess,
    own_files: Option<BorrowedFd<'_>>,
) -> Result<(), SandboxError> {
    if !is_available() {
        tracing::warn!(
            "no Landlock: Linux 5.19 or newer with it switched on is needed; the sandbox has one layer less"
        );
        return Ok(());
    }
    let mut rules = vec![(share, allowed(kind, access))];
    rules.extend(own_files.map(|files| (files, AccessFs::WriteFile.into())));
    restrict(&rules, Scope::from_all(KNOWN))
}

/// Restricts this thread to removing files from this directory; it may still signal the server, which warns for both.
pub(super) fn restrict_to_removal(directory: Option<BorrowedFd<'_>>) -> Result<(), SandboxError> {
    if !is_available() {
        return Ok(());
    }
    let rules: Vec<_> = directory
        .map(|directory| (directory, AccessFs::RemoveFile.into()))
        .into_iter()
        .collect();
    restrict(&rules, Scope::AbstractUnixSocket.into())
}

/// Restricts this thread to opening files that are there, wherever they are: it makes, moves and removes none, runs
/// none, talks to no device, and signals nobody.
pub(super) fn restrict_to_opening() -> Result<(), SandboxError> {
    if !is_available() {
        return Ok(());
    }
    let opening = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate});
    restrict_but_for(opening, &[], Scope::from_all(KNOWN))
}

/// All but running programs and the requests of devices, which no guest has to reach.
fn allowed(kind: Kind, access: GuestAccess) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let wanted = match access {
        GuestAccess::ReadOnly => read,
        GuestAccess::ReadWrite => {
            read | (AccessFs::from_write(KNOWN) & !BitFlags::from(AccessFs::IoctlDev))
        }
    };
    match kind {
        Kind::Directory => wanted,
        Kind::File => wanted & AccessFs::from_file(KNOWN),
    }
}

fn restrict(
    rules: &[(BorrowedFd<'_>, BitFlags<AccessFs>)],
    scope: BitFlags<Scope>,
) -> Result<(), SandboxError> {
    restrict_but_for(BitFlags::EMPTY, rules, scope)
}

fn restrict_but_for(
    free: BitFlags<AccessFs>,
    rules: &[(BorrowedFd<'_>, BitFlags<AccessFs>)],
    scope: BitFlags<Scope>,
) -> Result<(), SandboxError> {
    let handled = AccessFs::from_all(KNOWN) & !free;
    let status = enforce(handled, rules, scope)
        .map_err(|error| SandboxError::Landlock(error.to_string()))?;
    tracing::debug!("Landlock: {:?}, {:?}", status.ruleset, status.landlock);
    Ok(())
}

fn enforce(
    handled: BitFlags<AccessFs>,
    rules: &[(BorrowedFd<'_>, BitFlags<AccessFs>)],
    scope: BitFlags<Scope>,
) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(handled)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(scope)?
        .create()?;
    for (place, access) in rules {
        ruleset = ruleset.add_rule(PathBeneath::new(place.as_fd(), *access))?;
    }
    ruleset.restrict_self()
}
