//! POSIX access control lists (man 5 acl), as the attributes that they are for Linux.

use super::kit::*;

super::checks!("acls":
    an_acl_comes_back, one_that_says_no_more_than_the_mode_is_the_mode, it_shows_in_the_mode,
    chmod_changes_the_mask, chmod_of_the_owner_shows_in_it, a_named_user_is_let_in,
    a_named_user_is_kept_out, the_mask_limits_a_named_user, a_named_group_is_let_in,
    a_named_group_is_kept_out, the_owner_is_not_masked, others_are_not_masked,
    the_owner_sets_it, a_stranger_does_not, it_can_be_removed, removal_leaves_the_mode,
    nonsense_is_refused, a_default_needs_a_directory, a_default_is_inherited_by_files,
    a_default_is_inherited_by_directories, a_default_overrides_the_umask,
    without_a_default_the_umask_counts, the_mode_asked_for_limits_a_default,
    a_default_is_for_fifos, not_for_symlinks, a_default_does_not_guard_the_directory,
    a_default_can_be_removed, a_nameless_file_inherits_it, set_group_id_goes_for_a_stranger_to_the_group,
    set_group_id_stays_for_a_member, it_follows_a_rename, a_change_shows_in_ctime,
    it_is_listed_by_name,
);

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Tag, permissions and id of an entry (uapi/linux/posix_acl_xattr.h).
type Entry = (u16, u16, u32);

const NOBODY: u32 = u32::MAX;
const OWNER: u16 = 1;
const USER: u16 = 2;
const OWNING_GROUP: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

fn acl(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Owner rw-, one named entry, owning group r--, a mask and others.
fn naming(tag: u16, id: u32, permissions: u16, mask: u16, others: u16) -> Vec<u8> {
    let named = (tag, permissions, id);
    let group = (OWNING_GROUP, 4, NOBODY);
    let (first, second) = if tag == USER {
        (named, group)
    } else {
        (group, named)
    };
    acl(&[
        (OWNER, 6, NOBODY),
        first,
        second,
        (MASK, mask, NOBODY),
        (OTHER, others, NOBODY),
    ])
}

fn plain(owner: u16, group: u16, others: u16) -> Vec<u8> {
    acl(&[
        (OWNER, owner, NOBODY),
        (OWNING_GROUP, group, NOBODY),
        (OTHER, others, NOBODY),
    ])
}

/// Alice's file with an ACL.
fn listed(acl: &[u8]) -> Outcome {
    given("f", ALICE, 0o640)?;
    Ok(set_attribute("f", ACCESS, acl)?)
}

fn reads(user: User, may: bool) -> Outcome {
    as_user(user, || match (may, open("f", OFlags::RDONLY)) {
        (true, opened) => Ok(opened.map(drop)?),
        (false, opened) => refused(opened, Errno::ACCESS),
    })
}

fn writes(user: User, may: bool) -> Outcome {
    as_user(user, || match (may, open("f", OFlags::WRONLY)) {
        (true, opened) => Ok(opened.map(drop)?),
        (false, opened) => refused(opened, Errno::ACCESS),
    })
}

fn an_acl_comes_back() -> Outcome {
    let acl = naming(USER, BOB.uid, 6, 6, 0);
    listed(&acl)?;
    is(attribute("f", ACCESS)?, acl)
}

fn one_that_says_no_more_than_the_mode_is_the_mode() -> Outcome {
    listed(&plain(7, 5, 1))?;
    is(bits("f")?, 0o751)?;
    refused(attribute("f", ACCESS), Errno::NODATA)
}

fn it_shows_in_the_mode() -> Outcome {
    listed(&naming(USER, BOB.uid, 7, 5, 1))?;
    is(bits("f")?, 0o651)
}

fn chmod_changes_the_mask() -> Outcome {
    listed(&naming(USER, BOB.uid, 6, 6, 0))?;
    chmod("f", 0o640)?;
    is(attribute("f", ACCESS)?, naming(USER, BOB.uid, 6, 4, 0))?;
    reads(BOB, true)?;
    writes(BOB, false)
}

fn chmod_of_the_owner_shows_in_it() -> Outcome {
    listed(&naming(USER, BOB.uid, 6, 6, 0))?;
    chmod("f", 0o464)?;
    let want = acl(&[
        (OWNER, 4, NOBODY),
        (USER, 6, BOB.uid),
        (OWNING_GROUP, 4, NOBODY),
        (MASK, 6, NOBODY),
        (OTHER, 4, NOBODY),
    ]);
    is(attribute("f", ACCESS)?, want)
}

fn a_named_user_is_let_in() -> Outcome {
    listed(&naming(USER, BOB.uid, 4, 6, 0))?;
    reads(BOB, true)?;
    writes(BOB, false)?;
    reads(User { uid: 5009, ..BOB }, false)
}

fn a_named_user_is_kept_out() -> Outcome {
    listed(&naming(USER, BOB.uid, 0, 6, 6))?;
    reads(BOB, false)?;
    reads(User { uid: 5009, ..BOB }, true)
}

fn the_mask_limits_a_named_user() -> Outcome {
    listed(&naming(USER, BOB.uid, 6, 4, 0))?;
    reads(BOB, true)?;
    writes(BOB, false)
}

fn a_named_group_is_let_in() -> Outcome {
    listed(&naming(GROUP, BOB.gid, 6, 6, 0))?;
    writes(BOB, true)?;
    writes(CAROL, false)?;
    reads(CAROL, true)
}

fn a_named_group_is_kept_out() -> Outcome {
    listed(&naming(GROUP, BOB.gid, 0, 6, 6))?;
    reads(BOB, false)
}

fn the_owner_is_not_masked() -> Outcome {
    listed(&naming(USER, BOB.uid, 6, 0, 0))?;
    writes(ALICE, true)?;
    reads(BOB, false)
}

fn others_are_not_masked() -> Outcome {
    listed(&naming(USER, 5009, 6, 0, 4))?;
    reads(BOB, true)
}

fn the_owner_sets_it() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || {
        Ok(set_attribute("f", ACCESS, &naming(USER, BOB.uid, 4, 4, 0))?)
    })?;
    reads(BOB, true)
}

