//! Set-id bits and file capabilities that go when a file changes.
//!
//! Who drops them was agreed on in INIT. With the second form (`FUSE_HANDLE_KILLPRIV_V2`) a request
//! says whether they go, as far as its form has room for that. With the first, which older kernels
//! have, they go with every write and truncation, whoever asks (fuse.h). With neither, the guest's
//! kernel drops them by requests of its own.

use virtiofs_protocol::op::KillPrivileges;
use virtiofs_protocol::{Context, Errno, InitFlags};

use crate::acting_as::{Service, WithoutSetid};

const EITHER_FORM: InitFlags = InitFlags::HANDLE_KILLPRIV.union(InitFlags::HANDLE_KILLPRIV_V2);

/// Whether dropping them is left to the daemon.
pub(crate) fn are_ours(cx: &Context<'_>) -> bool {
    cx.negotiated.flags.intersects(EITHER_FORM)
}

/// To be held during a change whose request says whether they go.
pub(crate) fn dropped_as_asked(
    service: Service,
    cx: &Context<'_>,
    asked: KillPrivileges,
) -> Result<Option<WithoutSetid>, Errno> {
    let always = cx.negotiated.flags.contains(InitFlags::HANDLE_KILLPRIV);
    let drops = always || asked == KillPrivileges::Yes;
    drops.then(|| WithoutSetid::begin(service)).transpose()
}

/// To be held during a change whose request has no room to say it: FALLOCATE and COPY_FILE_RANGE.
///
/// The guest's kernel leaves these to the daemon with either form. It would not drop them for a
/// caller with CAP_FSETID; all that is told of the caller is whether it is root. With ALLOW_IDMAP not
/// even that is told, and nobody counts as root: dropping too much is the safe side.
pub(crate) fn dropped_for_caller(
    service: Service,
    cx: &Context<'_>,
) -> Result<Option<WithoutSetid>, Errno> {
    let always = cx.negotiated.flags.contains(InitFlags::HANDLE_KILLPRIV);
    let drops = always || (are_ours(cx) && !cx.caller.is_root());
    drops.then(|| WithoutSetid::begin(service)).transpose()
}
