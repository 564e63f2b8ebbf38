//! The limit of open descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is wished for where nothing is said.
const WISH: u64 = 1_000_000;
/// With fewer, not even a front-end with its queues and memory can be served.
const LEAST: u64 = 64;
/// Descriptors kept free for open files, sockets and the rest.
const RESERVE: u64 = 256;

/// Sets the limit: a number that must be had, 0 to leave it, `None` for as much as is allowed.
///
/// Returns the limit that holds now.
///
/// # Errors
///
/// One line for the operator when an explicit number cannot be had.
pub fn set_open_files(wanted: Option<u64>) -> Result<u64, String> {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let target = match wanted {
        Some(0) => return Ok(now.current.unwrap_or(WISH)),
        Some(number) if number < LEAST => {
            return Err(format!(
                "--rlimit-nofile {number}: too few to serve anything; give {LEAST} or more, or 0 to leave the limit"
            ));
        }
        Some(number) => number,
        None => {
            if hard < WISH {
                tracing::info!(
                    "limit of open files is {hard}, the hard limit; {WISH} would hold more inodes ready"
                );
            }
            hard.min(WISH)
        }
    };
    let maximum = Some(hard.max(target)).filter(|_| now.maximum.is_some() || target > hard);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(target),
            maximum,
        },
    )
    .map_err(|errno| {
        format!(
            "--rlimit-nofile {target}: {errno}; the hard limit is {hard}: raise it, or ask for less"
        )
    })?;
    Ok(target)
}

/// How many descriptors may be kept for inodes under this limit: half of it, the rest is for open files.
pub fn descriptor_budget(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(RESERVE) / 2).unwrap_or(usize::MAX)
}
