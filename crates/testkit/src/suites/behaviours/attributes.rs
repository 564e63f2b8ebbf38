//! Extended attributes (man 7 xattr).

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, getxattr_query,
    llistxattr, lremovexattr, lsetxattr, symlink,
};

use super::kit::*;

super::checks!("attributes":
    a_value_comes_back, an_empty_value_is_one, a_value_may_be_any_bytes, a_value_is_replaced,
    create_refuses_what_is_there, create_makes_what_is_not, replace_refuses_what_is_not_there,
    replace_replaces, both_flags_are_nonsense, the_size_is_told, a_short_buffer_is_refused,
    names_are_listed, a_short_list_is_refused, the_size_of_the_list_is_told,
    what_is_removed_is_gone, what_is_not_there_cannot_be_removed, what_is_not_there_has_no_value,
    through_an_open_file, on_a_directory, on_a_symlink_of_the_system, not_on_a_symlink_of_users,
    not_on_a_fifo_of_users, followed_to_the_target, a_name_of_255_bytes, a_name_that_is_too_long,
    a_name_without_a_rest, a_name_without_a_namespace, a_value_that_is_too_large, many_of_them,
    a_large_value, trusted_ones_are_roots, trusted_ones_are_hidden_from_others,
    security_ones_are_there, users_ones_follow_the_mode, users_ones_of_a_read_only_file_are_refused,
    they_follow_a_rename, they_belong_to_all_names, a_change_shows_in_ctime_only,
    sticky_directories_take_them_from_the_owner, capabilities_are_kept,
    through_a_path_descriptor_they_are_refused,
);

const A: &str = "user.a";

fn a_value_comes_back() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"value")?;
    is(attribute("f", A)?, b"value".to_vec())
}

fn an_empty_value_is_one() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"")?;
    is(attribute("f", A)?, Vec::new())?;
    is(attributes("f")?.contains(&A.to_owned()), true)
}

fn a_value_may_be_any_bytes() -> Outcome {
    new("f")?;
    let value: Vec<u8> = (0..=255).collect();
    set_attribute("f", A, &value)?;
    is(attribute("f", A)?, value)
}

fn a_value_is_replaced() -> Outcome {
    new("f")?;
    for value in [&b"a longer one"[..], b"short", b"again a longer one"] {
        set_attribute("f", A, value)?;
        is(attribute("f", A)?, value.to_vec())?;
    }
    Ok(())
}

fn create_refuses_what_is_there() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"1")?;
    refused(lsetxattr("f", A, b"2", XattrFlags::CREATE), Errno::EXIST)?;
    is(attribute("f", A)?, b"1".to_vec())
}

fn create_makes_what_is_not() -> Outcome {
    new("f")?;
    lsetxattr("f", A, b"2", XattrFlags::CREATE)?;
    is(attribute("f", A)?, b"2".to_vec())
}

fn replace_refuses_what_is_not_there() -> Outcome {
    new("f")?;
    refused(lsetxattr("f", A, b"2", XattrFlags::REPLACE), Errno::NODATA)?;
    refused(attribute("f", A), Errno::NODATA)
}

fn replace_replaces() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"1")?;
    lsetxattr("f", A, b"2", XattrFlags::REPLACE)?;
    is(attribute("f", A)?, b"2".to_vec())
}

fn both_flags_are_nonsense() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"1")?;
    let both = XattrFlags::CREATE | XattrFlags::REPLACE;
    refused_as(lsetxattr("f", A, b"2", both), &[Errno::EXIST, Errno::INVAL])?;
    refused_as(
        lsetxattr("f", "user.b", b"2", both),
        &[Errno::NODATA, Errno::INVAL],
    )
}

fn the_size_is_told() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"12345")?;
    is(getxattr_query("f", A)?, 5)
}

fn a_short_buffer_is_refused() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"12345")?;
    refused(getxattr("f", A, &mut [0_u8; 4][..]), Errno::RANGE)?;
    is(getxattr("f", A, &mut [0_u8; 5][..])?, 5)
}

fn names_are_listed() -> Outcome {
    new("f")?;
    let before = attributes("f")?;
    for name in ["user.c", "user.a", "user.b"] {
        set_attribute("f", name, b"")?;
    }
    let mut now = attributes("f")?;
    now.retain(|name| !before.contains(name));
    is(
        now,
        ["user.a", "user.b", "user.c"].map(str::to_owned).to_vec(),
    )
}

