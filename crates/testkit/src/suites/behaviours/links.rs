//! Hard links, and names that go (man 2 link, man 2 unlink, man 2 rmdir).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{fstat, link, linkat, rmdir, symlink, unlink};

use super::kit::*;

super::checks!("links":
    a_link_is_the_same_file, links_are_counted, a_link_outlives_the_first_name,
    a_link_onto_a_name_is_refused, a_directory_has_no_second_name, what_is_not_there_is_not_linked,
    a_symlink_is_linked_itself, a_symlink_is_followed_on_demand, a_fifo_is_linked,
    a_device_is_linked, a_link_shows_in_ctime, a_link_shows_in_the_directory,
    losing_a_name_shows_in_ctime, through_an_open_file, through_its_number_in_proc,
    of_a_file_that_lost_its_names_none, unknown_flags_are_refused, into_where_one_may_not_write,
    beside_a_strangers_file, a_trailing_slash_is_refused, many_links, between_directories,
    unlinking_a_directory_is_refused, removing_a_file_as_directory_is_refused,
    removing_what_is_not_empty_is_refused, removing_what_is_not_there_is_refused,
    removing_dots_is_refused, removing_with_a_slash, a_removed_directory_takes_nothing,
    a_removed_working_directory, a_removed_directory_has_no_links, removing_counts_links_down,
    removing_shows_in_the_directory, a_read_only_file_is_removed,
    where_one_may_not_write_nothing_is_removed,
);

fn a_link_is_the_same_file() -> Outcome {
    let file = with("a", b"a")?;
    link("a", "b")?;
    is(of("a")?.st_ino, of("b")?.st_ino)?;
    put(&file, b"more", 1)?;
    drop(file);
    is(std::fs::read("b")?, b"amore".to_vec())
}

fn links_are_counted() -> Outcome {
    new("a")?;
    is(of("a")?.st_nlink, 1)?;
    link("a", "b")?;
    link("b", "c")?;
    is((of("a")?.st_nlink, of("c")?.st_nlink), (3, 3))?;
    unlink("b")?;
    is((of("a")?.st_nlink, of("c")?.st_nlink), (2, 2))
}

fn a_link_outlives_the_first_name() -> Outcome {
    with("a", b"a")?;
    link("a", "b")?;
    unlink("a")?;
    is(std::fs::read("b")?, b"a".to_vec())
}

fn a_link_onto_a_name_is_refused() -> Outcome {
    new("a")?;
    new("b")?;
    refused(link("a", "b"), Errno::EXIST)?;
    refused(link("a", "a"), Errno::EXIST)?;
    symlink("nowhere", "s")?;
    refused(link("a", "s"), Errno::EXIST)
}

fn a_directory_has_no_second_name() -> Outcome {
    dir("d")?;
    refused(link("d", "e"), Errno::PERM)
}

fn what_is_not_there_is_not_linked() -> Outcome {
    new("a")?;
    refused(link("b", "c"), Errno::NOENT)?;
    refused(link("a", "none/c"), Errno::NOENT)?;
    refused(link("a", "a/c"), Errno::NOTDIR)
}

fn a_symlink_is_linked_itself() -> Outcome {
    new("a")?;
    symlink("a", "s")?;
    link("s", "t")?;
    is(of("t")?.st_mode & 0o170_000, 0o120_000)?;
    is((of("s")?.st_nlink, of("a")?.st_nlink), (2, 1))
}

fn a_symlink_is_followed_on_demand() -> Outcome {
    new("a")?;
    symlink("a", "s")?;
    linkat(CWD, "s", CWD, "t", AtFlags::SYMLINK_FOLLOW)?;
    is(of("t")?.st_ino, of("a")?.st_ino)
}

fn a_fifo_is_linked() -> Outcome {
    rustix::fs::mkfifoat(CWD, "p", mode(0o600))?;
    link("p", "q")?;
    is((of("p")?.st_ino, of("p")?.st_nlink), (of("q")?.st_ino, 2))
}

fn a_device_is_linked() -> Outcome {
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        "n",
        rustix::fs::FileType::CharacterDevice,
        mode(0o600),
        device,
    )?;
    link("n", "m")?;
    is((of("m")?.st_rdev, of("n")?.st_nlink), (device, 2))
}

fn a_link_shows_in_ctime() -> Outcome {
    new("a")?;
    make_old("a")?;
    changes("a", || Ok(link("a", "b")?))?;
    is(modified("a")?, false)
}

fn a_link_shows_in_the_directory() -> Outcome {
    new("a")?;
    dir("d")?;
    make_old("d")?;
    link("a", "d/b")?;
    is(modified("d")?, true)
}

fn losing_a_name_shows_in_ctime() -> Outcome {
    new("a")?;
    link("a", "b")?;
    changes("a", || Ok(unlink("b")?))
}

fn through_an_open_file() -> Outcome {
    let file = new("a")?;
    linkat(&file, "", CWD, "b", AtFlags::EMPTY_PATH)?;
    is((of("b")?.st_ino, of("b")?.st_nlink), (of("a")?.st_ino, 2))
}

