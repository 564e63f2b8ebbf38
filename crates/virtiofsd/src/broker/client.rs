//! The server's end: file handles for `hostfs`, by way of the broker.
//!
//! One request is under way at a time, under a lock that is held for a packet each way. Making handles never waits for
//! that lock: it is no work that has to be done now. When the broker has ended, that is said once, and from there on
//! there are no handles: what would need one is ESTALE.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::fs::OFlags;
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use virtiofs_hostfs::{FileHandle, FileHandles};

use super::message::{REPLY_BYTES, Reply, Request};
use crate::cli::values::FileHandlesName;

/// A broker that was started.
#[derive(Debug)]
pub struct Client {
    socket: Mutex<OwnedFd>,
    works: AtomicBool,
    asked_for: FileHandlesName,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, asked_for: FileHandlesName) -> Self {
        Self {
            socket: Mutex::new(socket),
            works: AtomicBool::new(true),
            asked_for,
        }
    }

    /// Asks, and returns the answer and what came with it. `None` when there is nobody to answer.
    fn ask<T>(
        &self,
        socket: &MutexGuard<'_, OwnedFd>,
        request: Request<'_>,
        take: impl FnOnce(&Reply<'_>, Option<OwnedFd>) -> T,
    ) -> Option<T> {
        let packet = request.packet()?;
        if !self.work() {
            return None;
        }
        let answered = say(socket, &packet).and_then(|()| {
            let (packet, opened) = hear(socket)?;
            let reply = Reply::parse(&packet).ok_or(Errno::PROTO)?;
            Ok(take(&reply, opened))
        });
        answered.map_err(|errno| self.end(errno)).ok()
    }

    /// What a server says that was taken over, and what it hears.
    #[cfg(test)]
    pub(crate) fn exchange(&self, packet: &[u8]) -> Result<([u8; REPLY_BYTES], bool), Errno> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        say(&socket, packet)?;
        let (heard, opened) = hear(&socket)?;
        Ok((heard, opened.is_some()))
    }

    /// It does not answer any more, and is never asked again.
    fn end(&self, errno: Errno) {
        if !self.works.swap(false, Ordering::Relaxed) {
            return;
        }
        let lost = "the broker of file handles has ended";
        match self.asked_for {
            FileHandlesName::Mandatory => tracing::error!(
                "{lost} ({errno}): what is not held and lost its name on the host is ESTALE from here on; restart the \
                 daemon to have handles again"
            ),
            FileHandlesName::Prefer | FileHandlesName::Never => {
                tracing::warn!("{lost} ({errno}): going on as with --inode-file-handles=never")
            }
        }
    }
}

impl FileHandles for Client {
    fn make(&self, path: &[u8]) -> Option<FileHandle> {
        let socket = match self.socket.try_lock() {
            Ok(socket) => socket,
            Err(TryLockError::Poisoned(socket)) => socket.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.ask(&socket, Request::Make { path }, |reply, _| match reply {
            Reply::Done(signed) => Some(FileHandle::new(signed)),
            Reply::Refused(_) => None,
        })?
    }

    fn open(&self, handle: &FileHandle, flags: OFlags) -> Result<OwnedFd, Errno> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let request = Request::Open {
            flags: flags.bits(),
            handle: handle.bytes(),
        };
        let answered = self.ask(&socket, request, |reply, opened| match reply {
            // Where there is no room for one more descriptor, the kernel leaves it out.
            Reply::Done(_) => opened.ok_or(Errno::MFILE),
            Reply::Refused(errno) => Err(*errno),
        });
        answered.unwrap_or(Err(Errno::STALE))
    }

    fn work(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }
}

/// Waits for the broker to say that it has begun.
pub(super) fn await_start(socket: &OwnedFd) -> Result<(), Errno> {
    let (packet, _) = hear(socket)?;
    match Reply::parse(&packet) {
        Some(Reply::Done(_)) => Ok(()),
        Some(Reply::Refused(errno)) => Err(errno),
        None => Err(Errno::PROTO),
    }
}

pub(super) fn say(socket: &OwnedFd, packet: &[u8]) -> Result<(), Errno> {
    loop {
        match send(socket, packet, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            said => return said.map(drop),
        }
    }
}

/// One packet, and the descriptor that came with it, if one did.
pub(super) fn hear(socket: &OwnedFd) -> Result<([u8; REPLY_BYTES], Option<OwnedFd>), Errno> {
    let mut packet = [0; REPLY_BYTES];
    loop {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut packet)];
        match recvmsg(
            socket.as_fd(),
            &mut pieces,
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            // The end of the socket is the end of the process that had its other end.
            Ok(heard) if heard.bytes == 0 => return Err(Errno::PIPE),
            Ok(_) => {
                let mut opened = None;
                for message in beside.drain() {
                    if let RecvAncillaryMessage::ScmRights(mut rights) = message {
                        opened = rights.next();
                    }
                }
                return Ok((packet, opened));
            }
        }
    }
}
