//! Names whatever their case: found by any spelling, kept in the host's.

mod kit;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kit::listing::Kind;
use kit::store::Store;
use kit::{Guest, READ, READ_WRITE, ROOT};
use rustix::fs::OFlags;
use virtiofs_hostfs::{CachePolicy, CaseFold, Options};
use virtiofs_protocol::{Errno, NodeId, RenameFlags, Validity};

const PLAIN: RenameFlags = RenameFlags::empty();

fn folding(path: &Path, casefold: CaseFold) -> Guest {
    let options = Options {
        casefold,
        ..Options::default()
    };
    Guest::with(path, options)
}

fn unicode(share: &tempfile::TempDir) -> Guest {
    folding(share.path(), CaseFold::Unicode)
}

fn write(share: &tempfile::TempDir, name: &str) {
    std::fs::write(share.path().join(name), name).expect("a share that can be written");
}

/// What the host has.
fn names(place: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(place).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

fn only(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_name_is_found_by_every_spelling_and_is_one_file() {
    let share = tempfile::tempdir().unwrap();
    write(&share, "Stra\u{df}e.TXT");
    let guest = unicode(&share);
    let exact = guest.lookup(ROOT, "Stra\u{df}e.TXT").unwrap();
    for spelling in ["stra\u{df}e.txt", "STRA\u{1e9e}E.TXT", "sTRa\u{df}e.Txt"] {
        let found = guest.lookup(ROOT, spelling).unwrap();
        assert_eq!(found.node, exact.node, "{spelling}");
    }
    assert_eq!(
        guest.lookup(ROOT, "strasse.txt").map(drop),
        Err(Errno::NOENT)
    );
    let ascii = folding(share.path(), CaseFold::Ascii);
    assert!(ascii.lookup(ROOT, "STRA\u{df}E.txt").is_ok());
    let other = ascii.lookup(ROOT, "STRA\u{1e9e}E.txt");
    assert_eq!(other.map(drop), Err(Errno::NOENT), "no letter of ASCII");
    let off = Guest::on(share.path());
    let other = off.lookup(ROOT, "stra\u{df}e.txt");
    assert_eq!(other.map(drop), Err(Errno::NOENT));
}

#[test]
fn the_exact_name_goes_first_and_then_the_first_in_byte_order() {
    let share = tempfile::tempdir().unwrap();
    let guest = unicode(&share);
    for name in ["readme", "ReadMe", "README"] {
        write(&share, name);
    }
    let contents = |spelling: &str| {
        let node = guest.lookup(ROOT, spelling).unwrap().node;
        String::from_utf8(guest.contents(node).unwrap()).unwrap()
    };
    for name in ["readme", "ReadMe", "README"] {
        assert_eq!(contents(name), name);
    }
    assert_eq!(contents("rEADmE"), "README");
    guest.unlink(ROOT, "rEADmE").unwrap();
    assert_eq!(names(share.path()), only(&["readme", "ReadMe"]));
    assert_eq!(contents("rEADmE"), "ReadMe");
}

#[test]
fn names_that_are_no_text_fold_their_ascii_letters() {
    let share = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"Caf\xe9");
    std::fs::write(share.path().join(name), b"").unwrap();
    let guest = unicode(&share);
    assert!(guest.lookup(ROOT, b"cAF\xe9").is_ok());
    assert_eq!(guest.lookup(ROOT, b"caf\xc9").map(drop), Err(Errno::NOENT));
}

#[test]
fn what_is_made_keeps_its_case_and_takes_no_name_that_is_there_in_another() {
    let share = tempfile::tempdir().unwrap();
    let guest = unicode(&share);
    let made = guest.mkdir(ROOT, "Documents").unwrap().node;
    assert_eq!(guest.mkdir(ROOT, "DOCUMENTS").map(drop), Err(Errno::EXIST));
    let symlink = guest.symlink(ROOT, "documents", b"x");
    assert_eq!(symlink.map(drop), Err(Errno::EXIST));
    let (file, open) = guest.create(made, "File", READ_WRITE).unwrap();
    guest.write(file.node, open, 0, b"bytes").unwrap();
    let exclusive = READ_WRITE | OFlags::EXCL.bits();
    let again = guest.create(made, "FILE", exclusive).map(drop);
    assert_eq!(again, Err(Errno::EXIST));
    let link = guest.link(file.node, made, "fILE").map(drop);
    assert_eq!(link, Err(Errno::EXIST));
    let (same, open) = guest.create(made, "FILE", READ_WRITE).unwrap();
    assert_eq!(same.node, file.node, "opened, as it is there");
    assert_eq!(guest.read(same.node, open, 0, 9).unwrap(), b"bytes");
    assert_eq!(names(share.path()), only(&["Documents"]));
    assert_eq!(names(&share.path().join("Documents")), only(&["File"]));
}

#[test]
fn a_listing_shows_the_hosts_names() {
    let share = tempfile::tempdir().unwrap();
    write(&share, "MiXed");
    let guest = unicode(&share);
    let node = guest.lookup(ROOT, "mixed").unwrap().node;
    for kind in [Kind::Names, Kind::LookedUp] {
        let listed = guest.list(ROOT, 4096, kind).unwrap();
        let names: Vec<_> = listed.iter().map(|entry| &entry.name[..]).collect();
        assert_eq!(names, [b"MiXed"]);
        let looked_up = listed.first().and_then(|entry| entry.node);
        assert!(looked_up.is_none_or(|listed| listed == node));
    }
}

#[test]
fn what_is_removed_by_another_spelling_outlives_its_name() {
    let share = tempfile::tempdir().unwrap();
    write(&share, "File");
    std::fs::create_dir(share.path().join("Directory")).unwrap();
    let options = Options {
        casefold: CaseFold::Unicode,
        descriptor_idle: std::time::Duration::ZERO,
        ..Options::default()
    };
    let guest = Guest::with(share.path(), options);
    // Known by another spelling than the host's, and by no descriptor.
    let file = guest.lookup(ROOT, "FILE").unwrap().node;
    assert_eq!(guest.cool(), 0, "found by the host's name");
    guest.unlink(ROOT, "file").unwrap();
    assert_eq!(guest.contents(file).unwrap(), b"File");
    assert_eq!(guest.unlink(ROOT, "FILE"), Err(Errno::NOENT));
    assert_eq!(guest.unlink(ROOT, "DIRECTORY"), Err(Errno::ISDIR));
    guest.rmdir(ROOT, "DIRECTORY").unwrap();
    assert_eq!(names(share.path()), only(&[]));
}

/// Each row: what is there, a rename with its flags, its result, and what is there then.
#[test]
fn renaming_changes_the_case_or_replaces_what_the_name_finds() {
    let (replace, exchange) = (RenameFlags::NOREPLACE, RenameFlags::EXCHANGE);
    type Row<'a> = (
        &'a [&'a str],
        (&'a str, &'a str, RenameFlags),
        Result<(), Errno>,
        &'a [&'a str],
    );
    let rows: &[Row<'_>] = &[
        (&["file"], ("file", "FILE", PLAIN), Ok(()), &["FILE"]),
        (&["file"], ("file", "FILE", replace), Ok(()), &["FILE"]),
        (&["file"], ("FILE", "File", PLAIN), Ok(()), &["File"]),
        (&["file"], ("FILE", "file", PLAIN), Ok(()), &["file"]),
        (&["file"], ("FILE", "fILE", exchange), Ok(()), &["file"]),
        (&["new", "Old"], ("NEW", "OLD", PLAIN), Ok(()), &["Old"]),
        (
            &["new", "Old"],
            ("new", "OLD", replace),
            Err(Errno::EXIST),
            &["new", "Old"],
        ),
        (
            &["new", "Old"],
            ("NEW", "OLD", exchange),
            Ok(()),
            &["new", "Old"],
        ),
        (
            &["new", "Old", "OLD"],
            ("new", "OLD", PLAIN),
            Ok(()),
            &["Old", "OLD"],
        ),
        (&["new"], ("NEW", "Other", PLAIN), Ok(()), &["Other"]),
        (
            &["new"],
            ("none", "Other", PLAIN),
            Err(Errno::NOENT),
            &["new"],
        ),
    ];
    for (before, (from, to, flags), want, after) in rows {
        let share = tempfile::tempdir().unwrap();
        before.iter().for_each(|name| write(&share, name));
        let guest = unicode(&share);
        let moved = guest.lookup(ROOT, from).map(|entry| entry.node);
        let done = guest.rename((ROOT, from), (ROOT, to), *flags);
        assert_eq!(done, *want, "{from} {to} {flags:?}");
        assert_eq!(names(share.path()), only(after), "{from} {to} {flags:?}");
        if done.is_ok() {
            // By every spelling of its new name it is the file that was moved.
            for spelling in [*to, &to.to_lowercase(), &to.to_uppercase()] {
                let exact = share.path().join(spelling).exists();
                if *spelling == **to || !exact {
                    let found = guest.lookup(ROOT, spelling).map(|entry| entry.node);
                    assert_eq!(found, moved, "{from} {to} {flags:?}: {spelling}");
                }
            }
        }
    }
}

