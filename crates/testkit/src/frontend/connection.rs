//! The socket: messages out, replies in, descriptors with either.
//!
//! Every wait has a limit, so a daemon that goes silent fails a test and does
//! not hang it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::message::{Code, Header, NEED_REPLY, REPLY, VERSION};

/// Most descriptors that Linux passes in one message (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// One message from the daemon.
#[derive(Debug)]
pub struct Received {
    /// Its header, size checked to be what followed.
    pub header: Header,
    /// What followed the header.
    pub payload: Vec<u8>,
    /// Descriptors that came along.
    pub descriptors: Vec<OwnedFd>,
}

/// A connected vhost-user socket, polite or not.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// REPLY_ACK was negotiated: `set` asks for and awaits acknowledgements.
    pub acknowledged: bool,
}

impl Connection {
    /// Connects, waiting up to `patience` for the daemon to listen.
    pub fn open(socket: &Path, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("connect to {}", socket.display()));
                }
            }
        };
        let connection = Self {
            stream,
            acknowledged: false,
        };
        connection.limit(Duration::from_secs(10))?;
        Ok(connection)
    }

    /// Sets how long one send or receive may take.
    pub fn limit(&self, limit: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.set_write_timeout(Some(limit))?;
        Ok(())
    }

    /// The socket itself, for tests that do with it what no front-end would.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends any bytes with any descriptors, as one `sendmsg`.
    pub fn send_raw(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space =
            vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ensure!(
                control.push(SendAncillaryMessage::ScmRights(descriptors)),
                "{} descriptors do not fit one message",
                descriptors.len()
            );
        }
        let sent = rustix::net::sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .context("send to the daemon")?;
        ensure!(
            sent == bytes.len(),
            "only {sent} of {} bytes sent",
            bytes.len()
        );
        Ok(())
    }

    /// Sends a well-formed message with the given extra flags.
    pub fn send(
        &self,
        code: Code,
        extra_flags: u32,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let header = Header {
            request: code.number(),
            flags: VERSION | extra_flags,
            size: u32::try_from(payload.len())?,
        };
        let bytes = [header.as_bytes(), payload].concat();
        self.send_raw(&bytes, descriptors)
            .with_context(|| format!("{code:?}"))
    }

    /// Receives one message.
    pub fn receive(&self) -> Result<Received> {
        let mut header = Header::new_zeroed();
        let descriptors = self.receive_exactly(header.as_mut_bytes())?;
        ensure!(header.size <= 1 << 20, "a reply of {} bytes", header.size);
        let mut payload = vec![0; usize::try_from(header.size)?];
        let mut descriptors = descriptors;
        descriptors.extend(self.receive_exactly(&mut payload)?);
        Ok(Received {
            header,
            payload,
            descriptors,
        })
    }

    /// Whether the daemon has hung up (waits for it within the limit).
    pub fn is_closed_by_peer(&self) -> Result<bool> {
        let mut byte = [0];
        match rustix::net::recv(&self.stream, &mut byte[..], RecvFlags::PEEK) {
            Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => Ok(true),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request that has a reply of its own and returns that reply.
    pub fn get(&self, code: Code, payload: &[u8]) -> Result<Received> {
        self.send(code, 0, payload, &[])?;
        let reply = self
            .receive()
            .with_context(|| format!("reply to {code:?}"))?;
        ensure!(
            reply.header.request == code.number() && reply.header.flags & REPLY != 0,
            "reply to {code:?} has header {:?}",
            reply.header
        );
        Ok(reply)
    }

    /// [`Connection::get`] where the reply is one value.
    pub fn get_value<T>(&self, code: Code, payload: &[u8]) -> Result<T>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        let reply = self.get(code, payload)?;
        T::read_from_bytes(&reply.payload)
            .map_err(|_| anyhow::anyhow!("reply to {code:?} is {} bytes long", reply.payload.len()))
    }

    /// Sends a request without a reply of its own; awaits the
    /// acknowledgement where REPLY_ACK was negotiated.
    pub fn set(&self, code: Code, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        if !self.acknowledged {
            return self.send(code, 0, payload, descriptors);
        }
        self.send(code, NEED_REPLY, payload, descriptors)?;
        let reply = self
            .receive()
            .with_context(|| format!("acknowledgement of {code:?}"))?;
        let status = u64::read_from_bytes(&reply.payload)
            .map_err(|_| anyhow::anyhow!("acknowledgement of {code:?}: {reply:?}"))?;
        if status != 0 {
            bail!("{code:?} refused with status {status}");
        }
        Ok(())
    }

    fn receive_exactly(&self, mut into: &mut [u8]) -> Result<Vec<OwnedFd>> {
        let mut descriptors = Vec::new();
        while !into.is_empty() {
            let mut space =
                vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = match rustix::net::recvmsg(
                self.stream.as_fd(),
                &mut [IoSliceMut::new(into)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                // With a time limit the kernel does not start it again by itself (man 7 signal).
                Err(rustix::io::Errno::INTR) => continue,
                received => received,
            }
            .context("receive from the daemon")?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    descriptors.extend(passed);
                }
            }
            ensure!(received.bytes > 0, "the daemon hung up");
            into = &mut into[received.bytes..];
        }
        Ok(descriptors)
    }
}
