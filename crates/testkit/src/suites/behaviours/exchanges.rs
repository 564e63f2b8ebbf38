//! Renaming that exchanges, keeps what is there, or leaves a whiteout (man 2 renameat2).

use rustix::fs::{RenameFlags, link, renameat_with, symlink};

use super::kit::*;

super::checks!("exchanges":
    exchanging_files, exchanging_a_file_and_a_directory, exchanging_directories_with_contents,
    exchanging_needs_both, exchanging_with_what_is_below, exchanging_two_names_of_one_file,
    exchanging_between_directories_moves_the_parent, without_replacing_moves_to_a_free_name,
    without_replacing_keeps_what_is_there, without_replacing_sees_a_dangling_symlink,
    without_replacing_sees_the_same_file, a_whiteout_stays_behind, a_whiteout_behind_a_replacement,
    a_whiteout_needs_privilege, contradicting_flags, unknown_flags,
);

fn with_flags(from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, flags)
}

fn exchanging_files() -> Outcome {
    two()?;
    let inodes = (of("a")?.st_ino, of("b")?.st_ino);
    with_flags("a", "b", RenameFlags::EXCHANGE)?;
    is((text("a")?, text("b")?), ("b".to_owned(), "a".to_owned()))?;
    is((of("b")?.st_ino, of("a")?.st_ino), inodes)
}

fn exchanging_a_file_and_a_directory() -> Outcome {
    with("a", b"a")?;
    dir("b")?;
    with("b/f", b"f")?;
    with_flags("a", "b", RenameFlags::EXCHANGE)?;
    is((text("b")?, text("a/f")?), ("a".to_owned(), "f".to_owned()))
}

fn exchanging_directories_with_contents() -> Outcome {
    for name in ["a", "b"] {
        dir(name)?;
        with(&format!("{name}/{name}"), b"")?;
    }
    with_flags("a", "b", RenameFlags::EXCHANGE)?;
    is(
        (exists("a/b"), exists("b/a"), exists("a/a")),
        (true, true, false),
    )
}

fn exchanging_needs_both() -> Outcome {
    two()?;
    refused(with_flags("a", "c", RenameFlags::EXCHANGE), Errno::NOENT)?;
    refused(with_flags("c", "a", RenameFlags::EXCHANGE), Errno::NOENT)
}

fn exchanging_with_what_is_below() -> Outcome {
    dir("a")?;
    dir("a/b")?;
    refused(with_flags("a", "a/b", RenameFlags::EXCHANGE), Errno::INVAL)?;
    refused_as(
        with_flags("a/b", "a", RenameFlags::EXCHANGE),
        &[Errno::INVAL, Errno::NOTEMPTY],
    )
}

fn exchanging_two_names_of_one_file() -> Outcome {
    with("a", b"a")?;
    link("a", "b")?;
    with_flags("a", "b", RenameFlags::EXCHANGE)?;
    is(
        (exists("a"), exists("b"), of("a")?.st_nlink),
        (true, true, 2),
    )
}

fn exchanging_between_directories_moves_the_parent() -> Outcome {
    for name in ["a", "a/d", "b", "b/d"] {
        dir(name)?;
    }
    let (one, other) = (of("a/d")?.st_ino, of("b/d")?.st_ino);
    with_flags("a/d", "b/d", RenameFlags::EXCHANGE)?;
    is((of("a/d")?.st_ino, of("b/d")?.st_ino), (other, one))?;
    is(of("a/d/..")?.st_ino, of("a")?.st_ino)?;
    is(of("b/d/..")?.st_ino, of("b")?.st_ino)
}

fn without_replacing_moves_to_a_free_name() -> Outcome {
    with("a", b"a")?;
    with_flags("a", "b", RenameFlags::NOREPLACE)?;
    is((exists("a"), text("b")?), (false, "a".to_owned()))
}

fn without_replacing_keeps_what_is_there() -> Outcome {
    two()?;
    refused(with_flags("a", "b", RenameFlags::NOREPLACE), Errno::EXIST)?;
    is((text("a")?, text("b")?), ("a".to_owned(), "b".to_owned()))?;
    dir("d")?;
    refused(with_flags("a", "d", RenameFlags::NOREPLACE), Errno::EXIST)
}

fn without_replacing_sees_a_dangling_symlink() -> Outcome {
    with("a", b"a")?;
    symlink("nowhere", "s")?;
    refused(with_flags("a", "s", RenameFlags::NOREPLACE), Errno::EXIST)
}

fn without_replacing_sees_the_same_file() -> Outcome {
    with("a", b"a")?;
    link("a", "b")?;
    refused(with_flags("a", "b", RenameFlags::NOREPLACE), Errno::EXIST)
}

fn is_whiteout(name: &str) -> Outcome {
    let stat = of(name)?;
    is((stat.st_mode & 0o170_000, stat.st_rdev), (0o020_000, 0))
}

fn a_whiteout_stays_behind() -> Outcome {
    with("a", b"a")?;
    with_flags("a", "b", RenameFlags::WHITEOUT)?;
    is(text("b")?, "a".to_owned())?;
    is_whiteout("a")
}

fn a_whiteout_behind_a_replacement() -> Outcome {
    two()?;
    with_flags("a", "b", RenameFlags::WHITEOUT)?;
    is(text("b")?, "a".to_owned())?;
    is_whiteout("a")
}

/// Where user namespaces are trusted with whiteouts it is granted (Linux 5.8).
fn a_whiteout_needs_privilege() -> Outcome {
    given_dir("d", ALICE, 0o755)?;
    given("d/a", ALICE, 0o644)?;
    as_user(ALICE, || {
        match with_flags("d/a", "d/b", RenameFlags::WHITEOUT) {
            Ok(()) => is_whiteout("d/a"),
            refusal => refused(refusal, Errno::PERM),
        }
    })
}

fn contradicting_flags() -> Outcome {
    two()?;
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    refused(with_flags("a", "b", both), Errno::INVAL)?;
    let both = RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
    refused(with_flags("a", "b", both), Errno::INVAL)
}

fn unknown_flags() -> Outcome {
    two()?;
    let unknown = RenameFlags::from_bits_retain(1 << 9);
    refused(with_flags("a", "b", unknown), Errno::INVAL)
}