#[test]
fn a_rename_into_another_directory_finds_both_names() {
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir(share.path().join("There")).unwrap();
    write(&share, "There/Same");
    write(&share, "same");
    let guest = unicode(&share);
    let there = guest.lookup(ROOT, "THERE").unwrap().node;
    let moved = guest.lookup(ROOT, "Same").unwrap().node;
    guest
        .rename((ROOT, "SAME"), (there, "SAME"), PLAIN)
        .unwrap();
    assert_eq!(names(share.path()), only(&["There"]));
    assert_eq!(names(&share.path().join("There")), only(&["Same"]));
    assert_eq!(guest.lookup(there, "same").unwrap().node, moved);
    assert_eq!(guest.contents(moved).unwrap(), b"same");
}

#[test]
fn what_the_host_makes_and_removes_is_seen_in_any_case() {
    let share = tempfile::tempdir().unwrap();
    let guest = unicode(&share);
    assert_eq!(guest.lookup(ROOT, "NEW").map(drop), Err(Errno::NOENT));
    // The clock of a directory's times stands still for a tick, at most 10 ms.
    std::thread::sleep(std::time::Duration::from_millis(50));
    write(&share, "new");
    assert!(guest.lookup(ROOT, "NEW").is_ok());
    std::fs::rename(share.path().join("new"), share.path().join("neW")).unwrap();
    assert!(guest.lookup(ROOT, "NEW").is_ok());
    std::fs::remove_file(share.path().join("neW")).unwrap();
    assert_eq!(guest.lookup(ROOT, "NEW").map(drop), Err(Errno::NOENT));
    assert!(guest.mkdir(ROOT, "NEW").is_ok());
    assert_eq!(names(share.path()), only(&["NEW"]));
}

