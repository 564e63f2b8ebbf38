//! Files without a name, and files that have lost theirs (man 2 open, man 2 unlink).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{fstat, ftruncate, linkat, open as open_with, unlink};

use super::kit::*;

super::checks!("nameless":
    a_nameless_file_is_written_and_read, a_nameless_file_has_no_links, a_nameless_file_gets_a_name,
    a_nameless_file_that_must_stay_so, a_nameless_file_needs_writing,
    a_nameless_file_needs_a_directory, a_nameless_file_has_mode_and_owner,
    a_nameless_file_obeys_permissions, an_unlinked_file_is_read_and_written,
    an_unlinked_file_has_no_links, an_unlinked_file_changes_attributes, an_unlinked_file_is_cut,
    an_unlinked_file_is_another_than_a_new_one, an_unlinked_file_opens_again_by_proc,
);

fn in_proc(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

const NAMELESS: OFlags = OFlags::TMPFILE.union(OFlags::RDWR);

fn nameless(flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(".", flags, mode(0o640))
}

fn a_nameless_file_is_written_and_read() -> Outcome {
    let file = nameless(NAMELESS)?;
    put(&file, b"text", 0)?;
    is(get(&file, 9, 0)?, b"text".to_vec())?;
    is(std::fs::read_dir(".")?.count(), 0)
}

fn a_nameless_file_has_no_links() -> Outcome {
    is(fstat(nameless(NAMELESS)?)?.st_nlink, 0)
}

fn a_nameless_file_gets_a_name() -> Outcome {
    let file = nameless(NAMELESS)?;
    put(&file, b"text", 0)?;
    linkat(CWD, in_proc(&file), CWD, "f", AtFlags::SYMLINK_FOLLOW)?;
    is(fstat(&file)?.st_nlink, 1)?;
    put(&file, b"more", 4)?;
    drop(file);
    is(std::fs::read("f")?, b"textmore".to_vec())
}

fn a_nameless_file_that_must_stay_so() -> Outcome {
    let file = nameless(NAMELESS | OFlags::EXCL)?;
    let linked = linkat(CWD, in_proc(&file), CWD, "f", AtFlags::SYMLINK_FOLLOW);
    refused(linked, Errno::NOENT)
}

fn a_nameless_file_needs_writing() -> Outcome {
    nameless(NAMELESS)?;
    refused(nameless(OFlags::TMPFILE), Errno::INVAL)
}

fn a_nameless_file_needs_a_directory() -> Outcome {
    new("f")?;
    refused(open_with("f", NAMELESS, mode(0o600)), Errno::NOTDIR)?;
    refused(open_with("none", NAMELESS, mode(0o600)), Errno::NOENT)
}

fn a_nameless_file_has_mode_and_owner() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    as_user(BOB, || {
        let stat = fstat(open_with("d", NAMELESS, mode(0o666))?)?;
        is((stat.st_mode & 0o7777, stat.st_uid), (0o644, BOB.uid))
    })
}

fn a_nameless_file_obeys_permissions() -> Outcome {
    nameless(NAMELESS)?;
    given_dir("d", ALICE, 0o755)?;
    as_user(BOB, || {
        refused(open_with("d", NAMELESS, mode(0o600)), Errno::ACCESS)
    })
}

fn unlinked() -> Outcome<OwnedFd> {
    let file = with("f", b"text")?;
    unlink("f")?;
    Ok(file)
}

fn an_unlinked_file_is_read_and_written() -> Outcome {
    let file = unlinked()?;
    put(&file, b"more", 4)?;
    is(get(&file, 99, 0)?, b"textmore".to_vec())?;
    is(exists("f"), false)
}

fn an_unlinked_file_has_no_links() -> Outcome {
    let stat = fstat(unlinked()?)?;
    is((stat.st_nlink, stat.st_size), (0, 4))
}

fn an_unlinked_file_changes_attributes() -> Outcome {
    let file = unlinked()?;
    rustix::fs::fchmod(&file, mode(0o604))?;
    rustix::fs::futimens(&file, &times((5, 0), (6, 0)))?;
    let stat = fstat(&file)?;
    is(
        (stat.st_mode & 0o7777, stat.st_atime, stat.st_mtime),
        (0o604, 5, 6),
    )
}

fn an_unlinked_file_is_cut() -> Outcome {
    let file = unlinked()?;
    ftruncate(&file, 2)?;
    is(get(&file, 99, 0)?, b"te".to_vec())?;
    ftruncate(&file, 4)?;
    is(get(&file, 99, 0)?, b"te\0\0".to_vec())
}

fn an_unlinked_file_is_another_than_a_new_one() -> Outcome {
    let file = unlinked()?;
    with("f", b"other")?;
    is(get(&file, 99, 0)?, b"text".to_vec())?;
    is(std::fs::read("f")?, b"other".to_vec())?;
    is(fstat(&file)?.st_ino == of("f")?.st_ino, false)
}

fn an_unlinked_file_opens_again_by_proc() -> Outcome {
    let file = unlinked()?;
    let again = open(&in_proc(&file), OFlags::RDONLY)?;
    is(get(&again, 99, 0)?, b"text".to_vec())
}
