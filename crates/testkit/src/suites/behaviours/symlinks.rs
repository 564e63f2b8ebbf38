//! Symbolic links and the paths that lead over them (man 7 symlink, man 7 path_resolution).

use rustix::fs::{readlink, symlink, unlink};

use super::kit::*;

super::checks!("symlinks":
    a_target_comes_back, a_target_may_be_anything, the_size_is_the_targets,
    a_target_of_4095_bytes, a_target_that_is_too_long, an_empty_target_is_refused,
    a_name_that_is_there_is_refused, what_is_no_symlink_has_no_target, it_leads_to_a_file,
    it_leads_through_a_directory, it_is_relative_to_its_own_place, a_dangling_one_leads_nowhere,
    a_circle_is_refused, forty_are_followed, forty_one_are_not, it_is_removed_itself,
    it_is_made_whatever_the_umask, its_mode_stays, its_owner_changes_alone, its_times_change_alone,
    a_trailing_slash_follows_it, creating_follows_a_dangling_one, creating_exclusively_does_not,
    a_directory_is_not_made_over_one, it_belongs_to_the_caller, reading_it_needs_no_permission,
    opening_it_alone_is_refused, opening_it_as_a_place, a_short_buffer_cuts_the_target,
    a_path_of_4095_bytes, a_path_that_is_too_long, a_component_that_is_too_long,
    a_component_that_is_a_file, dots_lead_up, many_slashes_are_one, an_empty_path_is_nothing,
    a_directory_that_one_may_not_search,
);

fn target(name: &str) -> Outcome<String> {
    Ok(readlink(name, Vec::new())?.to_string_lossy().into_owned())
}

fn a_target_comes_back() -> Outcome {
    symlink("some/where", "s")?;
    is(target("s")?, "some/where".to_owned())
}

fn a_target_may_be_anything() -> Outcome {
    symlink(c"\xff\x01 \n//", "s")?;
    is(readlink("s", Vec::new())?, c"\xff\x01 \n//".to_owned())
}

fn the_size_is_the_targets() -> Outcome {
    symlink("12345", "s")?;
    is(of("s")?.st_size, 5)
}

/// Some stores keep shorter ones only.
fn a_target_of_4095_bytes() -> Outcome {
    let long = "x".repeat(4095);
    match symlink(&long, "s") {
        Err(Errno::NAMETOOLONG) => Err(Ended::NotHere("shorter ones only".to_owned())),
        made => {
            made?;
            is(target("s")? == long, true)
        }
    }
}

fn a_target_that_is_too_long() -> Outcome {
    refused(symlink("x".repeat(4096), "s"), Errno::NAMETOOLONG)
}

fn an_empty_target_is_refused() -> Outcome {
    refused(symlink("", "s"), Errno::NOENT)
}

fn a_name_that_is_there_is_refused() -> Outcome {
    new("f")?;
    symlink("nowhere", "s")?;
    refused(symlink("x", "f"), Errno::EXIST)?;
    refused(symlink("x", "s"), Errno::EXIST)
}

fn what_is_no_symlink_has_no_target() -> Outcome {
    new("f")?;
    refused(readlink("f", Vec::new()), Errno::INVAL)?;
    refused(readlink(".", Vec::new()), Errno::INVAL)
}

fn it_leads_to_a_file() -> Outcome {
    with("f", b"text")?;
    symlink("f", "s")?;
    is(std::fs::read("s")?, b"text".to_vec())
}

fn it_leads_through_a_directory() -> Outcome {
    dir("d")?;
    with("d/f", b"text")?;
    symlink("d", "s")?;
    is(std::fs::read("s/f")?, b"text".to_vec())
}

fn it_is_relative_to_its_own_place() -> Outcome {
    dir("d")?;
    with("f", b"text")?;
    symlink("../f", "d/s")?;
    is(std::fs::read("d/s")?, b"text".to_vec())
}

fn a_dangling_one_leads_nowhere() -> Outcome {
    symlink("nowhere", "s")?;
    refused(rustix::fs::stat("s"), Errno::NOENT)?;
    is(exists("s"), true)
}

fn a_circle_is_refused() -> Outcome {
    symlink("b", "a")?;
    symlink("a", "b")?;
    symlink("c", "c")?;
    refused(open("a", OFlags::RDONLY), Errno::LOOP)?;
    refused(open("c/d", OFlags::RDONLY), Errno::LOOP)
}

/// `s1` leads to `f`, and each further one to the one before.
fn chain(count: u32) -> Outcome {
    with("f", b"text")?;
    symlink("f", "s1")?;
    for number in 2..=count {
        symlink(format!("s{}", number - 1), format!("s{number}"))?;
    }
    Ok(())
}

fn forty_are_followed() -> Outcome {
    chain(40)?;
    is(std::fs::read("s40")?, b"text".to_vec())
}

fn forty_one_are_not() -> Outcome {
    chain(41)?;
    refused(open("s41", OFlags::RDONLY), Errno::LOOP)
}

fn it_is_removed_itself() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    unlink("s")?;
    is((exists("s"), exists("f")), (false, true))
}

fn it_is_made_whatever_the_umask() -> Outcome {
    rustix::process::umask(mode(0o777));
    symlink("x", "s")?;
    is(bits("s")?, 0o777)
}

