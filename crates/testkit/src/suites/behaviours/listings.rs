//! Directories read entry by entry (man 3 readdir, man 2 getdents).

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, mkfifoat, rename, seek, symlink, unlink};

use super::kit::*;

super::checks!("listings":
    an_empty_directory_has_dots, the_dots_are_this_and_the_parent, each_name_is_there_once,
    many_names_in_small_pieces, each_kind_is_told, numbers_are_those_of_stat,
    positions_lead_back, every_position_leads_on, the_start_is_seen_anew, the_end_stays_the_end,
    what_stays_is_listed_once_while_others_go, what_stays_is_listed_once_while_others_come,
    all_are_removed_while_listing, renamed_while_listing, a_removed_directory_is_empty,
    a_file_is_not_listed, without_permission_not_opened, with_search_only_not_listed,
    two_descriptors_are_apart, a_duplicate_shares_the_position, a_child_shares_the_position,
    a_buffer_that_is_too_small, long_names_are_whole, names_of_any_bytes,
    a_new_name_is_seen_after_rewinding, a_removed_name_is_gone_after_rewinding, a_deep_tree,
);

/// A name, its kind, its number and where the next entry is.
type Entry = (String, FileType, u64, u64);

/// The next entries, as many as fit into so many bytes.
fn piece(directory: &OwnedFd, bytes: usize) -> Result<Vec<Entry>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); bytes];
    let mut raw = RawDir::new(directory, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        entries.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.file_type(),
            entry.ino(),
            entry.next_entry_cookie(),
        ));
        if raw.is_buffer_empty() {
            break;
        }
    }
    Ok(entries)
}

/// All that follow, without the dots.
fn rest(directory: &OwnedFd, bytes: usize) -> Result<Vec<Entry>, Errno> {
    let mut all = Vec::new();
    loop {
        let entries = piece(directory, bytes)?;
        if entries.is_empty() {
            return Ok(all);
        }
        all.extend(
            entries
                .into_iter()
                .filter(|(name, ..)| name != "." && name != ".."),
        );
    }
}

fn names(entries: &[Entry]) -> Vec<&str> {
    let mut names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
    names.sort_unstable();
    names
}

fn opened(name: &str) -> Outcome<OwnedFd> {
    Ok(open(name, OFlags::RDONLY | OFlags::DIRECTORY)?)
}

/// `d` with so many files.
fn filled(count: usize) -> Outcome<(OwnedFd, Vec<String>)> {
    dir("d")?;
    let mut made = Vec::new();
    for number in 0..count {
        let name = format!("name-{number:04}");
        new(&format!("d/{name}"))?;
        made.push(name);
    }
    Ok((opened("d")?, made))
}

fn an_empty_directory_has_dots() -> Outcome {
    dir("d")?;
    let found = piece(&opened("d")?, 4096)?;
    is(names(&found), vec![".", ".."])
}

fn the_dots_are_this_and_the_parent() -> Outcome {
    dir("d")?;
    for (name, kind, inode, _) in piece(&opened("d")?, 4096)? {
        let want = of(if name == "." { "d" } else { "." })?.st_ino;
        is((kind, inode), (FileType::Directory, want))?;
    }
    Ok(())
}

fn each_name_is_there_once() -> Outcome {
    let (directory, made) = filled(100)?;
    is(
        names(&rest(&directory, 65536)?),
        made.iter().map(String::as_str).collect(),
    )
}

fn many_names_in_small_pieces() -> Outcome {
    let (directory, made) = filled(1500)?;
    is(
        names(&rest(&directory, 300)?),
        made.iter().map(String::as_str).collect(),
    )
}

