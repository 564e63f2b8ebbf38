//! The vhost-user-fs device: guest memory, virtqueues, connection. No host files, no opcodes.
