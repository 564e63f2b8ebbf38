//! The handshake: from a socket to running rings, in QEMU's order.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zerocopy::IntoBytes;

use super::connection::Connection;
use super::memory::{GuestMemory, RegionSpec};
use super::message::{
    Code, ConfigHead, MemoryRegion, VringAddr, VringState, feature, protocol_feature,
};
use super::ring::{Queue, RingFeatures};

/// Which messages tell the daemon about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMessages {
    /// One SET_MEM_TABLE.
    Table,
    /// One ADD_MEM_REG for each region (CONFIGURE_MEM_SLOTS).
    Slots,
}

/// What to negotiate and how much to set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Guest memory, ascending. Untouched memory costs nothing.
    pub memory: Vec<RegionSpec>,
    /// How the daemon hears of it.
    pub memory_messages: MemoryMessages,
    /// Request queues beside the high-priority queue.
    pub request_queues: u16,
    /// Entries of each ring.
    pub queue_size: u16,
    /// Virtio features to take when the daemon offers them.
    pub features: u64,
    /// Protocol features to take when the daemon offers them.
    pub protocol_features: u64,
    /// How long to wait for the daemon's socket to listen.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: vec![RegionSpec {
                guest_address: 0x1_0000_0000,
                len_bytes: 1 << 30,
            }],
            memory_messages: MemoryMessages::Table,
            request_queues: 1,
            queue_size: 256,
            features: feature::VERSION_1
                | feature::INDIRECT_DESC
                | feature::EVENT_IDX
                | feature::PROTOCOL_FEATURES,
            protocol_features: protocol_feature::MQ
                | protocol_feature::REPLY_ACK
                | protocol_feature::CONFIG
                | protocol_feature::RESET_DEVICE
                | protocol_feature::CONFIGURE_MEM_SLOTS,
            patience: Duration::from_secs(10),
        }
    }
}

/// A connected device with running rings.
///
/// Dropping it hangs up. Queues that were taken keep their memory, but no one
/// serves them any more.
#[derive(Debug)]
pub struct Frontend {
    connection: Connection,
    memory: Arc<GuestMemory>,
    queues: Vec<Option<Queue>>,
    offered_features: u64,
    features: u64,
    offered_protocol_features: u64,
    protocol_features: u64,
}

impl Frontend {
    /// Connects and sets up everything that `options` say.
    pub fn connect(socket: &Path, options: &Options) -> Result<Self> {
        let mut frontend = Self::negotiate(socket, options)?;
        frontend.share_memory(options.memory_messages)?;
        let features = RingFeatures {
            event_idx: frontend.features & feature::EVENT_IDX != 0,
            indirect: frontend.features & feature::INDIRECT_DESC != 0,
        };
        for index in 0..=u32::from(options.request_queues) {
            let memory = Arc::clone(&frontend.memory);
            let queue = Queue::new(memory, options.queue_size, features)?;
            frontend.start_ring(index, &queue)?;
            frontend.queues.push(Some(queue));
        }
        Ok(frontend)
    }

    /// Connects and agrees on features; no memory, no rings yet.
    pub fn negotiate(socket: &Path, options: &Options) -> Result<Self> {
        let mut connection = Connection::open(socket, options.patience)?;
        let offered_features: u64 = connection.get_value(Code::GetFeatures, &[])?;
        let features = offered_features & options.features;
        let mut offered_protocol_features = 0;
        let mut protocol_features = 0;
        if features & feature::PROTOCOL_FEATURES != 0 {
            offered_protocol_features = connection.get_value(Code::GetProtocolFeatures, &[])?;
            protocol_features = offered_protocol_features & options.protocol_features;
            connection.set(Code::SetProtocolFeatures, protocol_features.as_bytes(), &[])?;
            connection.acknowledged = protocol_features & protocol_feature::REPLY_ACK != 0;
        }
        if protocol_features & protocol_feature::MQ != 0 {
            let most: u64 = connection.get_value(Code::GetQueueNum, &[])?;
            let wanted = u64::from(options.request_queues) + 1;
            ensure!(
                wanted <= most,
                "{wanted} queues wanted, the daemon has {most}"
            );
        }
        connection.set(Code::SetOwner, &[], &[])?;
        connection.set(Code::SetFeatures, features.as_bytes(), &[])?;
        Ok(Self {
            connection,
            memory: Arc::new(GuestMemory::new(&options.memory)?),
            queues: Vec::new(),
            offered_features,
            features,
            offered_protocol_features,
            protocol_features,
        })
    }