/// What the guest changes is entered as it goes; what the host changes at that moment, within a second.
#[test]
fn a_name_of_the_host_hides_behind_changes_of_the_guest_for_a_second_at_most() {
    let share = tempfile::tempdir().unwrap();
    let guest = unicode(&share);
    let begun = std::time::Instant::now();
    let mut made = 0;
    write(&share, "theirs");
    while guest.lookup(ROOT, "THEIRS").is_err() {
        guest.mkdir(ROOT, &format!("Ours-{made}")).unwrap();
        assert!(guest.lookup(ROOT, format!("oURS-{made}")).is_ok());
        made += 1;
        assert!(begun.elapsed().as_secs() < 60, "never found");
    }
    // The exact name is asked of the host, whatever is remembered.
    write(&share, "exact");
    assert!(guest.lookup(ROOT, "exact").is_ok());
}

/// A guest's cache takes spellings for names of their own, so that it keeps neither what is there nor what is not.
#[test]
fn no_name_is_cached_where_it_may_be_spelled_otherwise() {
    let share = tempfile::tempdir().unwrap();
    write(&share, "file");
    for timeout in [None, Some(Validity { secs: 9, nanos: 0 })] {
        let options = Options {
            casefold: CaseFold::Unicode,
            cache: CachePolicy::Always,
            validity: timeout,
            ..Options::default()
        };
        let guest = Guest::with(share.path(), options);
        for spelling in ["file", "FILE"] {
            let entry = guest.lookup(ROOT, spelling).unwrap();
            assert_eq!(entry.entry_validity, Validity::default());
            assert!(entry.attr_validity.secs > 0, "attributes are one file's");
        }
        assert_eq!(guest.lookup(ROOT, "none").map(drop), Err(Errno::NOENT));
    }
}

