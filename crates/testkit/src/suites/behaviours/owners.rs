//! Modes and owners, and who changes them (man 2 chmod, man 2 chown).

use rustix::fs::{Gid, Uid, chmodat};

use super::kit::*;

super::checks!("owners":
    chmod_by_the_owner, chmod_by_a_stranger, chmod_by_root, chmod_through_a_descriptor,
    chmod_of_all_bits, chmod_through_a_symlink, chmod_of_what_is_not_there, chmod_of_a_directory,
    chown_by_root, chown_by_the_owner, chgrp_to_a_further_group, chgrp_to_a_strange_group,
    chgrp_by_a_stranger, chown_of_one_only, chown_through_a_descriptor, chown_through_a_symlink,
    chown_of_a_symlink, chown_to_large_numbers, chown_of_what_is_not_there,
);

fn chmod_by_the_owner() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || Ok(chmod("f", 0o751)?))?;
    is(bits("f")?, 0o751)
}

fn chmod_by_a_stranger() -> Outcome {
    given("f", ALICE, 0o666)?;
    as_user(BOB, || refused(chmod("f", 0o777), Errno::PERM))?;
    is(bits("f")?, 0o666)
}

fn chmod_by_root() -> Outcome {
    given("f", ALICE, 0o600)?;
    chmod("f", 0o4755)?;
    is((bits("f")?, of("f")?.st_uid), (0o4755, ALICE.uid))
}

fn chmod_through_a_descriptor() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || {
        let file = open("f", OFlags::RDONLY)?;
        Ok(rustix::fs::fchmod(&file, mode(0o640))?)
    })?;
    is(bits("f")?, 0o640)
}

fn chmod_of_all_bits() -> Outcome {
    new("f")?;
    for bit in 0..12 {
        chmod("f", 1 << bit)?;
        is(bits("f")?, 1 << bit)?;
    }
    chmod("f", 0o7777)?;
    is(bits("f")?, 0o7777)
}

fn chmod_through_a_symlink() -> Outcome {
    new("f")?;
    rustix::fs::symlink("f", "s")?;
    chmodat(CWD, "s", mode(0o600), AtFlags::empty())?;
    is((bits("f")?, bits("s")?), (0o600, 0o777))
}

fn chmod_of_what_is_not_there() -> Outcome {
    refused(chmod("f", 0o600), Errno::NOENT)
}

fn chmod_of_a_directory() -> Outcome {
    given_dir("d", ALICE, 0o700)?;
    as_user(ALICE, || Ok(chmod("d", 0o1711)?))?;
    is(bits("d")?, 0o1711)
}

fn chown_by_root() -> Outcome {
    given("f", ALICE, 0o600)?;
    chown("f", BOB.uid, CAROL.gid)?;
    is(owner("f")?, (BOB.uid, CAROL.gid))
}

fn chown_by_the_owner() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || {
        refused(chown("f", BOB.uid, ALICE.gid), Errno::PERM)
    })?;
    is(owner("f")?, (ALICE.uid, ALICE.gid))
}

fn chgrp_to_a_further_group() -> Outcome {
    given("f", CAROL, 0o600)?;
    as_user(CAROL, || {
        Ok(rustix::fs::chown(
            "f",
            None,
            Some(Gid::from_raw(ALICE.gid)),
        )?)
    })?;
    is(owner("f")?, (CAROL.uid, ALICE.gid))
}

fn chgrp_to_a_strange_group() -> Outcome {
    given("f", CAROL, 0o600)?;
    as_user(CAROL, || {
        let changed = rustix::fs::chown("f", None, Some(Gid::from_raw(BOB.gid)));
        refused(changed, Errno::PERM)
    })
}

fn chgrp_by_a_stranger() -> Outcome {
    given("f", BOB, 0o666)?;
    as_user(CAROL, || {
        let changed = rustix::fs::chown("f", None, Some(Gid::from_raw(CAROL.gid)));
        refused(changed, Errno::PERM)
    })
}

fn chown_of_one_only() -> Outcome {
    given("f", ALICE, 0o600)?;
    rustix::fs::chown("f", Some(Uid::from_raw(BOB.uid)), None)?;
    is(owner("f")?, (BOB.uid, ALICE.gid))?;
    rustix::fs::chown("f", None, Some(Gid::from_raw(CAROL.gid)))?;
    is(owner("f")?, (BOB.uid, CAROL.gid))
}

fn chown_through_a_descriptor() -> Outcome {
    let file = new("f")?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(7)), Some(Gid::from_raw(8)))?;
    is(owner("f")?, (7, 8))
}

fn chown_through_a_symlink() -> Outcome {
    new("f")?;
    rustix::fs::symlink("f", "s")?;
    chown("s", 7, 8)?;
    is((owner("f")?, owner("s")?), ((7, 8), (0, 0)))
}

fn chown_of_a_symlink() -> Outcome {
    new("f")?;
    rustix::fs::symlink("f", "s")?;
    let (user, group) = (Uid::from_raw(7), Gid::from_raw(8));
    rustix::fs::chownat(CWD, "s", Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    is((owner("f")?, owner("s")?), ((0, 0), (7, 8)))
}

fn chown_to_large_numbers() -> Outcome {
    new("f")?;
    chown("f", u32::MAX - 1, 3_000_000_000)?;
    is(owner("f")?, (u32::MAX - 1, 3_000_000_000))
}

fn chown_of_what_is_not_there() -> Outcome {
    refused(chown("f", 1, 1), Errno::NOENT)
}
