//! Set-id bits, capabilities of files, and the sticky bit (man 7 inode, man 7 capabilities).

use rustix::fs::{ftruncate, open as open_with, rename, rmdir, unlink};

use super::attributes::CAPABILITIES;
use super::kit::*;

super::checks!("privileges":
    a_strangers_write_drops_both, the_owners_write_drops_both, roots_write_keeps_both,
    a_strangers_cut_drops_both, opening_with_trunc_drops_both, appending_drops_both,
    a_vectored_write_drops_both, a_mapped_write_may_drop_them, group_id_without_execution_stays,
    user_id_without_execution_goes, chown_of_the_owner_drops_both, roots_chown_drops_both,
    roots_chown_keeps_a_directorys, chown_to_nobody_else, group_id_goes_at_chmod_for_a_stranger,
    group_id_stays_at_chmod_for_a_member, group_id_stays_at_chmod_for_a_further_member,
    sticky_on_a_file_is_kept_or_refused, reading_keeps_all, a_write_of_nothing_keeps_all,
    capabilities_go_with_a_write, capabilities_go_with_a_cut, capabilities_go_with_a_chown,
    capabilities_stay_at_chmod, capabilities_stay_at_a_rename,
    a_directory_hands_its_group_down, a_directory_hands_the_bit_down, a_new_file_has_no_bit_of_it,
    a_file_for_a_group_one_is_not_in, a_file_for_a_group_one_is_in, a_symlink_of_that_group,
    a_nameless_file_of_that_group, a_fifo_of_that_group, without_the_bit_the_callers_group,
    sticky_keeps_a_strangers_file, sticky_lets_the_owner_remove, sticky_lets_the_directorys_owner,
    sticky_lets_root, sticky_keeps_a_strangers_directory, sticky_keeps_it_from_being_replaced,
    without_sticky_anybody_removes, sticky_lets_the_owner_rename,
);

/// Alice's program, which Bob may write to.
fn program(bits: u32) -> Outcome {
    given("f", ALICE, bits)
}

fn after(bits_before: u32, user: Option<User>, step: fn() -> Outcome, want: u32) -> Outcome {
    program(bits_before)?;
    match user {
        Some(user) => as_user(user, step)?,
        None => step()?,
    }
    is(bits("f")?, want)
}

fn writes() -> Outcome {
    put(open("f", OFlags::WRONLY)?, b"x", 0)
}

fn cuts() -> Outcome {
    Ok(ftruncate(open("f", OFlags::WRONLY)?, 1)?)
}

fn a_strangers_write_drops_both() -> Outcome {
    after(0o6777, Some(BOB), writes, 0o777)
}

fn the_owners_write_drops_both() -> Outcome {
    after(0o6777, Some(ALICE), writes, 0o777)
}

fn roots_write_keeps_both() -> Outcome {
    after(0o6777, None, writes, 0o6777)
}

fn a_strangers_cut_drops_both() -> Outcome {
    after(0o6777, Some(BOB), cuts, 0o777)
}

fn opening_with_trunc_drops_both() -> Outcome {
    let opens = || Ok(open("f", OFlags::WRONLY | OFlags::TRUNC).map(drop)?);
    after(0o6777, Some(BOB), opens, 0o777)
}

fn appending_drops_both() -> Outcome {
    let appends = || {
        is(
            rustix::io::write(open("f", OFlags::WRONLY | OFlags::APPEND)?, b"x")?,
            1,
        )
    };
    after(0o6777, Some(BOB), appends, 0o777)
}

fn a_vectored_write_drops_both() -> Outcome {
    let writes = || {
        let parts = [std::io::IoSlice::new(b"x"), std::io::IoSlice::new(b"y")];
        is(rustix::io::writev(open("f", OFlags::WRONLY)?, &parts)?, 2)
    };
    after(0o6777, Some(BOB), writes, 0o777)
}

/// Stores differ here; what counts is that the bytes arrive.
fn a_mapped_write_may_drop_them() -> Outcome {
    program(0o6777)?;
    as_user(BOB, || {
        let map = super::sys::Map::shared(open("f", OFlags::RDWR)?, 2)?;
        map.set(0, b'x');
        Ok(map.sync(rustix::mm::MsyncFlags::SYNC)?)
    })?;
    is(
        (std::fs::read("f")?, bits("f")? & 0o777),
        (b"xb".to_vec(), 0o777),
    )
}

