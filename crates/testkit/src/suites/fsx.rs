//! fsx: random operations on one file, every byte checked.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

/// Whether the file can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// It can.
    Works,
    /// Without a cache there is nothing to map, unless DIRECT_IO_ALLOW_MMAP was agreed on: mmap is
    /// ENODEV (fuse_file_mmap).
    Refused,
}

/// Every operation has a weight: by default fsx leaves half of them out.
/// None is of no bytes: allocating those is EINVAL anywhere, which fsx takes for a store that cannot allocate.
/// `MAPPED` stands for the weight of those that map the file.
const CONFIGURATION: &str = "
flen = 1048576
[opsize]
min = 1
max = 131072
[weights]
close_open = 1.0
invalidate = MAPPED
mapread = MAPPED
mapwrite = MAPPED
read = 10.0
write = 10.0
truncate = 3.0
fsync = 1.0
fdatasync = 1.0
posix_fallocate = 2.0
punch_hole = 3.0
sendfile = 3.0
posix_fadvise = 1.0
copy_file_range = 5.0
";

/// The text of a configuration file.
#[must_use]
pub fn configuration(mapping: Mapping) -> String {
    let weight = match mapping {
        Mapping::Works => "2.0",
        Mapping::Refused => "0.0",
    };
    CONFIGURATION.replace("MAPPED", weight)
}

/// The seed of this run: `$VIRTIOFSD_SEED`, or the time.
pub fn seed() -> Result<u64> {
    match std::env::var("VIRTIOFSD_SEED") {
        Ok(seed) => Ok(seed.parse()?),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
    }
}
