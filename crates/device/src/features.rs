//! What is offered to a front-end.

/// Virtio feature bits (virtio 1.3, 2.7 and 6) and the vhost-user bit among them.
pub(crate) mod virtio {
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
    /// `VIRTIO_F_EVENT_IDX`.
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    /// `VHOST_USER_F_PROTOCOL_FEATURES`.
    pub(crate) const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// `VIRTIO_F_VERSION_1`.
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// All of them.
    pub(crate) const OFFERED: u64 = INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES | VERSION_1;
}

/// `VHOST_USER_PROTOCOL_F_*` (vhost-user specification, "Protocol features").
pub(crate) mod protocol {
    pub(crate) const MQ: u64 = 1 << 0;
    pub(crate) const REPLY_ACK: u64 = 1 << 3;
    pub(crate) const BACKEND_REQ: u64 = 1 << 5;
    pub(crate) const CONFIG: u64 = 1 << 9;
    pub(crate) const RESET_DEVICE: u64 = 1 << 13;
    pub(crate) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;

    /// Offered with and without a tag: QEMU 7.1 to 8.0 abort when CONFIG is offered.
    pub(crate) fn offered(has_tag: bool) -> u64 {
        let always = MQ | REPLY_ACK | BACKEND_REQ | RESET_DEVICE | CONFIGURE_MEM_SLOTS;
        if has_tag { always | CONFIG } else { always }
    }
}

/// Queues of a device: one of high priority and up to 63 for requests.
pub(crate) const MOST_QUEUES: u32 = 64;
/// Memory regions of a device.
pub(crate) const MOST_REGIONS: usize = 509;