/// It was the sign of mandatory locks, and no privilege.
fn group_id_without_execution_stays() -> Outcome {
    after(0o2666, Some(CAROL), writes, 0o2666)
}

fn user_id_without_execution_goes() -> Outcome {
    after(0o4666, Some(BOB), writes, 0o666)
}

fn chown_of_the_owner_drops_both() -> Outcome {
    let gives = || Ok(chown("f", CAROL.uid, ALICE.gid)?);
    given("f", CAROL, 0o6777)?;
    as_user(CAROL, gives)?;
    is((bits("f")?, of("f")?.st_gid), (0o777, ALICE.gid))
}

fn roots_chown_drops_both() -> Outcome {
    after(0o6777, None, || Ok(chown("f", BOB.uid, BOB.gid)?), 0o777)
}

fn roots_chown_keeps_a_directorys() -> Outcome {
    given_dir("d", ALICE, 0o6777)?;
    chown("d", BOB.uid, BOB.gid)?;
    is(bits("d")?, 0o6777)
}

/// Neither changes, but Linux takes it for a change of the owner (man 2 chown).
fn chown_to_nobody_else() -> Outcome {
    program(0o6777)?;
    as_user(ALICE, || Ok(rustix::fs::chown("f", None, None)?))?;
    is(bits("f")? & 0o777, 0o777)
}

fn group_id_goes_at_chmod_for_a_stranger() -> Outcome {
    given(
        "f",
        User {
            gid: BOB.gid,
            ..ALICE
        },
        0o755,
    )?;
    as_user(ALICE, || Ok(chmod("f", 0o2755)?))?;
    is(bits("f")?, 0o755)
}

fn group_id_stays_at_chmod_for_a_member() -> Outcome {
    after(0o755, Some(ALICE), || Ok(chmod("f", 0o6755)?), 0o6755)
}

fn group_id_stays_at_chmod_for_a_further_member() -> Outcome {
    given(
        "f",
        User {
            gid: ALICE.gid,
            ..CAROL
        },
        0o755,
    )?;
    as_user(CAROL, || Ok(chmod("f", 0o2755)?))?;
    is(bits("f")?, 0o2755)
}

fn sticky_on_a_file_is_kept_or_refused() -> Outcome {
    program(0o644)?;
    as_user(ALICE, || match chmod("f", 0o1644) {
        Ok(()) => is(bits("f")? & 0o777, 0o644),
        set => refused(set, Errno::PERM),
    })
}

fn reading_keeps_all() -> Outcome {
    after(
        0o6777,
        Some(BOB),
        || is(std::fs::read("f")?, b"ab".to_vec()),
        0o6777,
    )
}

fn a_write_of_nothing_keeps_all() -> Outcome {
    after(
        0o6777,
        Some(BOB),
        || put(open("f", OFlags::WRONLY)?, b"", 0),
        0o6777,
    )
}

fn capable(step: fn() -> Outcome, kept: bool) -> Outcome {
    program(0o777)?;
    set_attribute("f", "security.capability", CAPABILITIES)?;
    step()?;
    match kept {
        true => is(
            attribute("f", "security.capability")?,
            CAPABILITIES.to_vec(),
        ),
        false => refused(attribute("f", "security.capability"), Errno::NODATA),
    }
}

fn capabilities_go_with_a_write() -> Outcome {
    capable(|| as_user(BOB, writes), false)
}

fn capabilities_go_with_a_cut() -> Outcome {
    capable(|| as_user(BOB, cuts), false)
}

fn capabilities_go_with_a_chown() -> Outcome {
    capable(|| Ok(chown("f", BOB.uid, BOB.gid)?), false)
}

fn capabilities_stay_at_chmod() -> Outcome {
    capable(|| Ok(chmod("f", 0o700)?), true)
}

fn capabilities_stay_at_a_rename() -> Outcome {
    let moves = || {
        rename("f", "g")?;
        Ok(rename("g", "f")?)
    };
    capable(moves, true)
}

/// A directory of another group, with the bit.
fn of_a_group() -> Outcome {
    given_dir("d", User { gid: 5077, ..ALICE }, 0o2777)
}