fn a_short_list_is_refused() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"")?;
    refused(llistxattr("f", &mut [0_u8; 3][..]), Errno::RANGE)
}

fn the_size_of_the_list_is_told() -> Outcome {
    new("f")?;
    let before = rustix::fs::llistxattr_query("f")?;
    set_attribute("f", A, b"")?;
    is(rustix::fs::llistxattr_query("f")?, before + A.len() + 1)
}

fn what_is_removed_is_gone() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"1")?;
    lremovexattr("f", A)?;
    refused(attribute("f", A), Errno::NODATA)?;
    is(attributes("f")?.contains(&A.to_owned()), false)
}

fn what_is_not_there_cannot_be_removed() -> Outcome {
    new("f")?;
    refused(lremovexattr("f", A), Errno::NODATA)
}

fn what_is_not_there_has_no_value() -> Outcome {
    new("f")?;
    refused(attribute("f", A), Errno::NODATA)?;
    refused(attribute("none", A), Errno::NOENT)
}

fn through_an_open_file() -> Outcome {
    let file = new("f")?;
    fsetxattr(&file, A, b"1", XattrFlags::empty())?;
    rustix::fs::unlink("f")?;
    is(fgetxattr(&file, A, &mut [0_u8; 9][..])?, 1)?;
    holds(flistxattr(&file, &mut [0_u8; 999][..])? > A.len(), "listed")?;
    fremovexattr(&file, A)?;
    refused(fgetxattr(&file, A, &mut [0_u8; 9][..]), Errno::NODATA)
}

fn on_a_directory() -> Outcome {
    dir("d")?;
    set_attribute("d", A, b"1")?;
    is(attribute("d", A)?, b"1".to_vec())
}

fn on_a_symlink_of_the_system() -> Outcome {
    symlink("nowhere", "s")?;
    set_attribute("s", "trusted.a", b"1")?;
    is(attribute("s", "trusted.a")?, b"1".to_vec())?;
    is(attributes("s")?.contains(&"trusted.a".to_owned()), true)
}

fn not_on_a_symlink_of_users() -> Outcome {
    symlink("nowhere", "s")?;
    refused(set_attribute("s", A, b"1"), Errno::PERM)?;
    refused(attribute("s", A), Errno::NODATA)
}

fn not_on_a_fifo_of_users() -> Outcome {
    rustix::fs::mkfifoat(CWD, "p", mode(0o600))?;
    refused(set_attribute("p", A, b"1"), Errno::PERM)
}

fn followed_to_the_target() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    rustix::fs::setxattr("s", A, b"1", XattrFlags::empty())?;
    is(attribute("f", A)?, b"1".to_vec())?;
    is(getxattr("s", A, &mut [0_u8; 9][..])?, 1)
}

fn a_name_of_255_bytes() -> Outcome {
    new("f")?;
    let name = format!("user.{}", "n".repeat(250));
    set_attribute("f", &name, b"1")?;
    is(attribute("f", &name)?, b"1".to_vec())?;
    is(attributes("f")?.contains(&name), true)
}

fn a_name_that_is_too_long() -> Outcome {
    new("f")?;
    let name = format!("user.{}", "n".repeat(251));
    refused(set_attribute("f", &name, b"1"), Errno::RANGE)
}

fn a_name_without_a_rest() -> Outcome {
    new("f")?;
    refused(set_attribute("f", "user.", b"1"), Errno::INVAL)
}

/// EOPNOTSUPP is the answer itself here.
fn a_name_without_a_namespace() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"")?;
    is(set_attribute("f", "other.a", b"1"), Err(Errno::OPNOTSUPP))?;
    is(set_attribute("f", "", b"1"), Err(Errno::RANGE))
}

fn a_value_that_is_too_large() -> Outcome {
    new("f")?;
    refused(set_attribute("f", A, &[1; 65537]), Errno::TOOBIG)
}

/// ext4 has one block for all of a file's.
fn with_room(set: Result<(), Errno>) -> Outcome {
    match set {
        Err(Errno::NOSPC) => Err(Ended::NotHere("no room for them".to_owned())),
        set => Ok(set?),
    }
}

fn many_of_them() -> Outcome {
    new("f")?;
    for number in 0..40 {
        let (name, value) = (format!("user.name-{number}"), format!("{number}"));
        with_room(set_attribute("f", &name, value.as_bytes()))?;
    }
    for number in 0..40 {
        let value = attribute("f", &format!("user.name-{number}"))?;
        is(value, format!("{number}").into_bytes())?;
    }
    let listed = attributes("f")?;
    is(
        listed
            .iter()
            .filter(|name| name.starts_with("user.name-"))
            .count(),
        40,
    )
}

