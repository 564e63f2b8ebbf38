//! Renaming, and what it does to both names (man 2 rename).

use rustix::fs::{link, rename, symlink};

use super::kit::*;

super::checks!("renames":
    the_old_name_is_gone, a_file_replaces_a_file, what_is_replaced_lives_while_it_is_open,
    what_is_renamed_is_still_open, two_names_of_one_file_both_stay, a_name_onto_itself,
    a_directory_replaces_an_empty_one, a_directory_that_is_not_empty_stays,
    a_file_does_not_replace_a_directory, a_directory_does_not_replace_a_file,
    nothing_moves_below_itself, nothing_replaces_what_it_is_in, what_is_not_there_is_not_renamed,
    dots_are_not_renamed, a_symlink_moves_itself, a_symlink_is_replaced_itself,
    a_trailing_slash_needs_a_directory, between_directories, a_directory_has_a_new_parent,
    links_are_counted_of_parents, directories_show_it_in_their_times, the_file_shows_it_in_ctime,
    the_files_mtime_stays, a_replaced_files_links_go, from_where_one_may_not_write,
    into_where_one_may_not_write, a_strangers_file_from_a_sticky_directory,
    over_a_strangers_file_in_a_sticky_directory,
    a_directory_that_one_may_not_write_keeps_its_parent, a_name_of_255_bytes,
    a_name_that_is_too_long, an_open_directory_moves_with_its_name, the_working_directory_moves,
    a_device_and_a_fifo_are_renamed, many_renames_leave_one,
);

fn the_old_name_is_gone() -> Outcome {
    with("a", b"a")?;
    rename("a", "b")?;
    is((exists("a"), text("b")?), (false, "a".to_owned()))
}

fn a_file_replaces_a_file() -> Outcome {
    two()?;
    let inode = of("a")?.st_ino;
    rename("a", "b")?;
    is((exists("a"), text("b")?), (false, "a".to_owned()))?;
    is(of("b")?.st_ino, inode)
}

fn what_is_replaced_lives_while_it_is_open() -> Outcome {
    two()?;
    let replaced = open("b", OFlags::RDWR)?;
    rename("a", "b")?;
    is(get(&replaced, 9, 0)?, b"b".to_vec())?;
    put(&replaced, b"more", 1)?;
    is(get(&replaced, 9, 0)?, b"bmore".to_vec())?;
    is(rustix::fs::fstat(&replaced)?.st_nlink, 0)?;
    is(text("b")?, "a".to_owned())
}

fn what_is_renamed_is_still_open() -> Outcome {
    let file = with("a", b"a")?;
    rename("a", "b")?;
    put(&file, b"more", 1)?;
    is(text("b")?, "amore".to_owned())?;
    is(rustix::fs::fstat(&file)?.st_nlink, 1)
}

fn two_names_of_one_file_both_stay() -> Outcome {
    with("a", b"a")?;
    link("a", "b")?;
    rename("a", "b")?;
    is(
        (exists("a"), exists("b"), of("a")?.st_nlink),
        (true, true, 2),
    )
}

fn a_name_onto_itself() -> Outcome {
    with("a", b"a")?;
    rename("a", "a")?;
    is(text("a")?, "a".to_owned())
}

fn a_directory_replaces_an_empty_one() -> Outcome {
    dir("a")?;
    with("a/f", b"f")?;
    dir("b")?;
    rename("a", "b")?;
    is((exists("a"), text("b/f")?), (false, "f".to_owned()))
}

fn a_directory_that_is_not_empty_stays() -> Outcome {
    dir("a")?;
    dir("b")?;
    with("b/f", b"f")?;
    refused_as(rename("a", "b"), &[Errno::NOTEMPTY, Errno::EXIST])?;
    is((exists("a"), exists("b/f")), (true, true))
}

fn a_file_does_not_replace_a_directory() -> Outcome {
    new("a")?;
    dir("b")?;
    refused(rename("a", "b"), Errno::ISDIR)
}

fn a_directory_does_not_replace_a_file() -> Outcome {
    dir("a")?;
    new("b")?;
    refused(rename("a", "b"), Errno::NOTDIR)
}

fn nothing_moves_below_itself() -> Outcome {
    dir("a")?;
    dir("a/b")?;
    refused(rename("a", "a/b/c"), Errno::INVAL)?;
    refused(rename("a", "a/c"), Errno::INVAL)
}

fn nothing_replaces_what_it_is_in() -> Outcome {
    dir("a")?;
    dir("a/b")?;
    refused_as(rename("a/b", "a"), &[Errno::NOTEMPTY, Errno::EXIST])
}

fn what_is_not_there_is_not_renamed() -> Outcome {
    new("b")?;
    refused(rename("a", "b"), Errno::NOENT)?;
    refused(rename("b", "none/b"), Errno::NOENT)?;
    is(exists("b"), true)
}

fn dots_are_not_renamed() -> Outcome {
    dir("a")?;
    refused_as(rename("a/.", "b"), &[Errno::BUSY, Errno::INVAL])?;
    refused_as(rename("a/..", "b"), &[Errno::BUSY, Errno::INVAL])?;
    refused_as(
        rename("a", "b/."),
        &[Errno::BUSY, Errno::INVAL, Errno::NOENT],
    )
}

fn a_symlink_moves_itself() -> Outcome {
    with("f", b"f")?;
    symlink("f", "a")?;
    rename("a", "b")?;
    is(rustix::fs::readlink("b", Vec::new())?, c"f".to_owned())?;
    is((exists("a"), exists("f")), (false, true))
}

