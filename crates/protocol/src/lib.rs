//! FUSE as types: requests parsed once, replies written once. No system calls, no virtio.
