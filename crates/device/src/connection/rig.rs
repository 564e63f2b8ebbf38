//! Queues without a connection, for fuzz targets: memory is mapped once, and a ring in it is served as often as one likes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use virtiofs_protocol::{Filesystem, HangUp, Session};

use super::{DeviceOptions, map};
use crate::connection::queues::Queues;
use crate::fuzzing::alone;
use crate::memory::{Memory, RegionLayout, RingAddresses};
use crate::message::request;

/// The first of the queues for requests.
const QUEUE: u32 = 1;

/// A region of guest memory, as SET_MEM_TABLE describes it.
#[derive(Clone, Copy, Debug)]
pub struct MappedRegion {
    /// Where the guest has it.
    pub guest_address: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Where the front-end has it.
    pub user_address: u64,
    /// Where the file has it.
    pub file_offset: u64,
}

/// A ring, as the messages before its start describe it.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Features that were agreed on.
    pub features: u64,
    /// Number of entries.
    pub size: u16,
    /// The index to begin with.
    pub base: u16,
    /// Descriptors, available ring and used ring in the front-end's addresses.
    pub addresses: [u64; 3],
}

/// A device's queues and the memory of its guest.
pub struct Rig<F> {
    queues: Queues<F>,
    memory: Arc<Memory>,
    event: OwnedFd,
}

impl<F: Filesystem + 'static> Rig<F> {
    /// Maps the regions of one file.
    ///
    /// # Errors
    ///
    /// What a front-end would be refused with.
    pub fn new(
        session: Arc<Session<F>>,
        file: &OwnedFd,
        regions: &[MappedRegion],
    ) -> Result<Self, String> {
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| errno.to_string())
        };
        let alarm = Arc::new(event()?);
        let mut memory = Memory::default();
        for region in regions {
            let layout = RegionLayout {
                guest_address: region.guest_address,
                len: region.len,
                user_address: region.user_address,
                file_offset: region.file_offset,
            };
            memory
                .add(map(layout, file, &alarm)?)
                .map_err(|errno| errno.to_string())?;
        }
        Ok(Self {
            queues: Queues::new(session, &DeviceOptions::default()),
            memory: Arc::new(memory),
            event: event()?,
        })
    }

    /// The session that is served.
    pub fn session(&self) -> &Session<F> {
        self.queues.session()
    }

    /// Has a ring served on this thread until it is empty, stops it, and ends the session; returns the index from which
    /// the ring would go on.
    ///
    /// # Errors
    ///
    /// What a front-end would be refused with.
    pub fn serve(&mut self, ring: Ring) -> Result<u16, String> {
        let base = alone(|| self.start_and_stop(ring));
        self.queues.tear_down(HangUp::Disconnected);
        self.queues.session().end(HangUp::Disconnected);
        base
    }

    fn start_and_stop(&mut self, ring: Ring) -> Result<u16, String> {
        let [descriptors, available, used] = ring.addresses;
        let addresses = RingAddresses {
            descriptors,
            used,
            available,
        };
        let queues = &mut self.queues;
        queues.set_features(ring.features);
        queues.set_size(QUEUE, ring.size.into())?;
        queues.set_base(QUEUE, ring.base.into())?;
        queues.set_addresses(QUEUE, addresses)?;
        for message in [request::SET_VRING_CALL, request::SET_VRING_KICK] {
            let event = self.event.try_clone().map_err(|error| error.to_string())?;
            queues.set_descriptor(message, QUEUE.into(), Some(event), &self.memory)?;
        }
        queues.enable(QUEUE, 1, &self.memory)?;
        Ok(queues.stop(QUEUE)?)
    }
}