fn a_large_value() -> Outcome {
    new("f")?;
    let value: Vec<u8> = (0..3000_u32)
        .flat_map(|n| n.to_le_bytes())
        .take(3000)
        .collect();
    with_room(set_attribute("f", A, &value))?;
    is(attribute("f", A)? == value, true)
}

fn trusted_ones_are_roots() -> Outcome {
    given("f", ALICE, 0o600)?;
    set_attribute("f", "trusted.a", b"1")?;
    is(attribute("f", "trusted.a")?, b"1".to_vec())?;
    as_user(ALICE, || {
        refused(set_attribute("f", "trusted.b", b"1"), Errno::PERM)?;
        refused(attribute("f", "trusted.a"), Errno::NODATA)
    })
}

fn trusted_ones_are_hidden_from_others() -> Outcome {
    given("f", ALICE, 0o600)?;
    set_attribute("f", "trusted.a", b"1")?;
    set_attribute("f", A, b"1")?;
    as_user(ALICE, || {
        let listed = attributes("f")?;
        is(listed.contains(&"trusted.a".to_owned()), false)?;
        is(listed.contains(&A.to_owned()), true)
    })
}

fn security_ones_are_there() -> Outcome {
    given("f", ALICE, 0o644)?;
    set_attribute("f", "security.check", b"1")?;
    as_user(BOB, || is(attribute("f", "security.check")?, b"1".to_vec()))?;
    as_user(ALICE, || {
        refused(set_attribute("f", "security.check", b"2"), Errno::PERM)
    })
}

fn users_ones_follow_the_mode() -> Outcome {
    given("f", ALICE, 0o604)?;
    set_attribute("f", A, b"1")?;
    as_user(BOB, || {
        is(attribute("f", A)?, b"1".to_vec())?;
        refused(set_attribute("f", A, b"2"), Errno::ACCESS)
    })?;
    chmod("f", 0o602)?;
    as_user(BOB, || {
        refused(attribute("f", A), Errno::ACCESS)?;
        Ok(set_attribute("f", A, b"2")?)
    })
}

fn users_ones_of_a_read_only_file_are_refused() -> Outcome {
    given("f", ALICE, 0o400)?;
    as_user(ALICE, || {
        refused(set_attribute("f", A, b"2"), Errno::ACCESS)
    })
}

fn they_follow_a_rename() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"1")?;
    rustix::fs::rename("f", "g")?;
    is(attribute("g", A)?, b"1".to_vec())
}

fn they_belong_to_all_names() -> Outcome {
    new("f")?;
    rustix::fs::link("f", "g")?;
    set_attribute("f", A, b"1")?;
    is(attribute("g", A)?, b"1".to_vec())?;
    lremovexattr("g", A)?;
    refused(attribute("f", A), Errno::NODATA)
}

fn a_change_shows_in_ctime_only() -> Outcome {
    new("f")?;
    make_old("f")?;
    changes("f", || Ok(set_attribute("f", A, b"1")?))?;
    changes("f", || Ok(lremovexattr("f", A)?))?;
    is(modified("f")?, false)
}

fn sticky_directories_take_them_from_the_owner() -> Outcome {
    given_dir("d", ALICE, 0o1777)?;
    set_attribute("d", A, b"")?;
    as_user(BOB, || refused(set_attribute("d", A, b"1"), Errno::PERM))?;
    as_user(ALICE, || Ok(set_attribute("d", A, b"1")?))
}

/// `struct vfs_cap_data` of the second version, with CAP_CHOWN permitted.
pub(super) const CAPABILITIES: &[u8] = b"\x01\0\0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn capabilities_are_kept() -> Outcome {
    new("f")?;
    set_attribute("f", "security.capability", CAPABILITIES)?;
    is(
        attribute("f", "security.capability")?,
        CAPABILITIES.to_vec(),
    )
}

fn through_a_path_descriptor_they_are_refused() -> Outcome {
    new("f")?;
    set_attribute("f", A, b"1")?;
    let path = open("f", OFlags::PATH)?;
    refused(fgetxattr(&path, A, &mut [0_u8; 9][..]), Errno::BADF)?;
    refused(fsetxattr(&path, A, b"2", XattrFlags::empty()), Errno::BADF)
}
