//! Flags of inodes: immutable, append only and others (man 2 FS_IOC_SETFLAGS).

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags, link, rename, unlink};

use super::kit::*;

super::checks!("flags":
    they_are_read, they_are_set_and_taken_away, immutable_is_not_opened_for_writing,
    immutable_is_read, immutable_is_not_written_through_an_old_descriptor, immutable_keeps_its_name,
    immutable_gets_no_other_name, immutable_keeps_its_attributes, immutable_is_not_cut,
    an_immutable_directory_gets_nothing_new, an_immutable_directory_loses_nothing,
    an_immutable_directory_lets_files_be_written, append_only_is_appended_to,
    append_only_is_not_overwritten, append_only_is_not_cut, append_only_is_read,
    append_only_keeps_its_name, an_append_only_directory_only_gets_more, nodump_is_kept,
    noatime_is_kept, a_stranger_sets_none, an_owner_sets_harmless_ones,
    immutable_needs_privilege, a_change_shows_in_ctime, they_show_in_statx,
);

/// Takes the flag away again, so that the directory can be removed.
struct Flagged(OwnedFd);

impl Flagged {
    fn set(name: &str, flag: IFlags) -> Outcome<Self> {
        let file = open(name, OFlags::RDONLY)?;
        let flags = ioctl_getflags(&file)?;
        ioctl_setflags(&file, flags | flag)?;
        Ok(Self(file))
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        if let Ok(flags) = ioctl_getflags(&self.0) {
            let _ = ioctl_setflags(&self.0, flags - (IFlags::IMMUTABLE | IFlags::APPEND));
        }
    }
}

fn immutable() -> Outcome<Flagged> {
    with("f", b"text")?;
    Flagged::set("f", IFlags::IMMUTABLE)
}

fn append_only() -> Outcome<Flagged> {
    with("f", b"text")?;
    Flagged::set("f", IFlags::APPEND)
}

fn they_are_read() -> Outcome {
    let flags = ioctl_getflags(new("f")?)?;
    is(flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND), false)
}

fn they_are_set_and_taken_away() -> Outcome {
    let flagged = immutable()?;
    is(
        ioctl_getflags(&flagged.0)?.contains(IFlags::IMMUTABLE),
        true,
    )?;
    drop(flagged);
    let file = open("f", OFlags::RDWR)?;
    is(ioctl_getflags(file)?.contains(IFlags::IMMUTABLE), false)
}

fn immutable_is_not_opened_for_writing() -> Outcome {
    let _flagged = immutable()?;
    refused(open("f", OFlags::WRONLY), Errno::PERM)?;
    refused(open("f", OFlags::RDWR | OFlags::APPEND), Errno::PERM)
}

fn immutable_is_read() -> Outcome {
    let _flagged = immutable()?;
    is(std::fs::read("f")?, b"text".to_vec())
}

/// ext4 and others ask at each write, most only when the file is opened.
fn immutable_is_not_written_through_an_old_descriptor() -> Outcome {
    let file = with("f", b"text")?;
    let _flagged = Flagged::set("f", IFlags::IMMUTABLE)?;
    match rustix::io::pwrite(&file, b"x", 0) {
        Ok(_) => Err(Ended::NotHere("asked when it is opened only".to_owned())),
        written => refused(written, Errno::PERM),
    }
}

fn immutable_keeps_its_name() -> Outcome {
    let _flagged = immutable()?;
    new("g")?;
    refused(unlink("f"), Errno::PERM)?;
    refused(rename("f", "h"), Errno::PERM)?;
    refused(rename("g", "f"), Errno::PERM)
}

fn immutable_gets_no_other_name() -> Outcome {
    let _flagged = immutable()?;
    refused(link("f", "g"), Errno::PERM)
}

fn immutable_keeps_its_attributes() -> Outcome {
    let _flagged = immutable()?;
    refused(chmod("f", 0o600), Errno::PERM)?;
    refused(chown("f", 1, 1), Errno::PERM)?;
    refused(set_times("f", &times((5, 0), (5, 0))), Errno::PERM)?;
    refused(set_attribute("f", "trusted.a", b"1"), Errno::PERM)
}

fn immutable_is_not_cut() -> Outcome {
    let _flagged = immutable()?;
    let cut = errno(
        std::fs::File::options()
            .write(true)
            .truncate(true)
            .open("f"),
    );
    refused(cut, Errno::PERM)?;
    is(of("f")?.st_size, 4)
}

fn an_immutable_directory_gets_nothing_new() -> Outcome {
    dir("d")?;
    let _flagged = Flagged::set("d", IFlags::IMMUTABLE)?;
    refused_as(
        open("d/f", OFlags::CREATE | OFlags::RDWR),
        &[Errno::PERM, Errno::ACCESS],
    )?;
    refused_as(
        rustix::fs::mkdir("d/d", mode(0o755)),
        &[Errno::PERM, Errno::ACCESS],
    )
}

