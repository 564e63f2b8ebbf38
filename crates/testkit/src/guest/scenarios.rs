//! What guests do over the share: scripts, each a file of its own in `guest/`.

/// Functions that scripts share, in the guest as `/job/lib.sh`.
pub const LIBRARY: &str = include_str!("../../guest/lib.sh");