fn each_kind_is_told() -> Outcome {
    dir("d")?;
    new("d/file")?;
    dir("d/directory")?;
    symlink("x", "d/symlink")?;
    mkfifoat(CWD, "d/fifo", mode(0o600))?;
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        "d/device",
        FileType::CharacterDevice,
        mode(0o600),
        device,
    )?;
    rustix::fs::mknodat(CWD, "d/socket", FileType::Socket, mode(0o600), 0)?;
    let found = rest(&opened("d")?, 4096)?;
    let mut found: Vec<_> = found
        .iter()
        .map(|(name, kind, ..)| (name.as_str(), *kind))
        .collect();
    found.sort_by_key(|(name, _)| *name);
    is(
        found,
        vec![
            ("device", FileType::CharacterDevice),
            ("directory", FileType::Directory),
            ("fifo", FileType::Fifo),
            ("file", FileType::RegularFile),
            ("socket", FileType::Socket),
            ("symlink", FileType::Symlink),
        ],
    )
}

fn numbers_are_those_of_stat() -> Outcome {
    let (directory, _) = filled(20)?;
    for (name, _, inode, _) in rest(&directory, 4096)? {
        is(inode, of(&format!("d/{name}"))?.st_ino)?;
    }
    Ok(())
}

fn positions_lead_back() -> Outcome {
    let (directory, _) = filled(300)?;
    let first = piece(&directory, 1000)?;
    let position = first.last().map_or(0, |entry| entry.3);
    let after = rest(&directory, 4096)?;
    seek(&directory, SeekFrom::Start(position))?;
    is(names(&rest(&directory, 4096)?), names(&after))
}

fn every_position_leads_on() -> Outcome {
    let (directory, _) = filled(60)?;
    let all = rest(&directory, 65536)?;
    for (number, (.., position)) in all.iter().enumerate() {
        seek(&directory, SeekFrom::Start(*position))?;
        is(names(&rest(&directory, 400)?), names(&all[number + 1..]))?;
    }
    Ok(())
}

fn the_start_is_seen_anew() -> Outcome {
    let (directory, made) = filled(30)?;
    for _ in 0..3 {
        seek(&directory, SeekFrom::Start(0))?;
        is(rest(&directory, 500)?.len(), made.len())?;
    }
    Ok(())
}

fn the_end_stays_the_end() -> Outcome {
    let (directory, _) = filled(30)?;
    rest(&directory, 500)?;
    is(
        (piece(&directory, 500)?, piece(&directory, 500)?),
        (vec![], vec![]),
    )
}

/// The names that were there all the time.
fn staying(found: Vec<Entry>, stays: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found: Vec<String> = found.into_iter().map(|(name, ..)| name).collect();
    found.retain(|name| stays(name));
    found.sort();
    found
}

fn what_stays_is_listed_once_while_others_go() -> Outcome {
    let (directory, made) = filled(400)?;
    let mut found = piece(&directory, 1000)?;
    let stays = |name: &str| name.ends_with(['0', '5']);
    for name in made.iter().filter(|name| !stays(name)) {
        unlink(format!("d/{name}"))?;
    }
    found.extend(rest(&directory, 1000)?);
    let want: Vec<String> = made.iter().filter(|name| stays(name)).cloned().collect();
    is(staying(found, stays), want)
}

fn what_stays_is_listed_once_while_others_come() -> Outcome {
    let (directory, made) = filled(400)?;
    let mut found = piece(&directory, 1000)?;
    for number in 0..400 {
        new(&format!("d/other-{number:04}"))?;
    }
    found.extend(rest(&directory, 1000)?);
    is(staying(found, |name| name.starts_with("name-")), made)
}

fn all_are_removed_while_listing() -> Outcome {
    let (directory, _) = filled(400)?;
    loop {
        let entries = piece(&directory, 600)?;
        if entries.is_empty() {
            break;
        }
        for (name, ..) in entries
            .iter()
            .filter(|(name, ..)| name.starts_with("name-"))
        {
            unlink(format!("d/{name}"))?;
        }
    }
    Ok(rustix::fs::rmdir("d")?)
}

fn renamed_while_listing() -> Outcome {
    let (directory, made) = filled(200)?;
    let mut found = piece(&directory, 1000)?;
    let moves = |name: &str| name.ends_with('3');
    for name in made.iter().filter(|name| moves(name)) {
        rename(format!("d/{name}"), format!("d/moved-{name}"))?;
    }
    found.extend(rest(&directory, 1000)?);
    let want: Vec<String> = made.iter().filter(|name| !moves(name)).cloned().collect();
    is(
        staying(found, |name| name.starts_with("name-") && !moves(name)),
        want,
    )
}