fn an_immutable_directory_loses_nothing() -> Outcome {
    dir("d")?;
    new("d/f")?;
    let _flagged = Flagged::set("d", IFlags::IMMUTABLE)?;
    refused_as(unlink("d/f"), &[Errno::PERM, Errno::ACCESS])?;
    refused_as(rename("d/f", "g"), &[Errno::PERM, Errno::ACCESS])
}

fn an_immutable_directory_lets_files_be_written() -> Outcome {
    dir("d")?;
    new("d/f")?;
    let _flagged = Flagged::set("d", IFlags::IMMUTABLE)?;
    put(open("d/f", OFlags::WRONLY)?, b"text", 0)?;
    is(std::fs::read("d/f")?, b"text".to_vec())
}

fn append_only_is_appended_to() -> Outcome {
    let _flagged = append_only()?;
    let file = open("f", OFlags::WRONLY | OFlags::APPEND)?;
    is(rustix::io::write(&file, b"more")?, 4)?;
    drop(file);
    is(std::fs::read("f")?, b"textmore".to_vec())
}

fn append_only_is_not_overwritten() -> Outcome {
    let _flagged = append_only()?;
    refused(open("f", OFlags::WRONLY), Errno::PERM)?;
    refused(open("f", OFlags::RDWR), Errno::PERM)
}

fn append_only_is_not_cut() -> Outcome {
    let _flagged = append_only()?;
    refused(
        open("f", OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC),
        Errno::PERM,
    )?;
    let file = open("f", OFlags::WRONLY | OFlags::APPEND)?;
    refused(rustix::fs::ftruncate(&file, 0), Errno::PERM)?;
    is(of("f")?.st_size, 4)
}

fn append_only_is_read() -> Outcome {
    let _flagged = append_only()?;
    is(std::fs::read("f")?, b"text".to_vec())
}

fn append_only_keeps_its_name() -> Outcome {
    let _flagged = append_only()?;
    refused(unlink("f"), Errno::PERM)?;
    refused(rename("f", "h"), Errno::PERM)
}

fn an_append_only_directory_only_gets_more() -> Outcome {
    dir("d")?;
    let _flagged = Flagged::set("d", IFlags::APPEND)?;
    new("d/f")?;
    refused(unlink("d/f"), Errno::PERM)?;
    refused(rename("d/f", "d/g"), Errno::PERM)
}

fn kept(flag: IFlags) -> Outcome {
    let file = new("f")?;
    ioctl_setflags(&file, ioctl_getflags(&file)? | flag)?;
    drop(file);
    is(
        ioctl_getflags(open("f", OFlags::RDONLY)?)?.contains(flag),
        true,
    )
}

fn nodump_is_kept() -> Outcome {
    kept(IFlags::NODUMP)
}

fn noatime_is_kept() -> Outcome {
    kept(IFlags::NOATIME)
}

/// EACCES or EPERM, as the store says.
fn a_stranger_sets_none() -> Outcome {
    given("f", ALICE, 0o666)?;
    as_user(BOB, || {
        let file = open("f", OFlags::RDWR)?;
        let flags = ioctl_getflags(&file)?;
        let set = ioctl_setflags(&file, flags | IFlags::NODUMP);
        refused_as(set, &[Errno::PERM, Errno::ACCESS])
    })
}

fn an_owner_sets_harmless_ones() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || {
        let file = open("f", OFlags::RDWR)?;
        ioctl_setflags(&file, ioctl_getflags(&file)? | IFlags::NODUMP)?;
        is(ioctl_getflags(&file)?.contains(IFlags::NODUMP), true)
    })
}

fn immutable_needs_privilege() -> Outcome {
    given("f", ALICE, 0o600)?;
    as_user(ALICE, || {
        let file = open("f", OFlags::RDWR)?;
        let flags = ioctl_getflags(&file)?;
        let set = ioctl_setflags(&file, flags | IFlags::IMMUTABLE);
        refused_as(set, &[Errno::PERM, Errno::ACCESS])
    })
}

/// Soon: a guest may believe for a second what it knows.
fn a_change_shows_in_ctime() -> Outcome {
    let file = new("f")?;
    let flags = ioctl_getflags(&file)?;
    let before = ctime("f")?;
    tick();
    ioctl_setflags(&file, flags | IFlags::NODUMP)?;
    let begun = Instant::now();
    while ctime("f")? == before {
        holds(begun.elapsed() < SOON, "the change shows")?;
        std::thread::sleep(A_WHILE);
    }
    Ok(())
}

const SOON: Duration = Duration::from_secs(5);

fn they_show_in_statx() -> Outcome {
    use rustix::fs::{StatxAttributes, StatxFlags, statx};
    let of = |name| -> Outcome<StatxAttributes> {
        Ok(statx(CWD, name, AtFlags::empty(), StatxFlags::ALL)?.stx_attributes)
    };
    with("f", b"text")?;
    is(
        of("f")?.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
        false,
    )?;
    let flagged = Flagged::set("f", IFlags::IMMUTABLE)?;
    is(of("f")?.contains(StatxAttributes::IMMUTABLE), true)?;
    drop(flagged);
    let _flagged = Flagged::set("f", IFlags::APPEND)?;
    is(of("f")?.contains(StatxAttributes::APPEND), true)
}
