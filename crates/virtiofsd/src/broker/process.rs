//! The broker's life: it gives everything up but one capability, says how that went, and answers until its server is gone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use virtiofs_protocol::Access;

use super::handle::Keeper;
use super::message::{REQUEST_BYTES, Reply, Request};
use crate::cli::values::SeccompName;
use crate::sandbox;
use crate::sys;

/// Lives, in a process just made, with nothing open but these and the standard three.
pub(super) fn live(socket: &OwnedFd, root: OwnedFd, access: Access, seccomp: SeccompName) -> ! {
    let mut kept = [socket.as_raw_fd(), root.as_raw_fd()];
    kept.sort_unstable();
    // What else is open is the server's copy of everything, which nobody here looks at again.
    let begun = sys::close_all_but(&kept)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .and_then(|()| begin(root, access, seccomp));
    let reply = match &begun {
        Ok(_) => Reply::Done(&[]),
        Err(errno) => Reply::Refused(*errno),
    };
    let said = answer(socket.as_fd(), reply, None);
    if let (Ok(keeper), Ok(())) = (begun, said) {
        serve(socket.as_fd(), &keeper);
    }
    sys::exit_now(0)
}

fn begin(root: OwnedFd, access: Access, seccomp: SeccompName) -> Result<Keeper, Errno> {
    let keeper = Keeper::with_new_key(root, access)?;
    sandbox::confine_broker(seccomp).map_err(|error| {
        tracing::error!("the broker of file handles: {error}");
        Errno::PERM
    })?;
    keeper.try_out()?;
    Ok(keeper)
}

/// Answers one request after the other; returns when the server has gone.
fn serve(socket: BorrowedFd<'_>, keeper: &Keeper) {
    // One byte more than a request has, so that what is too long shows. Descriptors are not asked for: the kernel
    // closes any that are sent.
    let mut packet = [0; REQUEST_BYTES + 1];
    loop {
        match recv(socket, &mut packet, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((0, _)) | Err(_) => return,
            Ok((len, _)) => {
                let said = one(socket, keeper, packet.get(..len).unwrap_or_default());
                if said.is_err_and(|errno| errno != Errno::AGAIN) {
                    return;
                }
            }
        }
    }
}

fn one(socket: BorrowedFd<'_>, keeper: &Keeper, packet: &[u8]) -> Result<(), Errno> {
    match Request::parse(packet) {
        None => answer(socket, Reply::Refused(Errno::INVAL), None),
        Some(Request::Make { path }) => match keeper.make(path) {
            Ok(signed) => answer(socket, Reply::Done(signed.bytes()), None),
            Err(errno) => answer(socket, Reply::Refused(errno), None),
        },
        Some(Request::Open { flags, handle }) => match keeper.open(handle, flags) {
            Ok(opened) => answer(socket, Reply::Done(&[]), Some(opened.as_fd())),
            Err(errno) => answer(socket, Reply::Refused(errno), None),
        },
    }
}

/// Says it, and never waits for a server that does not listen.
fn answer(
    socket: BorrowedFd<'_>,
    reply: Reply<'_>,
    opened: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let packet = reply.packet().ok_or(Errno::INVAL)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let opened = opened.as_slice();
    if !opened.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(opened)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&packet)], &mut beside, flags).map(drop)
}

impl Keeper {
    /// Makes a handle of the share itself and opens it: here and now, with the rights that are left.
    fn try_out(&self) -> Result<(), Errno> {
        let signed = self.of_the_root()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        self.open(signed.bytes(), flags.bits()).map(drop)
    }
}
