//! `--translate-uid` and `--translate-gid`, with the owners that the host's own kernel sends and shows.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::idmapped::IdMapped;
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::Launch;

/// A directory that everybody may write to, and the same as the share shows it.
fn share(rules: &[&str]) -> Result<Option<(Tmpfs, BridgedShare)>> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(None);
    }
    let shared = Tmpfs::new()?;
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777))?;
    let launch = Launch::new(shared.path()).sandbox("chroot");
    let launch = launch.arg("--cache").arg("never");
    let launch = rules.iter().fold(launch, |launch, rule| launch.arg(*rule));
    let share = BridgedShare::start(launch, &BridgeOptions::default())?;
    Ok(Some((shared, share)))
}

/// Runs a line of shell, `$0` being the path, as a user of the guest; whether it could.
fn runs_as((user, group): (u32, u32), line: &str, path: &Path) -> Result<bool> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).arg(path).current_dir("/");
    let ran = command.uid(user).gid(group).output().context("run")?;
    Ok(ran.status.success())
}

fn owner(path: &Path) -> Result<(u32, u32)> {
    let stat = path.symlink_metadata()?;
    Ok((stat.uid(), stat.gid()))
}

const MAKING: [(&str, &str); 4] = [
    (": > \"$0\"", "file"),
    ("mkdir \"$0\"", "directory"),
    ("ln -s target \"$0\"", "symlink"),
    ("mkfifo \"$0\"", "fifo"),
];

const RULES: [&str; 7] = [
    "--translate-uid=map:1000:50000:100",
    "--translate-uid=guest:2000:60000:10",
    "--translate-uid=squash-guest:3000:61000:1000",
    "--translate-uid=host:62000:5000:10",
    "--translate-uid=squash-host:63000:6000:1000",
    "--translate-uid=forbid-guest:70000:4294897295",
    "--translate-gid=map:1000:51000:100",
];

#[test]
fn owners_are_translated_on_their_way_to_the_host_and_back() -> Result<()> {
    let Some((shared, share)) = share(&RULES)? else {
        return Ok(());
    };
    // Who makes a file in the guest, whose it is on the host, and whose the guest sees it to be.
    let makers = [
        ((0, 0), (0, 0), (0, 0)),
        ((1000, 1000), (50000, 51000), (1000, 1000)),
        ((1099, 1099), (50099, 51099), (1099, 1099)),
        ((1100, 1100), (1100, 1100), (1100, 1100)),
        ((2001, 7), (60001, 7), (60001, 7)),
        ((3999, 7), (61000, 7), (61000, 7)),
    ];
    for (maker, host, guest) in makers {
        for (line, name) in MAKING {
            let name = format!("{name}-{}", maker.0);
            ensure!(runs_as(maker, line, &share.path().join(&name))?, "{name}");
            ensure!(
                owner(&shared.path().join(&name))? == host,
                "{name} on the host"
            );
            ensure!(
                owner(&share.path().join(&name))? == guest,
                "{name} in the guest"
            );
        }
    }
    // A file that is given away, the same way.
    let (here, there) = (share.path().join("file-0"), shared.path().join("file-0"));
    for (given, host) in [(1050, 50050), (2009, 60009), (3000, 61000), (8, 8)] {
        chown(&here, Some(given), None)?;
        ensure!(owner(&there)? == (host, 0), "given to {given}");
    }
    chown(&here, None, Some(1001))?;
    ensure!(owner(&there)? == (8, 51001) && owner(&here)? == (8, 1001));
    // What the host gives away.
    for (host, guest) in [(62003, 5003), (63777, 6000), (50007, 1007), (1007, 1007)] {
        lchown(&there, Some(host), None)?;
        ensure!(owner(&here)? == (guest, 1001), "the host's {host}");
    }
    share.finish()
}

