//! The daemon as a library: command line, plan, sandbox, socket.
