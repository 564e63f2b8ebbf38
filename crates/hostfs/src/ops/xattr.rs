//! SETXATTR, GETXATTR, LISTXATTR and REMOVEXATTR.
//!
//! An `O_PATH` descriptor has no extended attributes of its own, so the calls go by the descriptor's name in
//! `/proc/self/fd`, which is the working directory of the threads that serve
//! ([`SharedRoot::new`](crate::SharedRoot::new)). One call for every type of file: what stands under such a name is
//! the inode itself, a symlink or a device too, and nothing is opened.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, Mode, XattrFlags, chmodat, getxattr, getxattr_query, listxattr, removexattr, setxattr,
};
use rustix::path::DecInt;
use virtiofs_protocol::op::{Getxattr, Listxattr, Permissions, Removexattr, Setxattr};
use virtiofs_protocol::{
    Context, Errno, InitFlags, NodeId, Outcome, PageWriter, Refusal, SetxattrFlags,
};

use crate::PassthroughFs;
use crate::ops::privileges;
use crate::options::XattrPolicy;
use crate::sys;
use crate::xattr_rules::XattrRules;

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` (linux/limits.h), in bytes.
const MOST_BYTES: usize = 65_536;

const ACCESS_ACL: &CStr = c"system.posix_acl_access";
const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
const CAPABILITY: &CStr = c"security.capability";

/// `S_ISGID` (man 7 inode).
const SET_GROUP_ID: u16 = 0o2000;

/// An ACL counts on both sides only where it was agreed on: stored by a guest that does not know its effect on the
/// mode, it would be enforced here and unseen there.
fn is_blocked(cx: &Context<'_>, host_name: &[u8]) -> bool {
    let is_acl = host_name == ACCESS_ACL.to_bytes() || host_name == DEFAULT_ACL.to_bytes();
    is_acl && !cx.negotiated.flags.contains(InitFlags::POSIX_ACL)
}

impl XattrPolicy {
    pub(crate) fn rules(&self) -> Result<&XattrRules, Errno> {
        match self {
            // The guest does not ask again.
            Self::Off => Err(Errno::NOSYS),
            Self::On(rules) => Ok(rules),
        }
    }
}

impl PassthroughFs {
    /// The host's name of an attribute that the guest names.
    fn host_name<'a>(
        &self,
        cx: &Context<'_>,
        name: &'a CStr,
    ) -> Result<std::borrow::Cow<'a, CStr>, Errno> {
        let host = self.options.xattr.rules()?.host_name(name)?;
        if is_blocked(cx, host.to_bytes()) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(host)
    }

    pub(crate) fn op_setxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Setxattr<'_>,
    ) -> Outcome<()> {
        let name = self.host_name(cx, op.name)?;
        let node = self.node(cx, node)?;
        let held = self.descriptor(&node)?;
        let flags = XattrFlags::from_bits_retain(op.flags);
        setxattr(DecInt::from_fd(&held), &*name, op.value, flags)?;
        if op.extended_flags.contains(SetxattrFlags::ACL_KILL_SGID) && *name == *ACCESS_ACL {
            // The caller is not in the file's group; the daemon may be, so its kernel has kept the bit.
            let mode = sys::stat_fd(&held)?.stx_mode;
            if mode & SET_GROUP_ID != 0 {
                let mode = Mode::from_raw_mode((mode & !SET_GROUP_ID & 0o7777).into());
                chmodat(
                    &self.root.proc_self_fd,
                    DecInt::from_fd(&held),
                    mode,
                    AtFlags::empty(),
                )?;
            }
        }
        Ok(())
    }

    pub(crate) fn op_getxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Getxattr<'_>,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        let name = self.host_name(cx, op.name)?;
        let node = self.node(cx, node)?;
        let held = self.descriptor(&node)?;
        let path = DecInt::from_fd(&held);
        if op.size_bytes == 0 {
            return Ok(getxattr_query(path, &*name)?);
        }
        let mut value = vec![0; op.size_bytes.min(MOST_BYTES)];
        let len = getxattr(path, &*name, &mut value[..])?;
        put(into, value.get(..len).ok_or(Errno::RANGE)?)?;
        Ok(len)
    }

    pub(crate) fn op_listxattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Listxattr,
        into: &mut PageWriter<'_>,
    ) -> Outcome<usize> {
        let rules = self.options.xattr.rules()?;
        let node = self.node(cx, node)?;
        let held = self.descriptor(&node)?;
        // The guest's room is for its own names; the host's may be more and longer.
        let mut names = vec![0; MOST_BYTES];
        let len = listxattr(DecInt::from_fd(&held), &mut names[..])?;
        let visible = names
            .get(..len)
            .unwrap_or_default()
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| !is_blocked(cx, name.strip_suffix(&[0]).unwrap_or(name)))
            .filter_map(|name| rules.guest_name(name))
            // Each store hides them from others by itself, but here the daemon asks (man 7 xattr).
            .filter(|name| cx.caller.is_root() || !name.starts_with(b"trusted."));
        let mut total = 0;
        for name in visible {
            total += name.len();
            if op.size_bytes > 0 {
                put(into, name)?;
            }
        }
        Ok(total)
    }

    pub(crate) fn op_removexattr(
        &self,
        cx: &Context<'_>,
        node: NodeId,
        op: Removexattr<'_>,
    ) -> Outcome<()> {
        let name = self.host_name(cx, op.name)?;
        let node = self.node(cx, node)?;
        let held = self.descriptor(&node)?;
        Ok(removexattr(DecInt::from_fd(&held), &*name)?)
    }

    /// Takes a file's capabilities away before it changes, where the map has renamed them and the host's kernel
    /// therefore does not (`FUSE_HANDLE_KILLPRIV` in either form: capabilities go with every write, truncate and chown).
    pub(crate) fn drop_renamed_capability(
        &self,
        cx: &Context<'_>,
        file: impl AsFd,
    ) -> Result<(), Errno> {
        let Some(name) = &self.renamed_capability else {
            return Ok(());
        };
        if !privileges::are_ours(cx) {
            return Ok(());
        }
        match removexattr(DecInt::from_fd(&file), &**name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            failed => failed,
        }
    }

    /// The mode that a new object is made with, where the guest has left the umask to us (`FUSE_DONT_MASK`): a
    /// default ACL of its directory takes the umask's place (man 5 acl).
    pub(crate) fn masked(
        &self,
        cx: &Context<'_>,
        directory: impl AsFd,
        mode: Permissions,
        umask: Permissions,
    ) -> Result<Mode, Errno> {
        let bits = mode.bits();
        if !cx.negotiated.flags.contains(InitFlags::DONT_MASK) {
            return Ok(Mode::from_raw_mode(bits));
        }
        let bits = match getxattr_query(DecInt::from_fd(&directory), DEFAULT_ACL) {
            Ok(_) => bits,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => bits & !umask.bits(),
            Err(errno) => return Err(errno),
        };
        Ok(Mode::from_raw_mode(bits))
    }
}

/// The host's name of `security.capability`, where the rules give it another one.
pub(crate) fn renamed_capability(policy: &XattrPolicy) -> Option<std::ffi::CString> {
    let name = policy.rules().ok()?.host_name(CAPABILITY).ok()?;
    (*name != *CAPABILITY).then(|| name.into_owned())
}

fn put(into: &mut PageWriter<'_>, bytes: &[u8]) -> Result<(), Refusal> {
    if into.push(bytes) {
        Ok(())
    } else {
        Err(Refusal::Errno(Errno::RANGE))
    }
}
