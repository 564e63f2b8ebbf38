//! vhost-user messages as the protocol's document numbers and lays them out
//! (QEMU, `docs/interop/vhost-user.rst`). Integers are in host byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a front-end asks for: the `request` field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum Code {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    ResetOwner = 4,
    SetMemTable = 5,
    SetLogBase = 6,
    SetLogFd = 7,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SendRarp = 19,
    NetSetMtu = 20,
    SetBackendReqFd = 21,
    IotlbMsg = 22,
    SetVringEndian = 23,
    GetConfig = 24,
    SetConfig = 25,
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    VringKick = 35,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
    SetStatus = 39,
    GetStatus = 40,
    SetDeviceStateFd = 42,
    CheckDeviceState = 43,
}

impl Code {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// Protocol version 1, the only one, in the low bits of `flags`.
pub const VERSION: u32 = 1;
/// `flags`: this message is a reply.
pub const REPLY: u32 = 1 << 2;
/// `flags`: the sender wants an acknowledgement ([`protocol_feature::REPLY_ACK`]).
pub const NEED_REPLY: u32 = 1 << 3;
/// Kick, call and error messages: no descriptor comes with the message.
pub const NO_DESCRIPTOR: u64 = 1 << 8;

/// Virtio feature bits (virtio 1.3, section 6, and vhost-user's own).
#[expect(missing_docs, reason = "the names are those of the specifications")]
pub mod feature {
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
}

/// vhost-user protocol feature bits.
#[expect(missing_docs, reason = "the names are those of the specification")]
pub mod protocol_feature {
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CONFIG: u64 = 1 << 9;
    pub const BACKEND_SEND_FD: u64 = 1 << 10;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const DEVICE_STATE: u64 = 1 << 19;
}

/// Header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// A [`Code`], or whatever a hostile test makes of it.
    pub request: u32,
    /// [`VERSION`] and flag bits.
    pub flags: u32,
    /// Payload bytes that follow.
    pub size: u32,
}
const _: () = assert!(size_of::<Header>() == 12);

/// One memory region of SET_MEM_TABLE and ADD_MEM_REG.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryRegion {
    /// Guest physical address.
    pub guest_address: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address in the front-end's own address space; ring addresses are such.
    pub user_address: u64,
    /// Where the region starts in the descriptor's file.
    pub mmap_offset: u64,
}
const _: () = assert!(size_of::<MemoryRegion>() == 32);

/// A ring's index and a number: NUM, BASE, ENABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VringState {
    /// Which ring.
    pub index: u32,
    /// Size, base or switch, by message.
    pub num: u32,
}

/// Where a ring lies: SET_VRING_ADDR.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VringAddr {
    /// Which ring.
    pub index: u32,
    /// Bit 0: log writes to the used ring.
    pub flags: u32,
    /// User address of the descriptor table.
    pub descriptor: u64,
    /// User address of the used ring.
    pub used: u64,
    /// User address of the available ring.
    pub available: u64,
    /// Guest address for logging.
    pub log: u64,
}
const _: () = assert!(size_of::<VringAddr>() == 40);

/// Head of GET_CONFIG and SET_CONFIG; the bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConfigHead {
    /// First byte of the configuration space.
    pub offset: u32,
    /// How many bytes.
    pub size: u32,
    /// 0 for reads.
    pub flags: u32,
}
