//! Listing a directory that changes while it is listed.

mod kit;

use std::collections::{BTreeMap, BTreeSet};

use kit::listing::{Kind, Listed};
use kit::store::Store;
use kit::{Guest, ROOT};
use virtiofs_protocol::{Errno, Fh};

const MANY: usize = 3000;

fn stores() -> Vec<Store> {
    [Store::tmpfs, Store::ext4, Store::btrfs, Store::xfs]
        .into_iter()
        .filter_map(|make| make())
        .collect()
}

fn fill(store: &Store) {
    for number in 0..MANY {
        let name = format!("stays-{number:05}-with-a-name-of-some-length");
        std::fs::write(store.path().join(name), b"").expect("a store that can be written");
    }
}

fn stays(name: &[u8]) -> bool {
    name.starts_with(b"stays")
}

/// Lists on from a position to the end.
fn rest(guest: &Guest, directory: Fh, mut at: u64, size_bytes: usize) -> Vec<Listed> {
    let mut all = Vec::new();
    loop {
        let piece = guest.piece((ROOT, directory), at, size_bytes, Kind::Names);
        let piece = piece.expect("a directory");
        let Some(last) = piece.last() else { return all };
        at = last.next;
        all.extend(piece);
    }
}

/// readdir(3p): what is there all the time is told once, whatever comes and goes.
#[test]
fn what_stays_is_listed_once_while_others_come_and_go() {
    for store in stores() {
        fill(&store);
        let guest = Guest::on(store.path());
        for (kind, size_bytes) in [
            (Kind::Names, 4096),
            (Kind::LookedUp, 4096),
            (Kind::Names, 300),
        ] {
            let directory = guest.opendir(ROOT).unwrap();
            let (mut seen, mut at, mut round) = (BTreeMap::<Vec<u8>, usize>::new(), 0, 0);
            loop {
                let piece = guest
                    .piece((ROOT, directory), at, size_bytes, kind)
                    .unwrap();
                let Some(last) = piece.last() else { break };
                at = last.next;
                for entry in piece {
                    *seen.entry(entry.name).or_default() += 1;
                }
                let comes = store.path().join(format!("comes-{round}"));
                std::fs::write(comes, b"").unwrap();
                if round > 0 {
                    let goes = store.path().join(format!("comes-{}", round - 1));
                    std::fs::remove_file(goes).unwrap();
                }
                round += 1;
            }
            let stayed = seen.iter().filter(|(name, _)| stays(name));
            assert_eq!(stayed.clone().count(), MANY, "{kind:?}");
            assert!(stayed.clone().all(|(_, times)| *times == 1), "{kind:?}");
            std::fs::remove_file(store.path().join(format!("comes-{}", round - 1))).unwrap();
        }
    }
}

/// seekdir(3): a position that was told is the same place later, in this listing and the next one.
#[test]
fn every_position_leads_back_to_what_followed_it() {
    for store in stores() {
        fill(&store);
        let guest = Guest::on(store.path());
        let directory = guest.opendir(ROOT).unwrap();
        let all = rest(&guest, directory, 0, 4096);
        let stayed = all.iter().filter(|entry| stays(&entry.name));
        assert_eq!(stayed.count(), MANY);
        let positions: BTreeSet<u64> = all.iter().map(|entry| entry.next).collect();
        assert_eq!(positions.len(), all.len(), "each is different");
        for index in [MANY / 2, 7, MANY - 1, 0, 1234, 1235, 1233] {
            let again = rest(&guest, directory, all[index].next, 2000);
            assert_eq!(again, all[index + 1..], "after {index}");
        }
        let another = guest.opendir(ROOT).unwrap();
        let again = rest(&guest, another, all[2000].next, 4096);
        assert_eq!(again, all[2001..]);
    }
}