    /// Tells the daemon about all memory regions.
    pub fn share_memory(&self, how: MemoryMessages) -> Result<()> {
        match how {
            MemoryMessages::Table => {
                let regions = self.memory.regions();
                let table: Vec<MemoryRegion> = regions.iter().map(|r| r.message).collect();
                let files: Vec<BorrowedFd<'_>> = regions.iter().map(|r| r.file()).collect();
                let count = u32::try_from(table.len())?;
                let payload = [[count, 0].as_bytes(), table.as_bytes()].concat();
                self.connection.set(Code::SetMemTable, &payload, &files)
            }
            MemoryMessages::Slots => {
                let most: u64 = self.connection.get_value(Code::GetMaxMemSlots, &[])?;
                let regions = self.memory.regions();
                ensure!(
                    u64::try_from(regions.len())? <= most,
                    "only {most} memory slots"
                );
                for region in regions {
                    let payload = [0u64.as_bytes(), region.message.as_bytes()].concat();
                    self.connection
                        .set(Code::AddMemReg, &payload, &[region.file()])?;
                }
                Ok(())
            }
        }
    }

    /// Hands a ring to the daemon, from where the driver stands, and enables it.
    pub fn start_ring(&self, index: u32, queue: &Queue) -> Result<()> {
        let state = |num| VringState { index, num };
        let addresses = queue.addresses();
        let connection = &self.connection;
        connection.set(
            Code::SetVringNum,
            state(addresses.size.into()).as_bytes(),
            &[],
        )?;
        connection.set(
            Code::SetVringBase,
            state(queue.base().into()).as_bytes(),
            &[],
        )?;
        let address = VringAddr {
            index,
            flags: 0,
            descriptor: self.memory.user_address(addresses.descriptors),
            used: self.memory.user_address(addresses.used),
            available: self.memory.user_address(addresses.available),
            log: 0,
        };
        connection.set(Code::SetVringAddr, address.as_bytes(), &[])?;
        let number = u64::from(index);
        connection.set(Code::SetVringErr, number.as_bytes(), &[queue.error_fd()])?;
        connection.set(Code::SetVringCall, number.as_bytes(), &[queue.call_fd()])?;
        connection.set(Code::SetVringKick, number.as_bytes(), &[queue.kick_fd()])?;
        if self.features & feature::PROTOCOL_FEATURES != 0 {
            connection.set(Code::SetVringEnable, state(1).as_bytes(), &[])?;
        }
        Ok(())
    }

    /// Stops a ring; the daemon drains it and says where it stands.
    pub fn stop_ring(&self, index: u32) -> Result<u32> {
        let payload = VringState { index, num: 0 };
        let state: VringState = self
            .connection
            .get_value(Code::GetVringBase, payload.as_bytes())?;
        ensure!(
            state.index == index,
            "asked for ring {index}, got {state:?}"
        );
        Ok(state.num)
    }

    /// Enables or disables a ring.
    pub fn enable_ring(&self, index: u32, enabled: bool) -> Result<()> {
        let num = u32::from(enabled);
        let payload = VringState { index, num };
        self.connection
            .set(Code::SetVringEnable, payload.as_bytes(), &[])
    }

    /// Sends RESET_DEVICE.
    pub fn reset_device(&self) -> Result<()> {
        self.connection.set(Code::ResetDevice, &[], &[])
    }

    /// Reads a part of the configuration space.
    pub fn config(&self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let head = ConfigHead {
            offset,
            size,
            flags: 0,
        };
        let room = vec![0; usize::try_from(size)?];
        let payload = [head.as_bytes(), &room].concat();
        let reply = self.connection.get(Code::GetConfig, &payload)?;
        let bytes = reply
            .payload
            .strip_prefix(head.as_bytes())
            .with_context(|| format!("GET_CONFIG {head:?} answered {:?}", reply.payload))?;
        Ok(bytes.to_vec())
    }

    /// Takes a queue to drive it: 0 is the high-priority queue, requests from 1.
    pub fn take_queue(&mut self, index: u16) -> Result<Queue> {
        self.queues
            .get_mut(usize::from(index))
            .and_then(Option::take)
            .with_context(|| format!("queue {index} does not exist or is taken"))
    }

    /// The socket.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The memory shared with the daemon.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Virtio features: offered and agreed.
    #[must_use]
    pub fn features(&self) -> (u64, u64) {
        (self.offered_features, self.features)
    }

    /// Protocol features: offered and agreed.
    #[must_use]
    pub fn protocol_features(&self) -> (u64, u64) {
        (self.offered_protocol_features, self.protocol_features)
    }
}
