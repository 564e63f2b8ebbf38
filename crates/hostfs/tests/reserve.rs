//! The end of all descriptors. Alone in its process, whose limit it lowers.

mod kit;

use kit::{Guest, READ, ROOT, WRITE};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use virtiofs_protocol::Errno;

const FILES: usize = 200;

#[test]
fn without_descriptors_what_loses_its_name_is_kept_or_keeps_it() {
    let share = tempfile::tempdir().unwrap();
    for number in 0..FILES {
        std::fs::write(share.path().join(number.to_string()), number.to_string()).unwrap();
    }
    let guest = Guest::forgetful(share.path());
    let known: Vec<_> = (0..FILES)
        .map(|number| guest.lookup(ROOT, number.to_string()).unwrap().node)
        .collect();
    assert_eq!(guest.cool(), 0);
    let limit = Rlimit {
        current: Some(128),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut open = Vec::new();
    let full = loop {
        match guest.open(known[0], READ) {
            Ok(file) => open.push(file),
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, Errno::MFILE);
    // What is made needs one only to be looked at: nothing is made and then called a failure.
    guest.mkdir(ROOT, "directory").unwrap();
    guest.symlink(ROOT, "symlink", b"target").unwrap();
    assert_eq!(
        guest.create(ROOT, "created", WRITE).map(drop),
        Err(Errno::MFILE)
    );
    assert!(!share.path().join("created").exists());
    let mut removed = 0;
    let refused = loop {
        match guest.unlink(ROOT, &(removed + 1).to_string()) {
            Ok(()) => removed += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, Errno::NFILE);
    assert!(removed >= 16, "the reserve was for {removed}");
    for file in open {
        guest.release(known[0], file).unwrap();
    }
    // Nothing was lost: what has no name any more is held, what was refused has its name.
    for (number, node) in known.iter().enumerate() {
        assert_eq!(
            guest.contents(*node).unwrap(),
            number.to_string().as_bytes()
        );
        let name = share.path().join(number.to_string());
        assert_eq!(name.exists(), !(1..=removed).contains(&number), "{number}");
    }
}
