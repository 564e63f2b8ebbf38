//! Development only: a vhost-user front-end, the /dev/fuse bridge, real guests, generators.
