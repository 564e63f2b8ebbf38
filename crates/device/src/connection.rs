//! One connection, from the first message to teardown.

mod queues;
#[cfg(fuzzing)]
pub(crate) mod rig;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, StatxFlags, statx};
use virtiofs_protocol::{Filesystem, HangUp, Session};

use crate::error::ConnectionError;
use crate::features::{MOST_QUEUES, MOST_REGIONS, protocol, virtio};
use crate::memory::{Memory, Region, RegionLayout};
use crate::message::{Halt, Message, Wire, request};
use crate::polling::Polling;
use crate::pressure::ProcessorPressure;
use crate::spare::Spare;
use queues::Queues;

/// What the operator chose about the device.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Tag stated in the device's configuration, at most 36 bytes; without it there is no such configuration.
    pub tag: Option<String>,
    /// Most threads for work that sleeps; 0 leaves it to the device.
    pub store_threads: usize,
    /// Whether queues' threads look for the next request before they sleep.
    pub polling: Polling,
    /// Processors that there are for it: they look only while one is left for the driver.
    pub processors: usize,
    /// Whether others wait for them, where that can be known: [`Polling::Auto`] does not look meanwhile.
    pub pressure: Option<Arc<dyn ProcessorPressure>>,
}

/// Why a connection ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The front-end closed it.
    Disconnected,
    /// `stop` became readable.
    Stopped,
}

/// Serves one front-end. Returns when it is gone, and nothing of it is left.
///
/// # Errors
///
/// [`ConnectionError`] when the front-end breaks the protocol; everything is torn down just the same.
pub fn serve_connection<F: Filesystem + 'static>(
    stream: &UnixStream,
    session: &Arc<Session<F>>,
    options: &DeviceOptions,
    stop: BorrowedFd<'_>,
) -> Result<Ended, ConnectionError> {
    let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| ConnectionError::Resources(errno.into()))?;
    let alarm = Arc::new(alarm);
    let spare = Spare::where_there_are_plenty(stop);
    let mut connection = Connection {
        wire: Wire {
            socket: stream,
            stop,
            alarm: alarm.as_fd(),
            spare: &spare,
        },
        alarm: &alarm,
        has_tag: options.tag.is_some(),
        config: config(options.tag.as_deref().unwrap_or_default()),
        features: 0,
        protocol_features: 0,
        memory: Arc::default(),
        queues: Queues::new(Arc::clone(session), options),
        backend_channel: None,
        refusals: 0,
    };
    let ended = connection.serve();
    let reported = connection.queues.late();
    connection.queues.tear_down(HangUp::Disconnected);
    session.end(HangUp::Disconnected);
    let requests = connection.queues.late() - reported;
    if requests > 0 {
        tracing::error!("{}", ConnectionError::Late { requests });
    }
    ended
}

/// `struct virtio_fs_config` (virtio 1.3, 5.11.4): the tag, padded with zeroes, and the number of
/// request queues. One: front-ends with more state their own configuration.
fn config(tag: &str) -> [u8; 40] {
    let mut config = [0; 40];
    let len = tag.len().min(36);
    config[..len].copy_from_slice(&tag.as_bytes()[..len]);
    config[36..].copy_from_slice(&1_u32.to_le_bytes());
    config
}

/// Refused messages that are logged one by one; a front-end can send any number.
const LOGGED_REFUSALS: u32 = 16;

struct Connection<'a, F> {
    wire: Wire<'a>,
    alarm: &'a Arc<OwnedFd>,
    has_tag: bool,
    config: [u8; 40],
    features: u64,
    protocol_features: u64,
    memory: Arc<Memory>,
    queues: Queues<F>,
    /// The front-end's ear for requests of ours, of which there are none yet; kept open for it.
    backend_channel: Option<OwnedFd>,
    refusals: u32,
}

/// What a message is answered with.
enum Answer {
    /// It was carried out, or not: told if asked for.
    Done(Result<(), String>),
    /// Its own reply.
    Reply(Vec<u8>),
}

impl<F: Filesystem + 'static> Connection<'_, F> {
    fn serve(&mut self) -> Result<Ended, ConnectionError> {
        loop {
            let handled = self.wire.receive().and_then(|message| self.handle(message));
            match handled {
                Ok(()) => {}
                Err(Halt::Closed) => return Ok(Ended::Disconnected),
                Err(Halt::Stopped) => return Ok(Ended::Stopped),
                Err(Halt::Failed(error)) => return Err(error),
            }
        }
    }