fn a_stranger_does_not() -> Outcome {
    given("f", ALICE, 0o666)?;
    as_user(BOB, || {
        let acl = naming(USER, BOB.uid, 4, 4, 0);
        refused(set_attribute("f", ACCESS, &acl), Errno::PERM)
    })?;
    as_user(BOB, || {
        refused_as(
            rustix::fs::lremovexattr("f", ACCESS),
            &[Errno::PERM, Errno::NODATA],
        )
    })
}

fn it_can_be_removed() -> Outcome {
    listed(&naming(USER, BOB.uid, 6, 6, 0))?;
    rustix::fs::lremovexattr("f", ACCESS)?;
    refused(attribute("f", ACCESS), Errno::NODATA)?;
    reads(BOB, false)
}

fn removal_leaves_the_mode() -> Outcome {
    listed(&naming(USER, BOB.uid, 7, 7, 5))?;
    rustix::fs::lremovexattr("f", ACCESS)?;
    is(bits("f")?, 0o675)
}

fn nonsense_is_refused() -> Outcome {
    given("f", ALICE, 0o640)?;
    let without_mask = acl(&[
        (OWNER, 6, NOBODY),
        (USER, 6, BOB.uid),
        (OWNING_GROUP, 4, NOBODY),
        (OTHER, 0, NOBODY),
    ]);
    refused(set_attribute("f", ACCESS, &without_mask), Errno::INVAL)?;
    refused(
        set_attribute("f", ACCESS, &acl(&[(OWNER, 6, NOBODY)])),
        Errno::INVAL,
    )?;
    refused(set_attribute("f", ACCESS, &plain(9, 0, 0)), Errno::INVAL)?;
    refused(set_attribute("f", ACCESS, b"?"), Errno::INVAL)?;
    // EOPNOTSUPP is the answer itself here: another version.
    let other_version = set_attribute("f", ACCESS, b"what?");
    is(other_version, Err(Errno::OPNOTSUPP))?;
    is(bits("f")?, 0o640)
}

fn a_default_needs_a_directory() -> Outcome {
    new("f")?;
    refused(set_attribute("f", DEFAULT, &plain(7, 5, 5)), Errno::ACCESS)
}

/// A directory whose files Bob may read and write.
fn with_default() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    Ok(set_attribute(
        "d",
        DEFAULT,
        &naming(USER, BOB.uid, 6, 6, 0),
    )?)
}

fn a_default_is_inherited_by_files() -> Outcome {
    with_default()?;
    as_user(CAROL, || {
        rustix::fs::open("d/f", OFlags::CREATE, mode(0o666))
            .map(drop)
            .map_err(Into::into)
    })?;
    is(attribute("d/f", ACCESS)?, naming(USER, BOB.uid, 6, 6, 0))?;
    refused(attribute("d/f", DEFAULT), Errno::NODATA)?;
    as_user(BOB, || Ok(open("d/f", OFlags::RDWR).map(drop)?))
}