fn a_removed_directory_is_empty() -> Outcome {
    dir("d")?;
    let directory = opened("d")?;
    rustix::fs::rmdir("d")?;
    match piece(&directory, 4096) {
        Ok(entries) => is(rest_of(entries), 0),
        listed => refused(listed, Errno::NOENT),
    }
}

fn rest_of(entries: Vec<Entry>) -> usize {
    staying(entries, |name| name != "." && name != "..").len()
}

fn a_file_is_not_listed() -> Outcome {
    new("f")?;
    let file = open("f", OFlags::RDONLY)?;
    refused(piece(&file, 4096), Errno::NOTDIR)
}

fn without_permission_not_opened() -> Outcome {
    given_dir("d", ALICE, 0o711)?;
    as_user(BOB, || refused(open("d", OFlags::RDONLY), Errno::ACCESS))
}

fn with_search_only_not_listed() -> Outcome {
    given_dir("d", ALICE, 0o711)?;
    given("d/f", BOB, 0o600)?;
    as_user(BOB, || is(std::fs::read("d/f")?, b"ab".to_vec()))
}

fn two_descriptors_are_apart() -> Outcome {
    let (one, made) = filled(100)?;
    let other = opened("d")?;
    piece(&one, 1000)?;
    is(rest(&other, 1000)?.len(), made.len())
}

fn a_duplicate_shares_the_position() -> Outcome {
    let (one, made) = filled(100)?;
    let other = rustix::io::dup(&one)?;
    let first = piece(&one, 1000)?;
    is(rest_of(first) + rest(&other, 1000)?.len(), made.len())?;
    is(piece(&one, 1000)?, vec![])
}

fn a_child_shares_the_position() -> Outcome {
    let (directory, _) = filled(100)?;
    in_child(|| rest(&directory, 1000).map(drop).map_err(Into::into))?;
    is(piece(&directory, 1000)?, vec![])
}

fn a_buffer_that_is_too_small() -> Outcome {
    dir("d")?;
    new(&format!("d/{}", "n".repeat(200)))?;
    let directory = opened("d")?;
    refused(rest(&directory, 100), Errno::INVAL)
}

fn long_names_are_whole() -> Outcome {
    dir("d")?;
    let long: Vec<String> = (0..20).map(|number| format!("{number:0255}")).collect();
    for name in &long {
        new(&format!("d/{name}"))?;
    }
    is(
        names(&rest(&opened("d")?, 1000)?),
        long.iter().map(String::as_str).collect(),
    )
}

fn names_of_any_bytes() -> Outcome {
    dir("d")?;
    let odd = [
        " ",
        "\n",
        "-",
        "...",
        "\u{1}",
        "\\",
        "*",
        "\u{e4}\u{f6}",
        "a b",
        ".hidden",
    ];
    for name in odd {
        new(&format!("d/{name}"))?;
    }
    let found = rest(&opened("d")?, 4096)?;
    let found: BTreeSet<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    is(found, BTreeSet::from(odd))
}

fn a_new_name_is_seen_after_rewinding() -> Outcome {
    let (directory, made) = filled(5)?;
    rest(&directory, 4096)?;
    new("d/another")?;
    seek(&directory, SeekFrom::Start(0))?;
    is(rest(&directory, 4096)?.len(), made.len() + 1)
}

fn a_removed_name_is_gone_after_rewinding() -> Outcome {
    let (directory, made) = filled(5)?;
    rest(&directory, 4096)?;
    unlink("d/name-0002")?;
    seek(&directory, SeekFrom::Start(0))?;
    is(rest(&directory, 4096)?.len(), made.len() - 1)
}

fn a_deep_tree() -> Outcome {
    let mut path = String::from("d");
    for _ in 0..100 {
        dir(&path)?;
        path.push_str("/d");
    }
    with(&path, b"deep")?;
    is(std::fs::read(&path)?, b"deep".to_vec())?;
    is(of(&path.replacen("d/", "d/../d/", 40))?.st_size, 4)
}
