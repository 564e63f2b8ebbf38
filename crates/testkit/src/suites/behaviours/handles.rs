//! File handles, as servers of NFS use them (man 2 name_to_handle_at).
//!
//! No check opens what is still there twice: a guest may forget a file when it is closed.

use rustix::fs::{link, rename, symlink, unlink};

use super::kit::*;
use super::sys::Handle;

super::checks!("handles":
    a_handle_opens_the_file, a_handle_opens_a_directory, a_handle_opens_a_symlink_as_a_place,
    a_handle_does_not_follow_a_symlink,
    a_handle_outlives_a_rename, a_handle_outlives_one_of_two_names, a_removed_file_is_stale,
    all_names_have_one_handle, another_file_has_another, a_new_file_of_the_same_name_has_another,
    opening_needs_privilege, too_little_room_is_told, too_much_is_refused, nonsense_is_stale,
    through_an_open_file, a_symlink_is_followed_on_demand, what_is_not_there_has_none,
);

fn opened(handle: &Handle, flags: OFlags) -> Result<std::os::fd::OwnedFd, Errno> {
    let mount = open(".", OFlags::DIRECTORY)?;
    handle.open(&mount, flags)
}

fn a_handle_opens_the_file() -> Outcome {
    with("f", b"text")?;
    let file = opened(&Handle::of(CWD, "f", AtFlags::empty())?, OFlags::RDWR)?;
    is(get(&file, 9, 0)?, b"text".to_vec())?;
    put(&file, b"more", 4)?;
    is(std::fs::read("f")?, b"textmore".to_vec())
}

fn a_handle_opens_a_directory() -> Outcome {
    dir("d")?;
    with("d/f", b"text")?;
    let handle = Handle::of(CWD, "d", AtFlags::empty())?;
    let directory = opened(&handle, OFlags::DIRECTORY)?;
    let file = rustix::fs::openat(&directory, "f", OFlags::RDONLY, mode(0))?;
    is(get(&file, 9, 0)?, b"text".to_vec())?;
    let above = rustix::fs::statat(&directory, "..", AtFlags::empty())?;
    is(above.st_ino, of(".")?.st_ino)
}

fn a_handle_opens_a_symlink_as_a_place() -> Outcome {
    symlink("target", "s")?;
    let handle = Handle::of(CWD, "s", AtFlags::empty())?;
    let place = opened(&handle, OFlags::PATH)?;
    let target = rustix::fs::readlinkat(&place, "", Vec::new())?;
    is(target, c"target".to_owned())
}

fn a_handle_does_not_follow_a_symlink() -> Outcome {
    new("f")?;
    symlink("f", "s")?;
    let handle = Handle::of(CWD, "s", AtFlags::empty())?;
    refused(opened(&handle, OFlags::RDONLY), Errno::LOOP)
}

fn a_handle_outlives_a_rename() -> Outcome {
    dir("d")?;
    with("f", b"text")?;
    let handle = Handle::of(CWD, "f", AtFlags::empty())?;
    rename("f", "d/g")?;
    is(Handle::of(CWD, "d/g", AtFlags::empty())? == handle, true)?;
    let file = opened(&handle, OFlags::RDONLY)?;
    is(get(&file, 9, 0)?, b"text".to_vec())
}

fn a_handle_outlives_one_of_two_names() -> Outcome {
    with("f", b"text")?;
    let handle = Handle::of(CWD, "f", AtFlags::empty())?;
    link("f", "g")?;
    unlink("f")?;
    is(
        get(opened(&handle, OFlags::RDONLY)?, 9, 0)?,
        b"text".to_vec(),
    )
}

fn a_removed_file_is_stale() -> Outcome {
    with("f", b"text")?;
    let handle = Handle::of(CWD, "f", AtFlags::empty())?;
    drop(opened(&handle, OFlags::RDONLY)?);
    unlink("f")?;
    // What another process had open may go a moment later.
    let begun = std::time::Instant::now();
    while opened(&handle, OFlags::RDONLY).is_ok() && begun.elapsed() < LIMIT {
        std::thread::yield_now();
    }
    refused(opened(&handle, OFlags::RDONLY), Errno::STALE)
}

fn all_names_have_one_handle() -> Outcome {
    new("f")?;
    link("f", "g")?;
    let (f, g) = (
        Handle::of(CWD, "f", AtFlags::empty())?,
        Handle::of(CWD, "g", AtFlags::empty())?,
    );
    is(f == g, true)
}

fn another_file_has_another() -> Outcome {
    new("f")?;
    new("g")?;
    let (f, g) = (
        Handle::of(CWD, "f", AtFlags::empty())?,
        Handle::of(CWD, "g", AtFlags::empty())?,
    );
    is(f == g, false)
}

/// A number that is used again has another generation.
fn a_new_file_of_the_same_name_has_another() -> Outcome {
    for _ in 0..20 {
        new("f")?;
        let before = Handle::of(CWD, "f", AtFlags::empty())?;
        unlink("f")?;
        new("f")?;
        is(Handle::of(CWD, "f", AtFlags::empty())? == before, false)?;
        unlink("f")?;
    }
    Ok(())
}

fn opening_needs_privilege() -> Outcome {
    given("f", ALICE, 0o666)?;
    let handle = Handle::of(CWD, "f", AtFlags::empty())?;
    drop(opened(&handle, OFlags::RDONLY)?);
    as_user(ALICE, || {
        refused(opened(&handle, OFlags::RDONLY), Errno::PERM)
    })
}

fn too_little_room_is_told() -> Outcome {
    new("f")?;
    let needed = Handle::of(CWD, "f", AtFlags::empty())?.len_bytes();
    refused(
        Handle::with_room(needed - 1, CWD, "f", AtFlags::empty()),
        Errno::OVERFLOW,
    )
}

fn too_much_is_refused() -> Outcome {
    new("f")?;
    Handle::of(CWD, "f", AtFlags::empty())?;
    refused(
        Handle::with_room(129, CWD, "f", AtFlags::empty()),
        Errno::INVAL,
    )
}

fn nonsense_is_stale() -> Outcome {
    new("f")?;
    let handle = Handle::of(CWD, "f", AtFlags::empty())?;
    match opened(&handle.of_kind(0x77), OFlags::RDONLY) {
        Ok(_) => Err(Ended::NotHere("looks at no kind".to_owned())),
        opened => refused(opened, Errno::STALE),
    }
}

fn through_an_open_file() -> Outcome {
    let file = with("f", b"text")?;
    let handle = Handle::of(&file, "", AtFlags::EMPTY_PATH)?;
    is(handle == Handle::of(CWD, "f", AtFlags::empty())?, true)
}

fn a_symlink_is_followed_on_demand() -> Outcome {
    with("f", b"text")?;
    symlink("f", "s")?;
    let followed = Handle::of(CWD, "s", AtFlags::SYMLINK_FOLLOW)?;
    is(followed == Handle::of(CWD, "f", AtFlags::empty())?, true)?;
    is(followed == Handle::of(CWD, "s", AtFlags::empty())?, false)
}

fn what_is_not_there_has_none() -> Outcome {
    refused(Handle::of(CWD, "f", AtFlags::empty()), Errno::NOENT)
}