fn a_default_is_inherited_by_directories() -> Outcome {
    with_default()?;
    rustix::fs::mkdir("d/d", mode(0o777))?;
    let acl = naming(USER, BOB.uid, 6, 6, 0);
    is(attribute("d/d", DEFAULT)?, acl.clone())?;
    is(attribute("d/d", ACCESS)?, acl)
}

fn a_default_overrides_the_umask() -> Outcome {
    with_default()?;
    rustix::process::umask(mode(0o077));
    rustix::fs::open("d/f", OFlags::CREATE, mode(0o666))?;
    is(bits("d/f")?, 0o660)
}

fn without_a_default_the_umask_counts() -> Outcome {
    given_dir("d", ALICE, 0o777)?;
    set_attribute("d", ACCESS, &naming(USER, BOB.uid, 7, 7, 7))?;
    rustix::process::umask(mode(0o027));
    rustix::fs::open("d/f", OFlags::CREATE, mode(0o666))?;
    is(bits("d/f")?, 0o640)?;
    refused(attribute("d/f", ACCESS), Errno::NODATA)
}

fn the_mode_asked_for_limits_a_default() -> Outcome {
    with_default()?;
    rustix::fs::open("d/f", OFlags::CREATE, mode(0o640))?;
    is(bits("d/f")?, 0o640)?;
    is(attribute("d/f", ACCESS)?, naming(USER, BOB.uid, 6, 4, 0))
}

fn a_default_is_for_fifos() -> Outcome {
    with_default()?;
    rustix::fs::mkfifoat(CWD, "d/p", mode(0o666))?;
    is(attribute("d/p", ACCESS)?, naming(USER, BOB.uid, 6, 6, 0))
}

fn not_for_symlinks() -> Outcome {
    with_default()?;
    rustix::fs::symlink("nowhere", "d/s")?;
    is(of("d/s")?.st_mode & 0o777, 0o777)?;
    is(attributes("d/s")?.contains(&ACCESS.to_owned()), false)
}

fn a_default_does_not_guard_the_directory() -> Outcome {
    with_default()?;
    is(bits("d")?, 0o777)?;
    as_user(CAROL, || Ok(rustix::fs::mkdir("d/d", mode(0o700))?))
}

fn a_default_can_be_removed() -> Outcome {
    with_default()?;
    rustix::fs::lremovexattr("d", DEFAULT)?;
    rustix::fs::open("d/f", OFlags::CREATE, mode(0o666))?;
    is(bits("d/f")?, 0o644)?;
    refused(attribute("d/f", ACCESS), Errno::NODATA)
}

fn a_nameless_file_inherits_it() -> Outcome {
    with_default()?;
    let file = rustix::fs::open("d", OFlags::TMPFILE | OFlags::RDWR, mode(0o666))?;
    let mut value = [0; 99];
    let len = rustix::fs::fgetxattr(&file, ACCESS, &mut value[..])?;
    is(value[..len].to_vec(), naming(USER, BOB.uid, 6, 6, 0))
}

fn set_group_id_goes_for_a_stranger_to_the_group() -> Outcome {
    given(
        "f",
        User {
            gid: BOB.gid,
            ..ALICE
        },
        0o2770,
    )?;
    as_user(ALICE, || {
        Ok(set_attribute("f", ACCESS, &naming(USER, BOB.uid, 6, 7, 0))?)
    })?;
    is(bits("f")? & 0o2000, 0)
}

fn set_group_id_stays_for_a_member() -> Outcome {
    given("f", ALICE, 0o2770)?;
    as_user(ALICE, || {
        Ok(set_attribute("f", ACCESS, &naming(USER, BOB.uid, 6, 7, 0))?)
    })?;
    is(bits("f")? & 0o2000, 0o2000)
}

fn it_follows_a_rename() -> Outcome {
    listed(&naming(USER, BOB.uid, 6, 6, 0))?;
    new("g")?;
    rustix::fs::rename("f", "g")?;
    is(attribute("g", ACCESS)?, naming(USER, BOB.uid, 6, 6, 0))
}

fn a_change_shows_in_ctime() -> Outcome {
    given("f", ALICE, 0o640)?;
    changes("f", || {
        Ok(set_attribute("f", ACCESS, &naming(USER, BOB.uid, 6, 6, 0))?)
    })
}

fn it_is_listed_by_name() -> Outcome {
    with_default()?;
    listed(&naming(USER, BOB.uid, 6, 6, 0))?;
    is(attributes("f")?.contains(&ACCESS.to_owned()), true)?;
    is(attributes("d")?.contains(&DEFAULT.to_owned()), true)
}