fn made_by_bob(make: fn() -> Outcome) -> Outcome {
    of_a_group()?;
    as_user(BOB, make)
}

fn a_directory_hands_its_group_down() -> Outcome {
    made_by_bob(|| new("d/f").map(drop))?;
    is((of("d/f")?.st_uid, of("d/f")?.st_gid), (BOB.uid, 5077))
}

fn a_directory_hands_the_bit_down() -> Outcome {
    made_by_bob(|| dir("d/d"))?;
    is((of("d/d")?.st_gid, bits("d/d")?), (5077, 0o2755))
}

fn a_new_file_has_no_bit_of_it() -> Outcome {
    made_by_bob(|| new("d/f").map(drop))?;
    is(bits("d/f")?, 0o644)
}

fn a_file_for_a_group_one_is_not_in() -> Outcome {
    made_by_bob(|| Ok(open_with("d/f", OFlags::CREATE, mode(0o2755)).map(drop)?))?;
    is(bits("d/f")?, 0o755)
}

fn a_file_for_a_group_one_is_in() -> Outcome {
    given_dir("d", ALICE, 0o2777)?;
    as_user(CAROL, || {
        Ok(open_with("d/f", OFlags::CREATE, mode(0o2755)).map(drop)?)
    })?;
    is((of("d/f")?.st_gid, bits("d/f")?), (ALICE.gid, 0o2755))
}

fn a_symlink_of_that_group() -> Outcome {
    made_by_bob(|| Ok(rustix::fs::symlink("x", "d/s")?))?;
    is(of("d/s")?.st_gid, 5077)
}

fn a_nameless_file_of_that_group() -> Outcome {
    of_a_group()?;
    as_user(BOB, || {
        let file = open_with("d", OFlags::TMPFILE | OFlags::RDWR, mode(0o600))?;
        is(rustix::fs::fstat(&file)?.st_gid, 5077)
    })
}

fn a_fifo_of_that_group() -> Outcome {
    made_by_bob(|| Ok(rustix::fs::mkfifoat(CWD, "d/p", mode(0o600))?))?;
    is(of("d/p")?.st_gid, 5077)
}

fn without_the_bit_the_callers_group() -> Outcome {
    given_dir("d", User { gid: 5077, ..ALICE }, 0o777)?;
    as_user(BOB, || new("d/f").map(drop))?;
    is(of("d/f")?.st_gid, BOB.gid)
}

/// Carol's sticky directory with a file of Alice's and a directory of hers.
fn sticky() -> Outcome {
    given_dir("d", CAROL, 0o1777)?;
    given("d/f", ALICE, 0o666)?;
    given_dir("d/d", ALICE, 0o777)
}

const DENIED: &[Errno] = &[Errno::PERM, Errno::ACCESS];

fn sticky_keeps_a_strangers_file() -> Outcome {
    sticky()?;
    as_user(BOB, || refused_as(unlink("d/f"), DENIED))
}

fn sticky_lets_the_owner_remove() -> Outcome {
    sticky()?;
    as_user(ALICE, || {
        unlink("d/f")?;
        Ok(rmdir("d/d")?)
    })
}

fn sticky_lets_the_directorys_owner() -> Outcome {
    sticky()?;
    as_user(CAROL, || Ok(unlink("d/f")?))
}

fn sticky_lets_root() -> Outcome {
    sticky()?;
    Ok(unlink("d/f")?)
}

fn sticky_keeps_a_strangers_directory() -> Outcome {
    sticky()?;
    as_user(BOB, || {
        refused_as(rmdir("d/d"), DENIED)?;
        refused_as(rename("d/d", "d/e"), DENIED)
    })
}

fn sticky_keeps_it_from_being_replaced() -> Outcome {
    sticky()?;
    given("d/g", BOB, 0o666)?;
    as_user(BOB, || refused_as(rename("d/g", "d/f"), DENIED))
}

fn without_sticky_anybody_removes() -> Outcome {
    sticky()?;
    chmod("d", 0o777)?;
    as_user(BOB, || Ok(unlink("d/f")?))
}

fn sticky_lets_the_owner_rename() -> Outcome {
    sticky()?;
    as_user(ALICE, || Ok(rename("d/f", "d/g")?))
}
