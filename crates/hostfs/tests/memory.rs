//! What an inode costs that the guest knows. Alone in its process, whose memory it measures.

mod kit;

use kit::listing::Kind;
use kit::store::Store;
use kit::{Guest, ROOT};

const FILES: usize = 100_000;
/// Names of 48 bytes, in a table that has just doubled.
const MOST_BYTES: usize = 256;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<usize>().ok())
        .expect("a number")
        * 1024
}

#[test]
fn a_known_inode_without_descriptor_costs_some_hundred_bytes() {
    let Some(store) = Store::tmpfs() else { return };
    for number in 0..FILES {
        std::fs::write(store.path().join(format!("{number:048}")), b"").unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(40));
    let guest = Guest::on(store.path());
    let directory = guest.opendir(ROOT).unwrap();
    let before = resident_bytes();
    let mut at = 0;
    while let Some(last) = guest
        .piece((ROOT, directory), at, 64 << 10, Kind::LookedUp)
        .unwrap()
        .last()
    {
        at = last.next;
    }
    assert_eq!(guest.fs.known_inodes(), 1 + u64::try_from(FILES).unwrap());
    assert!(guest.fs.held_descriptors() < 100);
    let each = (resident_bytes() - before) / FILES;
    println!("{each} bytes each");
    assert!(each <= MOST_BYTES, "{each} bytes each");
}