    fn handle(&mut self, message: Message) -> Result<(), Halt> {
        let (number, needs_reply) = (message.request, message.needs_reply());
        tracing::debug!("vhost-user message {number}");
        let answer = self.answer(message);
        // After carrying it out: the message that negotiates acknowledgements may itself ask for
        // one, as user-mode Linux's does.
        let acknowledges = needs_reply && self.protocol_features & protocol::REPLY_ACK != 0;
        match answer {
            Answer::Reply(payload) => self.wire.reply(number, &payload)?,
            Answer::Done(Ok(())) if acknowledges => {
                self.wire.reply(number, &0_u64.to_ne_bytes())?;
            }
            Answer::Done(Ok(())) => {}
            Answer::Done(Err(why)) if acknowledges => {
                self.log_refusal(number, &why);
                self.wire.reply(number, &1_u64.to_ne_bytes())?;
            }
            Answer::Done(Err(why)) => {
                let why = format!("message {number}: {why}");
                return Err(ConnectionError::Protocol(why).into());
            }
        }
        match self.queues.late() {
            0 => Ok(()),
            requests => Err(ConnectionError::Late { requests }.into()),
        }
    }

    fn log_refusal(&mut self, number: u32, why: &str) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= LOGGED_REFUSALS {
            tracing::warn!("vhost-user message {number} refused: {why}");
        }
        if self.refusals == LOGGED_REFUSALS {
            tracing::warn!("further refusals on this connection are not logged");
        }
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one match over all messages, a line or two each"
    )]
    fn answer(&mut self, mut message: Message) -> Answer {
        let long = message
            .longs::<1>(0)
            .map(|[long]| long)
            .ok_or("payload too short");
        let state = message.words::<2>().ok_or("payload too short");
        let done = |result: Result<(), &str>| Answer::Done(result.map_err(str::to_owned));
        match message.request {
            request::GET_FEATURES => Answer::Reply(virtio::OFFERED.to_ne_bytes().into()),
            request::SET_FEATURES => done(long.and_then(|features| {
                let unknown = features & !virtio::OFFERED;
                if unknown != 0 {
                    return Err("virtio features that were not offered");
                }
                self.features = features;
                self.queues.set_features(features);
                Ok(())
            })),
            request::GET_PROTOCOL_FEATURES => {
                Answer::Reply(protocol::offered(self.has_tag).to_ne_bytes().into())
            }
            request::SET_PROTOCOL_FEATURES => done(long.and_then(|features| {
                if features & !protocol::offered(self.has_tag) != 0 {
                    return Err("protocol features that were not offered");
                }
                self.protocol_features = features;
                Ok(())
            })),
            request::GET_QUEUE_NUM => Answer::Reply(u64::from(MOST_QUEUES).to_ne_bytes().into()),
            request::SET_OWNER => done(Ok(())),
            request::RESET_OWNER | request::RESET_DEVICE => {
                self.queues.tear_down(HangUp::Disconnected);
                self.queues.session().end(HangUp::Disconnected);
                done(Ok(()))
            }
            request::SET_MEM_TABLE => Answer::Done(self.set_mem_table(&message)),
            request::GET_MAX_MEM_SLOTS => Answer::Reply(
                u64::try_from(MOST_REGIONS)
                    .unwrap_or(u64::MAX)
                    .to_ne_bytes()
                    .into(),
            ),
            request::ADD_MEM_REG => Answer::Done(self.add_region(&message)),
            request::REM_MEM_REG => Answer::Done(self.remove_region(&message)),
            request::SET_VRING_NUM => {
                done(state.and_then(|[index, size]| self.queues.set_size(index, size)))
            }
            request::SET_VRING_BASE => {
                done(state.and_then(|[index, base]| self.queues.set_base(index, base)))
            }
            request::SET_VRING_ADDR => Answer::Done(self.set_addresses(&message)),
            request::GET_VRING_BASE => match state {
                Ok([index, _]) => self.get_base(index),
                Err(why) => done(Err(why)),
            },
            request::SET_VRING_ENABLE => {
                let memory = Arc::clone(&self.memory);
                done(state.and_then(|[index, on]| self.queues.enable(index, on, &memory)))
            }
            request::SET_VRING_KICK | request::SET_VRING_CALL | request::SET_VRING_ERR => {
                let descriptor = message.descriptors.pop();
                let memory = Arc::clone(&self.memory);
                done(long.and_then(|index| {
                    self.queues
                        .set_descriptor(message.request, index, descriptor, &memory)
                }))
            }
            request::SET_BACKEND_REQ_FD => {
                self.backend_channel = message.descriptors.pop();
                done(Ok(()))
            }
            request::GET_CONFIG => Answer::Reply(self.config_reply(&message)),
            _ => done(Err("not known here, or not negotiated")),
        }
    }

    fn get_base(&mut self, index: u32) -> Answer {
        match self.queues.stop(index) {
            Ok(base) => {
                let words = [index, u32::from(base)];
                Answer::Reply(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
            }
            Err(why) => Answer::Done(Err(why.into())),
        }
    }

    /// User-mode Linux asks byte by byte; offset, size and flags are echoed. What is out of range
    /// or not configured is answered with size 0.
    fn config_reply(&self, message: &Message) -> Vec<u8> {
        let Some([offset, size, flags]) = message.words::<3>() else {
            return vec![0; 12];
        };
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let part = range.and_then(|(start, len)| self.config.get(start..start.checked_add(len)?));
        let (size, part) = match part {
            Some(part) if self.has_tag => (size, part),
            _ => (0, &[][..]),
        };
        let mut payload: Vec<u8> = [offset, size, flags]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        payload.extend_from_slice(part);
        payload
    }

    fn set_mem_table(&mut self, message: &Message) -> Result<(), String> {
        let [count] = message.words::<1>().ok_or("payload too short")?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        // The payload may be longer: user-mode Linux 6.1 pads it.
        if count != message.descriptors.len() {
            return Err(format!(
                "{count} regions with {} descriptors",
                message.descriptors.len()
            ));
        }
        let mut memory = Memory::default();
        for (index, descriptor) in message.descriptors.iter().enumerate() {
            let layout = region(message, 8 + 32 * index).ok_or("payload too short")?;
            memory
                .add(map(layout, descriptor, self.alarm)?)
                .map_err(|errno| format!("region {index}: {errno}"))?;
        }
        self.replace_memory(memory);
        Ok(())
    }

    fn add_region(&mut self, message: &Message) -> Result<(), String> {
        let layout = region(message, 8).ok_or("payload too short")?;
        let [descriptor] = &message.descriptors[..] else {
            return Err("not one descriptor".into());
        };
        if self.memory.len() >= MOST_REGIONS {
            return Err(format!("more than {MOST_REGIONS} regions"));
        }
        let mut memory = Memory::clone(&self.memory);
        memory
            .add(map(layout, descriptor, self.alarm)?)
            .map_err(|errno| format!("region: {errno}"))?;
        self.replace_memory(memory);
        Ok(())
    }

    fn remove_region(&mut self, message: &Message) -> Result<(), String> {
        let layout = region(message, 8).ok_or("payload too short")?;
        let mut memory = Memory::clone(&self.memory);
        if !memory.remove(layout) {
            return Err("no such region".into());
        }
        self.replace_memory(memory);
        Ok(())
    }

    /// Queues that run go on in the new generation; their chains keep the old one.
    fn replace_memory(&mut self, memory: Memory) {
        self.memory = Arc::new(memory);
        self.queues.move_to(&self.memory);
    }

    fn set_addresses(&mut self, message: &Message) -> Result<(), String> {
        let [index, _flags] = message.words::<2>().ok_or("payload too short")?;
        let [descriptors, used, available, _log] =
            message.longs::<4>(8).ok_or("payload too short")?;
        let addresses = crate::memory::RingAddresses {
            descriptors,
            used,
            available,
        };
        Ok(self.queues.set_addresses(index, addresses)?)
    }
}

fn region(message: &Message, start: usize) -> Option<RegionLayout> {
    let [guest_address, len, user_address, file_offset] = message.longs::<4>(start)?;
    Some(RegionLayout {
        guest_address,
        len,
        user_address,
        file_offset,
    })
}

fn map(layout: RegionLayout, descriptor: &OwnedFd, alarm: &Arc<OwnedFd>) -> Result<Region, String> {
    let size = statx(descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::SIZE)
        .map_err(|errno| format!("memory descriptor: {errno}"))?
        .stx_size;
    let end = layout.file_offset.checked_add(layout.len);
    // Touching memory behind the file's end would be a SIGBUS.
    if end.is_none_or(|end| end > size) {
        return Err(format!("region ends at {end:?}, its file at {size}"));
    }
    Region::map(layout, descriptor, alarm)
        .map_err(|errno| format!("memory cannot be mapped: {errno}"))
}