#[test]
fn who_is_forbidden_makes_nothing_and_is_given_nothing() -> Result<()> {
    let Some((shared, share)) = share(&RULES)? else {
        return Ok(());
    };
    fs::write(shared.path().join("there"), b"content")?;
    for id in [70000, 80000, u32::MAX - 1] {
        let made = share.path().join("made");
        for (line, what) in MAKING {
            ensure!(!runs_as((id, 0), line, &made)?, "{id} made a {what}");
        }
        ensure!(shared.path().join("made").symlink_metadata().is_err());
        let refused = chown(share.path().join("there"), Some(id), None);
        let refused = refused.err().and_then(|why| why.raw_os_error());
        ensure!(
            refused == Some(Errno::PERM.raw_os_error()),
            "{id}: {refused:?}"
        );
        ensure!(
            runs_as((id, 0), "cat \"$0\"", &share.path().join("there"))?,
            "{id} may read"
        );
    }
    ensure!(owner(&shared.path().join("there"))? == (0, 0));
    share.finish()
}

/// Major and minor version of the kernel.
fn kernel() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || {
        numbers
            .next()
            .context("a version")?
            .parse()
            .context("a number")
    };
    Ok((number()?, number()?))
}

/// The guest's kernel translates here: it sends what is stored, and who asks with creations only.
#[test]
fn an_idmapped_mount_in_the_guest_shows_and_makes_other_owners() -> Result<()> {
    let Some((shared, share)) = share(&["--allow-idmap"])? else {
        return Ok(());
    };
    fs::write(shared.path().join("there"), b"content")?;
    // Linux lets nobody change a directory whose owner has no number on the mount.
    for path in [shared.path().to_owned(), shared.path().join("there")] {
        chown(path, Some(1000), Some(1000))?;
    }
    if kernel()? < (6, 12) {
        skipped("needs Linux 6.12");
        return share.finish();
    }
    let mapped = IdMapped::of(share.path(), 1000, 6000, 10)?;
    let here = mapped.path();
    ensure!(owner(&here.join("there"))? == (6000, 6000));
    for (line, name) in MAKING {
        ensure!(runs_as((6001, 6002), line, &here.join(name))?, "{name}");
        ensure!(
            owner(&shared.path().join(name))? == (1001, 1002),
            "{name} on the host"
        );
        ensure!(
            owner(&here.join(name))? == (6001, 6002),
            "{name} in the guest"
        );
        ensure!(
            !runs_as((1001, 1001), line, &here.join("nobody"))?,
            "{name} by nobody"
        );
        // The share itself is mounted as before.
        let plain = format!("plain-{name}");
        ensure!(
            runs_as((1003, 1004), line, &share.path().join(&plain))?,
            "{plain}"
        );
        ensure!(
            owner(&shared.path().join(&plain))? == (1003, 1004),
            "{plain}"
        );
    }
    chown(here.join("there"), Some(6009), None)?;
    ensure!(owner(&shared.path().join("there"))? == (1009, 1000));
    ensure!(runs_as((6009, 6000), "rm \"$0\"", &here.join("there"))?);
    drop(mapped);
    share.finish()
}

/// Who asks is not told then, so nobody counts as root.
#[test]
fn allocating_drops_set_id_bits_whoever_asks_where_idmapped_mounts_are_allowed() -> Result<()> {
    let options: [(&[&str], u32); 2] = [(&[], 0o6755), (&["--allow-idmap"], 0o755)];
    for (arguments, want) in options {
        let Some((shared, share)) = share(arguments)? else {
            return Ok(());
        };
        if kernel()? < (6, 12) {
            skipped("needs Linux 6.12");
            return share.finish();
        }
        let file = share.path().join("program");
        fs::write(&file, b"content")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6755))?;
        let open = fs::OpenOptions::new().write(true).open(&file)?;
        fallocate(&open, FallocateFlags::empty(), 0, 8192)?;
        let mode = shared.path().join("program").metadata()?.mode() & 0o7777;
        ensure!(mode == want, "{arguments:?}: {mode:o}");
        drop(open);
        share.finish()?;
    }
    Ok(())
}
