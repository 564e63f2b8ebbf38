//! A host directory as a FUSE file system that cannot be left. No FUSE bytes, no virtio, no command line.
