//! Who may do what with whose files (man 7 path_resolution, man 2 access).

use rustix::fs::{Access, accessat};

use super::kit::*;

super::checks!("permissions":
    owner_reads, owner_without_reading, owner_is_not_others, group_reads, group_without_reading,
    further_group_reads, group_is_not_others, others_read, others_without_reading, owner_writes,
    owner_without_writing, group_writes, others_write, others_without_writing, owner_runs,
    others_without_running, root_reads_anything, root_runs_only_programs, searching_needs_execution,
    creating_needs_writing_and_execution, removing_needs_writing_and_execution,
    access_says_what_open_does, access_of_root, access_of_what_is_not_there, access_to_existence,
    what_is_made_is_the_callers, directories_are_the_callers, one_who_left_a_group,
    a_file_that_changes_hands, a_mode_that_is_taken_away, a_mode_that_is_given,
    a_directory_that_is_closed, the_umask_of_a_child, truncating_needs_writing,
    listing_needs_reading, linking_needs_writing_there, readlink_needs_search,
);

/// Whether a user may open Alice's file of this mode.
#[track_caller]
fn opens(user: User, bits: u32, flags: OFlags, may: bool) -> Outcome {
    given("f", ALICE, bits)?;
    as_user(user, || match (may, open("f", flags)) {
        (true, opened) => Ok(opened.map(drop)?),
        (false, opened) => refused(opened, Errno::ACCESS),
    })
}

const R: OFlags = OFlags::RDONLY;

const W: OFlags = OFlags::WRONLY;

fn owner_reads() -> Outcome {
    opens(ALICE, 0o400, R, true)
}

fn owner_without_reading() -> Outcome {
    opens(ALICE, 0o300, R, false)
}

fn owner_is_not_others() -> Outcome {
    opens(ALICE, 0o077, R, false)
}

fn group_reads() -> Outcome {
    opens(
        User {
            gid: ALICE.gid,
            ..BOB
        },
        0o040,
        R,
        true,
    )
}

fn group_without_reading() -> Outcome {
    opens(
        User {
            gid: ALICE.gid,
            ..BOB
        },
        0o730,
        R,
        false,
    )
}

fn further_group_reads() -> Outcome {
    opens(CAROL, 0o040, R, true)
}

fn group_is_not_others() -> Outcome {
    opens(CAROL, 0o707, R, false)
}

fn others_read() -> Outcome {
    opens(BOB, 0o004, R, true)
}

fn others_without_reading() -> Outcome {
    opens(BOB, 0o773, R, false)
}

fn owner_writes() -> Outcome {
    opens(ALICE, 0o200, W, true)
}

fn owner_without_writing() -> Outcome {
    opens(ALICE, 0o577, W, false)
}

fn group_writes() -> Outcome {
    opens(CAROL, 0o020, W, true)
}

fn others_write() -> Outcome {
    opens(BOB, 0o002, W, true)
}

fn others_without_writing() -> Outcome {
    opens(BOB, 0o775, OFlags::RDWR, false)
}

fn runs(user: User, bits: u32) -> Outcome<Result<Option<i32>, Errno>> {
    with("run", b"#!/bin/sh\nexit 7\n")?;
    chown("run", ALICE.uid, ALICE.gid)?;
    chmod("run", bits)?;
    as_user(user, || {
        Ok(errno(std::process::Command::new("./run").status()).map(|status| status.code()))
    })
}

fn owner_runs() -> Outcome {
    is(runs(ALICE, 0o500)?, Ok(Some(7)))
}

fn others_without_running() -> Outcome {
    refused(runs(BOB, 0o776)?, Errno::ACCESS)
}

const ROOT: User = User {
    uid: 0,
    gid: 0,
    groups: &[],
};

fn root_reads_anything() -> Outcome {
    opens(ROOT, 0o000, OFlags::RDWR, true)
}

fn root_runs_only_programs() -> Outcome {
    refused(runs(ROOT, 0o666)?, Errno::ACCESS)?;
    std::fs::remove_file("run")?;
    is(runs(ROOT, 0o001)?, Ok(Some(7)))
}

fn searching_needs_execution() -> Outcome {
    given_dir("d", ALICE, 0o666)?;
    given("d/f", BOB, 0o666)?;
    as_user(BOB, || refused(open("d/f", R), Errno::ACCESS))?;
    chmod("d", 0o001)?;
    as_user(BOB, || Ok(open("d/f", R).map(drop)?))
}

fn creating_needs_writing_and_execution() -> Outcome {
    given_dir("d", ALICE, 0o775)?;
    for (bits, may) in [(0o775, false), (0o772, false), (0o773, true), (0o777, true)] {
        chmod("d", bits)?;
        as_user(BOB, || {
            let name = format!("d/{bits:o}");
            match (may, open(&name, OFlags::CREATE | OFlags::RDWR)) {
                (true, made) => Ok(made.map(drop)?),
                (false, made) => refused(made, Errno::ACCESS),
            }
        })?;
    }
    Ok(())
}

fn removing_needs_writing_and_execution() -> Outcome {
    given_dir("d", ALICE, 0o775)?;
    given("d/f", BOB, 0o666)?;
    for bits in [0o775, 0o772] {
        chmod("d", bits)?;
        as_user(BOB, || refused(rustix::fs::unlink("d/f"), Errno::ACCESS))?;
    }
    chmod("d", 0o773)?;
    as_user(BOB, || Ok(rustix::fs::unlink("d/f")?))
}

