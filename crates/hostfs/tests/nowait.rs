//! Reading without sleeping: whatever is in memory, an answer is never short before the file's end.

mod kit;

use std::os::unix::fs::FileExt;

use kit::store::Store;
use kit::{Guest, READ, ROOT};
use rustix::fs::{Advice, fadvise};

const PAGE: u64 = 4096;
const PAGES: u64 = 64;
/// Ends inside a page.
const SIZE: u64 = PAGES * PAGE - 1000;
const ROUNDS: usize = 3000;

/// Repeatable noise (an xorshift generator).
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn contents() -> Vec<u8> {
    let size = u32::try_from(SIZE).expect("small");
    (0..size)
        .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect()
}

/// What came of the reads: at once and whole, at once at the end of the file, not at once.
#[derive(Debug, Default)]
struct Tally {
    whole: usize,
    at_the_end: usize,
    would_sleep: usize,
}

fn check(store: &Store) -> Tally {
    let path = store.path().join("file");
    let want = contents();
    std::fs::write(&path, &want).expect("a store that can be written");
    let host = std::fs::File::open(&path).expect("it was just made");
    host.sync_all().expect("a store that can be synced");
    fadvise(&host, 0, None, Advice::Random).expect("a hint");
    let guest = Guest::on(store.path());
    let node = guest.lookup(ROOT, "file").expect("it is there").node;
    let file = guest.open(node, READ).expect("it can be read");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut tally = Tally::default();
    for round in 0..ROUNDS {
        if round % 16 == 0 {
            // Out of memory with all of it, and some pages in again.
            fadvise(&host, 0, None, Advice::DontNeed).expect("a hint");
            for page in 0..PAGES {
                if noise.below(8) != 0 {
                    let _ = host.read_at(&mut [0; 1], page * PAGE);
                }
            }
        }
        let at = noise.below(SIZE + PAGE);
        let len = noise.below(9 * PAGE) + 1;
        let (begin, end) = (at.min(SIZE), (at + len).min(SIZE));
        let asked = usize::try_from(len).expect("small");
        let Some(bytes) = guest.read_at_once((node, file), at, asked) else {
            tally.would_sleep += 1;
            continue;
        };
        let range = usize::try_from(begin).expect("small")..usize::try_from(end).expect("small");
        assert_eq!(
            bytes.len(),
            range.len(),
            "round {round}: {len} bytes at {at}"
        );
        assert!(bytes == want[range], "round {round}: {len} bytes at {at}");
        if at + len > SIZE {
            tally.at_the_end += 1;
        } else {
            tally.whole += 1;
        }
    }
    tally
}

#[test]
fn a_read_at_once_is_whole_or_ends_where_the_file_does() {
    let stores = [
        ("ext4", Store::ext4()),
        ("ext4 of small blocks", Store::ext4_of_small_blocks()),
        ("xfs", Store::xfs()),
        ("btrfs", Store::btrfs()),
        ("tmpfs", Store::tmpfs()),
    ];
    for (name, store) in stores {
        let Some(store) = store else { continue };
        let tally = check(&store);
        println!("{name}: {tally:?}");
        assert!(
            tally.whole > 100 && tally.at_the_end > 20,
            "{name}: {tally:?}"
        );
        // tmpfs has everything in memory, and refuses to be asked for no sleep.
        assert!(
            (tally.would_sleep > 100) == (name != "tmpfs"),
            "{name}: {tally:?}"
        );
    }
}
