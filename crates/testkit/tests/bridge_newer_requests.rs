//! TMPFILE, STATX and IOCTL, as the host's own kernel sends them through the bridge.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{
    AtFlags, CWD, IFlags, Mode, OFlags, StatxFlags, ioctl_getflags, ioctl_setflags, linkat, open,
    statx,
};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, on_tmpfs};

/// A share with one file in it.
fn share(arguments: &[&str]) -> Result<Option<(Tmpfs, BridgedShare)>> {
    let made = on_tmpfs(arguments)?;
    if let Some((shared, _)) = &made {
        fs::write(shared.path().join("there"), b"before")?;
    }
    Ok(made)
}

fn entries(directory: &Path) -> Result<usize> {
    Ok(fs::read_dir(directory)?.count())
}

#[test]
fn a_file_without_a_name_is_used_and_given_one() -> Result<()> {
    let Some((shared, share)) = share(&[])? else {
        return Ok(());
    };
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    let nameless = open(share.path(), flags, Mode::from_raw_mode(0o640))?;
    let mut file = File::from(nameless);
    file.write_all(b"content")?;
    ensure!(entries(shared.path())? == 1, "it has a name on the host");
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    linkat(
        CWD,
        &*link,
        CWD,
        share.path().join("named"),
        AtFlags::SYMLINK_FOLLOW,
    )?;
    let host = shared.path().join("named");
    ensure!(fs::read(&host)? == b"content");
    ensure!(host.metadata()?.mode() & 0o7777 == 0o640);
    ensure!(share.path().join("named").metadata()?.ino() == file.metadata()?.ino());

    drop(file);

    // One that never gets a name is gone with its last descriptor.
    let mut lost = File::from(open(share.path(), flags, Mode::RUSR)?);
    lost.write_all(b"lost")?;
    drop(lost);
    ensure!(entries(shared.path())? == 2);
    share.finish()
}

#[test]
fn the_time_of_birth_is_the_hosts() -> Result<()> {
    let Some((shared, share)) = share(&[])? else {
        return Ok(());
    };
    let birth = |path: &Path| -> Result<(i64, u32)> {
        let stat = statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::BTIME)?;
        ensure!(
            StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME),
            "no birth is told"
        );
        Ok((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
    };
    let host = birth(&shared.path().join("there"))?;
    ensure!(birth(&share.path().join("there"))? == host, "{host:?}");
    let file = File::open(share.path().join("there"))?;
    fs::remove_file(shared.path().join("there"))?;
    let stat = statx(
        &file,
        c"",
        AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC,
        StatxFlags::BTIME,
    )?;
    ensure!(
        (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) == host,
        "an open file's birth is lost with its name"
    );
    drop(file);
    share.finish()
}

#[test]
fn flags_are_read_and_set_and_others_are_no_commands() -> Result<()> {
    let Some((shared, share)) = share(&[])? else {
        return Ok(());
    };
    for name in ["there", "."] {
        let here = File::open(share.path().join(name))?;
        let host = File::open(shared.path().join(name))?;
        let before = ioctl_getflags(&here)?;
        ensure!(!before.contains(IFlags::NODUMP));
        ioctl_setflags(&here, before | IFlags::NODUMP)?;
        ensure!(
            ioctl_getflags(&host)?.contains(IFlags::NODUMP),
            "{name}: not set on the host"
        );
        ensure!(ioctl_getflags(&here)?.contains(IFlags::NODUMP), "{name}");
    }
    // FIONREAD's neighbours, a terminal's and a disk's: never sent on.
    let mut file = File::open(share.path().join("there"))?;
    let refused = rustix::termios::tcgetwinsize(file.as_fd()).err();
    ensure!(refused == Some(Errno::NOTTY), "{refused:?}");
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure!(text == "before");
    drop(file);
    share.finish()
}

#[test]
fn a_read_only_share_keeps_its_flags() -> Result<()> {
    let Some((shared, share)) = share(&["--readonly"])? else {
        return Ok(());
    };
    let here = File::open(share.path().join("there"))?;
    let flags = ioctl_getflags(&here)?;
    let refused = ioctl_setflags(&here, flags | IFlags::NODUMP).err();
    drop(here);
    ensure!(refused == Some(Errno::ROFS), "{refused:?}");
    let tmpfile = open(share.path(), OFlags::RDWR | OFlags::TMPFILE, Mode::RUSR).err();
    ensure!(tmpfile == Some(Errno::ROFS), "{tmpfile:?}");
    ensure!(!ioctl_getflags(File::open(shared.path().join("there"))?)?.contains(IFlags::NODUMP));
    share.finish()
}