fn a_symlink_is_replaced_itself() -> Outcome {
    two()?;
    symlink("b", "s")?;
    rename("a", "s")?;
    is((text("s")?, text("b")?), ("a".to_owned(), "b".to_owned()))
}

fn a_trailing_slash_needs_a_directory() -> Outcome {
    new("a")?;
    refused(rename("a", "b/"), Errno::NOTDIR)?;
    refused(rename("a/", "b"), Errno::NOTDIR)?;
    dir("d")?;
    rename("d/", "e/")?;
    is(exists("e"), true)
}

fn between_directories() -> Outcome {
    dir("a")?;
    dir("b")?;
    with("a/f", b"f")?;
    rename("a/f", "b/g")?;
    is((exists("a/f"), text("b/g")?), (false, "f".to_owned()))
}

fn a_directory_has_a_new_parent() -> Outcome {
    dir("a")?;
    dir("b")?;
    dir("a/d")?;
    rename("a/d", "b/d")?;
    is(of("b/d/..")?.st_ino, of("b")?.st_ino)
}

fn links_are_counted_of_parents() -> Outcome {
    dir("a")?;
    dir("b")?;
    let empty = of("b")?.st_nlink;
    dir("a/d")?;
    let full = of("a")?.st_nlink;
    rename("a/d", "b/d")?;
    is((of("a")?.st_nlink, of("b")?.st_nlink), (empty, full))
}

fn directories_show_it_in_their_times() -> Outcome {
    dir("a")?;
    dir("b")?;
    with("a/f", b"f")?;
    make_old("a")?;
    make_old("b")?;
    rename("a/f", "b/f")?;
    is((modified("a")?, modified("b")?), (true, true))
}

fn the_file_shows_it_in_ctime() -> Outcome {
    with("a", b"a")?;
    changes_into("a", "b", || Ok(rename("a", "b")?))
}

fn the_files_mtime_stays() -> Outcome {
    with("a", b"a")?;
    make_old("a")?;
    rename("a", "b")?;
    is(modified("b")?, false)
}

fn a_replaced_files_links_go() -> Outcome {
    two()?;
    link("b", "c")?;
    rename("a", "b")?;
    is((of("c")?.st_nlink, text("c")?), (1, "b".to_owned()))
}

fn from_where_one_may_not_write() -> Outcome {
    given_dir("a", BOB, 0o755)?;
    given_dir("b", ALICE, 0o755)?;
    given("a/f", ALICE, 0o644)?;
    as_user(ALICE, || refused(rename("a/f", "b/f"), Errno::ACCESS))
}

fn into_where_one_may_not_write() -> Outcome {
    given_dir("a", ALICE, 0o755)?;
    given_dir("b", BOB, 0o755)?;
    given("a/f", ALICE, 0o644)?;
    as_user(ALICE, || refused(rename("a/f", "b/f"), Errno::ACCESS))
}

fn a_strangers_file_from_a_sticky_directory() -> Outcome {
    given_dir("d", User { uid: 0, ..ALICE }, 0o1777)?;
    given("d/f", BOB, 0o666)?;
    as_user(ALICE, || {
        refused_as(rename("d/f", "d/g"), &[Errno::PERM, Errno::ACCESS])
    })?;
    as_user(BOB, || Ok(rename("d/f", "d/g")?))
}

fn over_a_strangers_file_in_a_sticky_directory() -> Outcome {
    given_dir("d", User { uid: 0, ..ALICE }, 0o1777)?;
    given("d/f", BOB, 0o666)?;
    given("d/g", ALICE, 0o666)?;
    as_user(ALICE, || {
        refused_as(rename("d/g", "d/f"), &[Errno::PERM, Errno::ACCESS])
    })
}

/// Its `..` is a name in it.
fn a_directory_that_one_may_not_write_keeps_its_parent() -> Outcome {
    given_dir("a", ALICE, 0o755)?;
    given_dir("b", ALICE, 0o755)?;
    given_dir("a/d", BOB, 0o755)?;
    as_user(ALICE, || {
        refused(rename("a/d", "b/d"), Errno::ACCESS)?;
        Ok(rename("a/d", "a/e")?)
    })
}

fn a_name_of_255_bytes() -> Outcome {
    with("a", b"a")?;
    let name = "n".repeat(255);
    rename("a", &name)?;
    is(text(&name)?, "a".to_owned())
}

fn a_name_that_is_too_long() -> Outcome {
    with("a", b"a")?;
    refused(rename("a", "n".repeat(256)), Errno::NAMETOOLONG)
}

fn an_open_directory_moves_with_its_name() -> Outcome {
    dir("a")?;
    let directory = open("a", OFlags::DIRECTORY)?;
    rename("a", "b")?;
    rustix::fs::mkdirat(&directory, "d", mode(0o755))?;
    is(exists("b/d"), true)
}

fn the_working_directory_moves() -> Outcome {
    dir("a")?;
    rustix::process::chdir("a")?;
    rename("../a", "../b")?;
    new("f")?;
    is(exists("../b/f"), true)
}

fn a_device_and_a_fifo_are_renamed() -> Outcome {
    rustix::fs::mkfifoat(CWD, "p", mode(0o600))?;
    rename("p", "q")?;
    is(of("q")?.st_mode & 0o170_000, 0o010_000)
}

fn many_renames_leave_one() -> Outcome {
    with("0", b"x")?;
    for number in 0..100 {
        rename(number.to_string(), (number + 1).to_string())?;
    }
    let names: Vec<_> = std::fs::read_dir(".")?.collect::<Result<_, _>>()?;
    is((names.len(), text("100")?), (1, "x".to_owned()))
}
