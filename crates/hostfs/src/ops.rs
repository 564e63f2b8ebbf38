//! The work of each request, by family as in `virtiofs_protocol::op`.

pub(crate) mod attr;
pub(crate) mod create;
pub(crate) mod dir;
pub(crate) mod io;
pub(crate) mod ioctl;
pub(crate) mod lock;
pub(crate) mod lookup;
pub(crate) mod openless;
pub(crate) mod privileges;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod space;
pub(crate) mod spelling;
pub(crate) mod sync;
pub(crate) mod xattr;

use std::sync::Arc;

use virtiofs_protocol::{Context, Errno, Lane, NodeId, Patience, Refusal};

use crate::PassthroughFs;
use crate::inode::{Held, UsedNode};
use crate::mounts::Mount;

/// Refuses to go on with a slow store on a thread that must not sleep.
pub(crate) fn may_take_long(cx: &Context<'_>, mount: &Mount) -> Result<(), Refusal> {
    if mount.slow { sleeps(cx) } else { Ok(()) }
}

/// Refuses to go on with work that sleeps on a thread that must not.
pub(crate) fn sleeps(cx: &Context<'_>) -> Result<(), Refusal> {
    match cx.patience {
        Patience::Never => Err(Refusal::WouldSleep(Lane::Store)),
        Patience::Until(_) => Ok(()),
    }
}

/// Ends work that has many steps when nobody waits for it any more.
///
/// EINTR where the guest has interrupted it; what is answered after a hang-up reaches nobody.
pub(crate) fn still_waited_for(cx: &Context<'_>) -> Result<(), Errno> {
    match cx.patience {
        Patience::Until(cancel) if cancel.is_interrupted() => Err(Errno::INTR),
        Patience::Until(cancel) if cancel.is_hung_up() => Err(Errno::IO),
        Patience::Never | Patience::Until(_) => Ok(()),
    }
}

/// Looks at what a request has done already, and a second time where the first look fails: an error would tell the
/// guest that nothing has been done.
pub(crate) fn done_already<T>(mut look: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    look().or_else(|_| look())
}

impl PassthroughFs {
    /// The node of a request, once its store may be asked.
    pub(crate) fn node(&self, cx: &Context<'_>, node: NodeId) -> Result<UsedNode, Refusal> {
        let node = self.inodes.get(node)?;
        may_take_long(cx, &node.value.mount)?;
        Ok(node)
    }

    /// The directory of a request, with a descriptor.
    ///
    /// ENOTDIR for another type, as the host's kernel would answer.
    pub(crate) fn directory(
        &self,
        cx: &Context<'_>,
        node: NodeId,
    ) -> Result<(UsedNode, Arc<Held>), Refusal> {
        let node = self.node(cx, node)?;
        if !node.value.is_directory() {
            return Err(Refusal::Errno(Errno::NOTDIR));
        }
        let descriptor = self.descriptor(&node)?;
        Ok((node, descriptor))
    }
}