fn its_mode_stays() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    chmod("s", 0o600)?;
    is((bits("f")?, bits("s")?), (0o600, 0o777))
}

fn its_owner_changes_alone() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    let owner = rustix::fs::Uid::from_raw(ALICE.uid);
    rustix::fs::chownat(CWD, "s", Some(owner), None, AtFlags::SYMLINK_NOFOLLOW)?;
    is((of("s")?.st_uid, of("f")?.st_uid), (ALICE.uid, 0))
}

fn its_times_change_alone() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    set_times("s", &times((5, 6), (7, 8)))?;
    is(mtime("s")?, (7, 8))?;
    holds(mtime("f")?.0 > 7, "the target's stay")
}

fn a_trailing_slash_follows_it() -> Outcome {
    dir("d")?;
    symlink("d", "s")?;
    is(rustix::fs::lstat("s/")?.st_ino, of("d")?.st_ino)?;
    new("f")?;
    symlink("f", "t")?;
    refused(rustix::fs::lstat("t/"), Errno::NOTDIR)
}

fn creating_follows_a_dangling_one() -> Outcome {
    symlink("f", "s")?;
    open("s", OFlags::CREATE | OFlags::WRONLY)?;
    is(of("f")?.st_mode & 0o170_000, 0o100_000)
}

fn creating_exclusively_does_not() -> Outcome {
    symlink("f", "s")?;
    let made = open("s", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY);
    refused(made, Errno::EXIST)?;
    is(exists("f"), false)
}

fn a_directory_is_not_made_over_one() -> Outcome {
    symlink("d", "s")?;
    refused(rustix::fs::mkdir("s", mode(0o755)), Errno::EXIST)?;
    is(exists("d"), false)
}

fn it_belongs_to_the_caller() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    as_user(BOB, || Ok(symlink("x", "d/s")?))?;
    is((of("d/s")?.st_uid, of("d/s")?.st_gid), (BOB.uid, BOB.gid))
}

fn reading_it_needs_no_permission() -> Outcome {
    symlink("x", "s")?;
    as_user(BOB, || is(target("s")?, "x".to_owned()))
}

fn opening_it_alone_is_refused() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    refused(open("s", OFlags::NOFOLLOW), Errno::LOOP)
}

fn opening_it_as_a_place() -> Outcome {
    symlink("target", "s")?;
    let place = open("s", OFlags::PATH | OFlags::NOFOLLOW)?;
    let target = rustix::fs::readlinkat(&place, "", Vec::new())?;
    is(target, c"target".to_owned())?;
    is(rustix::fs::fstat(&place)?.st_mode & 0o170_000, 0o120_000)
}

fn a_short_buffer_cuts_the_target() -> Outcome {
    symlink("12345", "s")?;
    let mut buffer = [0_u8; 3];
    is(rustix::fs::readlinkat_raw(CWD, "s", &mut buffer[..])?, 3)?;
    is(buffer, *b"123")
}

fn a_path_of_4095_bytes() -> Outcome {
    with("f", b"text")?;
    let path = format!("{}f", "./".repeat(2047));
    is((path.len(), std::fs::read(path)?), (4095, b"text".to_vec()))
}

fn a_path_that_is_too_long() -> Outcome {
    new("f")?;
    let path = format!("/{}f", "./".repeat(2048));
    refused(open(&path, OFlags::RDONLY), Errno::NAMETOOLONG)
}

fn a_component_that_is_too_long() -> Outcome {
    let long = "n".repeat(256);
    refused(open(&long, OFlags::RDONLY), Errno::NAMETOOLONG)?;
    refused(
        open(&long, OFlags::RDONLY | OFlags::CREATE),
        Errno::NAMETOOLONG,
    )?;
    refused(rustix::fs::mkdir(&long, mode(0o755)), Errno::NAMETOOLONG)
}

fn a_component_that_is_a_file() -> Outcome {
    new("f")?;
    refused(open("f/g", OFlags::RDONLY), Errno::NOTDIR)?;
    refused(open("f/.", OFlags::RDONLY), Errno::NOTDIR)?;
    refused(open("f/..", OFlags::RDONLY), Errno::NOTDIR)
}

fn dots_lead_up() -> Outcome {
    dir("d")?;
    dir("d/e")?;
    with("f", b"text")?;
    is(std::fs::read("d/e/../../f")?, b"text".to_vec())?;
    is(std::fs::read("d/./e/.././../f")?, b"text".to_vec())
}

fn many_slashes_are_one() -> Outcome {
    dir("d")?;
    with("d/f", b"text")?;
    is(std::fs::read("d////f")?, b"text".to_vec())
}

fn an_empty_path_is_nothing() -> Outcome {
    refused(open("", OFlags::RDONLY), Errno::NOENT)?;
    refused(rustix::fs::stat(""), Errno::NOENT)
}

fn a_directory_that_one_may_not_search() -> Outcome {
    given_dir("d", ALICE, 0o644)?;
    given("d/f", BOB, 0o666)?;
    as_user(BOB, || {
        refused(open("d/f", OFlags::RDONLY), Errno::ACCESS)?;
        refused(rustix::fs::stat("d/f"), Errno::ACCESS)?;
        is(std::fs::read_dir("d")?.count(), 1)
    })
}