fn in_proc(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn through_its_number_in_proc() -> Outcome {
    let file = new("a")?;
    linkat(CWD, in_proc(&file), CWD, "b", AtFlags::SYMLINK_FOLLOW)?;
    is(of("b")?.st_ino, of("a")?.st_ino)
}

fn of_a_file_that_lost_its_names_none() -> Outcome {
    let file = new("a")?;
    unlink("a")?;
    let linked = linkat(CWD, in_proc(&file), CWD, "b", AtFlags::SYMLINK_FOLLOW);
    refused(linked, Errno::NOENT)
}

fn unknown_flags_are_refused() -> Outcome {
    new("a")?;
    refused(linkat(CWD, "a", CWD, "b", AtFlags::REMOVEDIR), Errno::INVAL)
}

fn into_where_one_may_not_write() -> Outcome {
    given_dir("d", BOB, 0o755)?;
    given("a", ALICE, 0o666)?;
    as_user(ALICE, || refused(link("a", "d/b"), Errno::ACCESS))
}

/// Granted or not by `fs.protected_hardlinks`, but never with another count than the names.
fn beside_a_strangers_file() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    given("d/a", BOB, 0o600)?;
    let linked = as_user(ALICE, || Ok(link("d/a", "d/b")))?;
    if linked.is_err() {
        refused(linked, Errno::PERM)?;
    }
    is(of("d/a")?.st_nlink, 1 + u64::from(exists("d/b")))
}

fn a_trailing_slash_is_refused() -> Outcome {
    new("a")?;
    refused_as(link("a", "b/"), &[Errno::NOENT, Errno::NOTDIR])?;
    refused(link("a/", "b"), Errno::NOTDIR)
}

fn many_links() -> Outcome {
    new("a")?;
    for number in 0..200 {
        link("a", format!("b{number}"))?;
    }
    is(of("a")?.st_nlink, 201)?;
    for number in 0..200 {
        unlink(format!("b{number}"))?;
    }
    is(of("a")?.st_nlink, 1)
}

fn between_directories() -> Outcome {
    dir("d")?;
    dir("e")?;
    with("d/a", b"a")?;
    link("d/a", "e/b")?;
    unlink("d/a")?;
    is(std::fs::read("e/b")?, b"a".to_vec())
}

fn unlinking_a_directory_is_refused() -> Outcome {
    dir("d")?;
    refused_as(unlink("d"), &[Errno::ISDIR, Errno::PERM])
}

fn removing_a_file_as_directory_is_refused() -> Outcome {
    new("f")?;
    symlink(".", "s")?;
    refused(rmdir("f"), Errno::NOTDIR)?;
    refused(rmdir("s"), Errno::NOTDIR)
}

fn removing_what_is_not_empty_is_refused() -> Outcome {
    dir("d")?;
    new("d/f")?;
    refused_as(rmdir("d"), &[Errno::NOTEMPTY, Errno::EXIST])?;
    unlink("d/f")?;
    Ok(rmdir("d")?)
}

fn removing_what_is_not_there_is_refused() -> Outcome {
    refused(unlink("f"), Errno::NOENT)?;
    refused(rmdir("d"), Errno::NOENT)?;
    new("f")?;
    refused(unlink("f/f"), Errno::NOTDIR)
}

fn removing_dots_is_refused() -> Outcome {
    dir("d")?;
    refused(rmdir("d/."), Errno::INVAL)?;
    refused(rmdir("d/.."), Errno::NOTEMPTY)
}

fn removing_with_a_slash() -> Outcome {
    dir("d")?;
    rmdir("d/")?;
    new("f")?;
    refused(unlink("f/"), Errno::NOTDIR)
}

fn a_removed_directory_takes_nothing() -> Outcome {
    dir("d")?;
    let directory = open("d", OFlags::DIRECTORY)?;
    rmdir("d")?;
    let made = rustix::fs::openat(&directory, "f", OFlags::CREATE | OFlags::RDWR, mode(0o600));
    refused(made, Errno::NOENT)?;
    refused(
        rustix::fs::mkdirat(&directory, "d", mode(0o700)),
        Errno::NOENT,
    )
}

fn a_removed_working_directory() -> Outcome {
    dir("d")?;
    rustix::process::chdir("d")?;
    rmdir("../d")?;
    refused(rustix::process::getcwd(Vec::new()), Errno::NOENT)?;
    refused(new("f").map_err(|_| Errno::NOENT), Errno::NOENT)?;
    is(rustix::fs::stat(".")?.st_mode & 0o170_000, 0o040_000)
}

fn a_removed_directory_has_no_links() -> Outcome {
    dir("d")?;
    let directory = open("d", OFlags::DIRECTORY)?;
    rmdir("d")?;
    is(fstat(&directory)?.st_nlink, 0)
}

fn removing_counts_links_down() -> Outcome {
    dir("d")?;
    let empty = of("d")?.st_nlink;
    dir("d/a")?;
    dir("d/b")?;
    rmdir("d/a")?;
    rmdir("d/b")?;
    is(of("d")?.st_nlink, empty)
}

fn removing_shows_in_the_directory() -> Outcome {
    dir("d")?;
    new("d/f")?;
    make_old("d")?;
    unlink("d/f")?;
    is(modified("d")?, true)
}

fn a_read_only_file_is_removed() -> Outcome {
    given_dir("d", ALICE, 0o755)?;
    given("d/f", BOB, 0o400)?;
    as_user(ALICE, || Ok(unlink("d/f")?))
}

fn where_one_may_not_write_nothing_is_removed() -> Outcome {
    given_dir("d", ALICE, 0o755)?;
    given("d/f", BOB, 0o666)?;
    given_dir("d/d", BOB, 0o777)?;
    as_user(BOB, || {
        refused(unlink("d/f"), Errno::ACCESS)?;
        refused(rmdir("d/d"), Errno::ACCESS)
    })
}