/// The effective identity asks, as `open` does.
fn may(name: &str, access: Access) -> bool {
    accessat(CWD, name, access, AtFlags::EACCESS).is_ok()
}

fn access_says_what_open_does() -> Outcome {
    for bits in [0o000, 0o004, 0o002, 0o006, 0o640, 0o060] {
        let name = format!("f{bits:o}");
        given(&name, ALICE, bits)?;
        for user in [ALICE, BOB, CAROL] {
            as_user(user, || {
                is(may(&name, Access::READ_OK), open(&name, R).is_ok())?;
                is(may(&name, Access::WRITE_OK), open(&name, W).is_ok())
            })?;
        }
    }
    Ok(())
}

fn access_of_root() -> Outcome {
    given("f", ALICE, 0o000)?;
    is(
        (may("f", Access::READ_OK), may("f", Access::EXEC_OK)),
        (true, false),
    )?;
    chmod("f", 0o001)?;
    is(may("f", Access::EXEC_OK), true)
}

fn access_of_what_is_not_there() -> Outcome {
    refused(rustix::fs::access("f", Access::EXISTS), Errno::NOENT)?;
    new("f")?;
    refused(rustix::fs::access("f/g", Access::EXISTS), Errno::NOTDIR)
}

fn access_to_existence() -> Outcome {
    given("f", ALICE, 0o000)?;
    as_user(BOB, || {
        is(
            (may("f", Access::EXISTS), may("f", Access::READ_OK)),
            (true, false),
        )
    })
}

fn what_is_made_is_the_callers() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    for user in [ALICE, BOB, CAROL] {
        let name = format!("d/{}", user.uid);
        as_user(user, || new(&name).map(drop))?;
        is(owner(&name)?, (user.uid, user.gid))?;
    }
    Ok(())
}

fn directories_are_the_callers() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    as_user(BOB, || dir("d/d"))?;
    is((owner("d/d")?, bits("d/d")?), ((BOB.uid, BOB.gid), 0o755))
}

fn one_who_left_a_group() -> Outcome {
    given("f", ALICE, 0o060)?;
    as_user(CAROL, || Ok(open("f", R).map(drop)?))?;
    as_user(
        User {
            groups: &[],
            ..CAROL
        },
        || refused(open("f", R), Errno::ACCESS),
    )?;
    as_user(CAROL, || Ok(open("f", R).map(drop)?))
}

fn a_file_that_changes_hands() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(BOB, || refused(open("f", R), Errno::ACCESS))?;
    chown("f", BOB.uid, BOB.gid)?;
    as_user(BOB, || Ok(open("f", R).map(drop)?))?;
    as_user(ALICE, || refused(open("f", R), Errno::ACCESS))
}

fn a_mode_that_is_taken_away() -> Outcome {
    given("f", ALICE, 0o644)?;
    as_user(BOB, || Ok(open("f", R).map(drop)?))?;
    chmod("f", 0o600)?;
    as_user(BOB, || refused(open("f", R), Errno::ACCESS))
}

fn a_mode_that_is_given() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(BOB, || refused(open("f", R), Errno::ACCESS))?;
    chmod("f", 0o604)?;
    as_user(BOB, || Ok(open("f", R).map(drop)?))
}

fn a_directory_that_is_closed() -> Outcome {
    given_dir("d", ALICE, 0o755)?;
    given("d/f", BOB, 0o600)?;
    as_user(BOB, || Ok(open("d/f", R).map(drop)?))?;
    chmod("d", 0o700)?;
    as_user(BOB, || {
        refused(open("d/f", R), Errno::ACCESS)?;
        refused(rustix::fs::stat("d/f"), Errno::ACCESS)
    })
}

fn the_umask_of_a_child() -> Outcome {
    in_child(|| {
        rustix::process::umask(mode(0o077));
        Ok(rustix::fs::open("f", OFlags::CREATE, mode(0o666)).map(drop)?)
    })?;
    rustix::fs::open("g", OFlags::CREATE, mode(0o666))?;
    is((bits("f")?, bits("g")?), (0o600, 0o644))
}

fn truncating_needs_writing() -> Outcome {
    given("f", ALICE, 0o444)?;
    as_user(BOB, || refused(super::sys::truncate("f", 0), Errno::ACCESS))?;
    as_user(ALICE, || {
        refused(super::sys::truncate("f", 0), Errno::ACCESS)
    })?;
    Ok(super::sys::truncate("f", 0)?)
}

fn listing_needs_reading() -> Outcome {
    given_dir("d", ALICE, 0o733)?;
    as_user(BOB, || refused(open("d", OFlags::DIRECTORY), Errno::ACCESS))?;
    as_user(ALICE, || Ok(open("d", OFlags::DIRECTORY).map(drop)?))
}

fn linking_needs_writing_there() -> Outcome {
    given_dir("d", ALICE, 0o755)?;
    given("f", BOB, 0o666)?;
    as_user(BOB, || {
        refused(rustix::fs::link("f", "d/f"), Errno::ACCESS)?;
        refused(rustix::fs::symlink("f", "d/s"), Errno::ACCESS)?;
        refused(rustix::fs::mkdir("d/d", mode(0o755)), Errno::ACCESS)?;
        refused(rustix::fs::mkfifoat(CWD, "d/p", mode(0o600)), Errno::ACCESS)
    })
}

fn readlink_needs_search() -> Outcome {
    given_dir("d", ALICE, 0o766)?;
    rustix::fs::symlink("x", "d/s")?;
    as_user(BOB, || {
        refused(rustix::fs::readlink("d/s", Vec::new()), Errno::ACCESS)
    })
}