/// ext4 tells the hash of a name, whose half would be ambiguous.
#[test]
fn positions_have_64_bits() {
    let Some(store) = Store::ext4() else { return };
    fill(&store);
    let guest = Guest::on(store.path());
    let directory = guest.opendir(ROOT).unwrap();
    let all = rest(&guest, directory, 0, 4096);
    let (last, listed) = all.split_last().unwrap();
    assert!(listed.iter().all(|entry| entry.next > u32::MAX.into()));
    assert!(i64::try_from(last.next).is_ok(), "an offset of a file");
    for index in [1, MANY / 3, MANY - 2] {
        let again = rest(&guest, directory, all[index].next, 4096);
        assert_eq!(again, all[index + 1..]);
    }
}

#[test]
fn a_listing_from_the_start_shows_what_is_new_and_not_what_is_gone() {
    for store in stores() {
        fill(&store);
        let guest = Guest::on(store.path());
        let directory = guest.opendir(ROOT).unwrap();
        // Some of it was read ahead.
        guest.piece((ROOT, directory), 0, 500, Kind::Names).unwrap();
        let gone = store.path().join("stays-00000-with-a-name-of-some-length");
        std::fs::remove_file(gone).unwrap();
        std::fs::write(store.path().join("new"), b"").unwrap();
        let names: Vec<Vec<u8>> = rest(&guest, directory, 0, 4096)
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert!(names.contains(&b"new".to_vec()));
        assert_eq!(names.iter().filter(|name| stays(name)).count(), MANY - 1);
    }
}

/// The guest's nodes and ours must agree: an entry that is not in the reply was not counted.
#[test]
fn only_what_is_in_the_reply_is_counted() {
    let Some(store) = Store::tmpfs() else { return };
    for number in 0..100 {
        std::fs::write(store.path().join(format!("{number}")), b"").unwrap();
    }
    // One that is too small for an entry, and those that end anywhere inside of one.
    for size_bytes in (150..1000).step_by(7) {
        let guest = Guest::on(store.path());
        let directory = guest.opendir(ROOT).unwrap();
        let piece = guest
            .piece((ROOT, directory), 0, size_bytes, Kind::LookedUp)
            .unwrap();
        let counted: Vec<_> = piece.iter().filter_map(|entry| entry.node).collect();
        assert_eq!(
            guest.fs.known_inodes(),
            1 + u64::try_from(counted.len()).unwrap()
        );
        for node in counted {
            guest.forget(node, 1);
        }
        assert_eq!(guest.fs.known_inodes(), 1, "{size_bytes}");
    }
}

/// getdents64 fills 32 KiB of ours; replies of all sizes end before, in and behind that.
#[test]
fn replies_of_every_size_lose_nothing_and_double_nothing() {
    let Some(store) = Store::tmpfs() else { return };
    fill(&store);
    let guest = Guest::on(store.path());
    for size_bytes in [200, 1000, 4096, 32 << 10, 33_333, 128 << 10] {
        for kind in [Kind::Names, Kind::LookedUp] {
            let listed = guest.list(ROOT, size_bytes, kind).unwrap();
            let names: BTreeSet<Vec<u8>> = listed.iter().map(|entry| entry.name.clone()).collect();
            assert_eq!(
                (listed.len(), names.len()),
                (MANY, MANY),
                "{size_bytes} {kind:?}"
            );
        }
    }
}

#[test]
fn a_listing_tells_numbers_that_attributes_tell_too() {
    let Some(store) = Store::tmpfs() else { return };
    std::fs::create_dir(store.path().join("directory")).unwrap();
    std::fs::write(store.path().join("file"), b"").unwrap();
    let guest = Guest::on(store.path());
    for entry in guest.list(ROOT, 4096, Kind::LookedUp).unwrap() {
        let attributes = guest.getattr(entry.node.unwrap()).unwrap();
        assert_eq!(attributes.ino, entry.ino);
    }
    let file = guest.lookup(ROOT, "file").unwrap().node;
    assert_eq!(guest.opendir(file).map(drop), Err(Errno::NOTDIR));
}
