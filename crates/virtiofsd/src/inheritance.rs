//! What a parent leaves in a process it starts, and what of it is not kept.
//!
//! The environment is not needed after the start ([`crate::serve`] empties it when the last program has been looked
//! up in PATH); of descriptors only the log's and the one that `--fd` names.

use std::fs::File;

use rustix::stdio::dup2_stdin;

use crate::plan::Listen;
use crate::sys;

/// Closes every descriptor that was not asked for. Only before anything is opened.
///
/// # Errors
///
/// One line for the operator.
pub fn refuse(listen: &Listen) -> Result<(), String> {
    let kept = match listen {
        Listen::Socket { .. } => None,
        Listen::Descriptor(number) => Some(*number),
    };
    sys::close_all_but(kept.as_slice())
        .map_err(|error| format!("closing inherited descriptors: {error}; Linux 5.9 is needed"))?;
    let nothing = File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    dup2_stdin(nothing).map_err(|errno| format!("standard input: {errno}"))
}
