//! Directories.

use anyhow::{Result, ensure};
use virtiofs_testkit::fuse::{Request, dir_entries_plus};

use super::super::guest::Guest;
use super::KIB;
use super::files::directory;
use super::work::Work;

/// A directory with so many entries, none of which the guest knows.
pub(super) fn list(guest: &mut Guest, entries: u32) -> Result<Work> {
    let names: Vec<String> = (0..entries)
        .map(|number| format!("entry-{number}"))
        .collect();
    let node = directory(guest, &format!("listed-{entries}"), &names)?;
    Ok(Work::new(move |guest, _| {
        let found = listed(guest, node)?;
        ensure!(found == entries, "{found} entries listed, {entries} made");
        Ok(())
    }))
}

/// Opens, lists and closes a directory; its entries are owed then.
pub(super) fn listed(guest: &mut Guest, node: u64) -> Result<u32> {
    let fh = guest.client().opendir(node)?.fh;
    let mut offset = 0;
    let mut found = 0;
    loop {
        let client = guest.client();
        let answer = client.call(&Request::readdirplus(node, fh, offset, 128 * KIB))?;
        let entries = dir_entries_plus(&client.data(&answer));
        let Some(last) = entries.last() else {
            break;
        };
        offset = last.dirent.off;
        for entry in entries.iter().filter_map(|found| found.entry) {
            // `.` and `..` are no lookups.
            if entry.nodeid != 0 {
                guest.owe(entry.nodeid);
                found += 1;
            }
        }
    }
    guest.client().releasedir(node, fh)?;
    Ok(found)
}
