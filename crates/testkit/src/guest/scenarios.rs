//! What guests do over the share: scripts, each a file of its own in `guest/`.
//!
//! All but [`DEMO`], [`QUEUES`] and [`CLOCK`] need the Debian root.

/// Functions that scripts share, in the guest as `/job/lib.sh`.
pub const LIBRARY: &str = include_str!("../../guest/lib.sh");

/// Unpacks and builds the C project that the host put into `project.tar`.
pub const BUILD: &str = include_str!("../../guest/build.sh");

/// Works in a git repository of `$COUNT` files, `work`.
pub const GIT: &str = include_str!("../../guest/git.sh");

/// Copies the host's `tree` to `copy` and leaves the guest's view in `listing`.
pub const COPY: &str = include_str!("../../guest/copy.sh");

/// Fills databases; `$WAL` says what that mode can do here.
pub const SQLITE: &str = include_str!("../../guest/sqlite.sh");

/// Writes, reads and punches `sparse`, a file of 5 GiB; `$SEEKS` says whether its holes can be searched.
pub const SPARSE: &str = include_str!("../../guest/sparse.sh");

/// Reads, writes, lists and renames in the folder `$PLACE`, telling what it does.
pub const DEMO: &str = include_str!("../../guest/demo.sh");

/// Works on two processors at once and shows each queue's interrupts.
pub const QUEUES: &str = include_str!("../../guest/queues.sh");

/// Works on the share while its clock jumps by decades, and asks the host for changes.
pub const CLOCK: &str = include_str!("../../guest/clock.sh");

/// Whole workloads on `$FILES` files with the time of each; runs on a host as well.
pub const WORKLOADS: &str = include_str!("../../guest/workloads.sh");

/// A script with variables set before it.
#[must_use]
pub fn with(variables: &[(&str, &str)], script: &str) -> String {
    variables
        .iter()
        .map(|(name, value)| format!("{name}='{value}'\n"))
        .chain([script.to_owned()])
        .collect()
}