/// Also says what the names of a large directory cost.
#[test]
fn a_large_directory_is_read_once_for_all_its_names() {
    let long = std::env::var_os("VIRTIOFSD_LONG").is_some();
    let count = if long { 100_000 } else { 2_000 };
    let Some(share) = Store::tmpfs() else { return };
    for number in 0..count {
        std::fs::write(share.path().join(format!("File-{number:06}")), b"").unwrap();
    }
    // Longer than the clock of a directory's times stands still.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let guest = folding(share.path(), CaseFold::Unicode);
    let timed = |what: &str, names: std::ops::Range<u32>, call: &dyn Fn(u32)| {
        let (begun, times) = (std::time::Instant::now(), names.len());
        names.for_each(call);
        let each = begun.elapsed() / u32::try_from(times).unwrap();
        println!("{what}: {each:?} each, in a directory of {count}");
    };
    let find = |name: String| guest.lookup(ROOT, name).unwrap();
    timed("the first in another case", 0..1, &|number| {
        find(format!("FILE-{number:06}"));
    });
    let found: BTreeSet<_> = (0..count)
        .map(|number| find(format!("fILE-{number:06}")).node.raw())
        .collect();
    assert_eq!(found.len(), usize::try_from(count).unwrap());
    timed("known, in its own case", 0..2000, &|number| {
        find(format!("File-{number:06}"));
    });
    timed("known, in another case", 0..2000, &|number| {
        find(format!("FILE-{number:06}"));
    });
    timed("not there", 0..2000, &|number| {
        let missing = guest.lookup(ROOT, format!("none-{number}")).map(drop);
        assert_eq!(missing, Err(Errno::NOENT));
    });
    timed("made", 0..2000, &|number| {
        guest.mkdir(ROOT, &format!("New-{number:06}")).unwrap();
    });
    timed("made before", 0..2000, &|number| {
        find(format!("NEW-{number:06}"));
    });
}

/// The name that comes out of a directory is one component, whatever the guest asks for.
#[test]
fn folding_leads_out_of_no_directory() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside, "secret");
    let share = tempfile::tempdir().unwrap();
    let link = share.path().join("Link");
    std::os::unix::fs::symlink(outside.path(), link).unwrap();
    let guest = unicode(&share);
    let link = guest.lookup(ROOT, "LINK").unwrap().node;
    assert!(guest.readlink(link).is_ok(), "the link itself");
    assert_eq!(guest.lookup(link, "SECRET").map(drop), Err(Errno::NOTDIR));
    assert_eq!(guest.mkdir(link, "NEW").map(drop), Err(Errno::NOTDIR));
    for name in ["../SECRET", "/SECRET", ".."] {
        assert!(guest.mkdir(ROOT, name).is_err(), "{name}");
        assert!(guest.unlink(ROOT, name).is_err(), "{name}");
    }
    assert_eq!(names(outside.path()), only(&["secret"]));
}

#[test]
fn an_open_file_is_reached_by_the_spelling_that_opened_it_and_every_other() {
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir(share.path().join("Deep")).unwrap();
    write(&share, "Deep/File");
    let guest = unicode(&share);
    let walk = |path: [&str; 2]| -> NodeId {
        let directory = guest.lookup(ROOT, path[0]).unwrap().node;
        guest.lookup(directory, path[1]).unwrap().node
    };
    let node = walk(["DEEP", "FILE"]);
    assert_eq!(node, walk(["deep", "file"]));
    let file = guest.open(node, READ).unwrap();
    std::fs::rename(share.path().join("Deep"), share.path().join("DEEP")).unwrap();
    assert_eq!(node, walk(["deep", "file"]), "the host changed the case");
    assert_eq!(guest.read(node, file, 0, 9).unwrap(), b"Deep/File");
}
