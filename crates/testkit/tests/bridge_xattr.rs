//! Extended attributes and ACLs, as the host's own kernel sees them through the bridge.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, lgetxattr, lgetxattr_query, llistxattr, llistxattr_query,
    lremovexattr, lsetxattr, makedev, mknodat,
};
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::{on_tmpfs, run_within};

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65_536];
    let len = lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    lsetxattr(path, name, value, XattrFlags::empty())
}

/// Names in order, without those that the host's security module adds.
fn list(path: &Path) -> Result<Vec<String>, Errno> {
    let mut names = vec![0; 65_536];
    let len = llistxattr(path, &mut names[..])?;
    let mut names: Vec<String> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// `struct posix_acl_xattr_header` and entries (linux/posix_acl_xattr.h): tag, permissions, id.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY_IN_PARTICULAR: u32 = u32::MAX;

fn acl_for_user(uid: u32, permissions: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 7, NOBODY_IN_PARTICULAR),
        (USER, permissions, uid),
        (GROUP_OBJ, 5, NOBODY_IN_PARTICULAR),
        (MASK, 7, NOBODY_IN_PARTICULAR),
        (OTHER, 0, NOBODY_IN_PARTICULAR),
    ])
}

#[test]
fn attributes_are_set_replaced_listed_and_removed() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(&["--xattr"])? else {
        return Ok(());
    };
    let path = share.path().join("file");
    fs::write(&path, b"content")?;
    let long = vec![b'v'; 40_000];
    set(&path, "user.small", b"one")?;
    set(&path, "user.empty", b"")?;
    set(&path, "user.long", &long)?;
    // Asked for without room, both tell their length.
    ensure!(lgetxattr_query(&path, "user.small") == Ok(3));
    ensure!(llistxattr_query(&path).is_ok_and(|len| len >= 32));
    ensure!(get(&path, "user.small")? == b"one");
    ensure!(get(&path, "user.empty")?.is_empty());
    ensure!(get(&path, "user.long")? == long);
    ensure!(list(&path)? == ["user.empty", "user.long", "user.small"]);
    ensure!(
        get(&shared.path().join("file"), "user.small")? == b"one",
        "the host sees another value"
    );

    let create = lsetxattr(&path, "user.small", b"x", XattrFlags::CREATE);
    ensure!(create == Err(Errno::EXIST), "{create:?}");
    let replace = lsetxattr(&path, "user.new", b"x", XattrFlags::REPLACE);
    ensure!(replace == Err(Errno::NODATA), "{replace:?}");
    let mut short = [0; 2];
    ensure!(lgetxattr(&path, "user.small", &mut short[..]) == Err(Errno::RANGE));
    ensure!(llistxattr(&path, &mut short[..]) == Err(Errno::RANGE));
    ensure!(get(&path, "user.unknown") == Err(Errno::NODATA));

    lremovexattr(&path, "user.small")?;
    ensure!(lremovexattr(&path, "user.small") == Err(Errno::NODATA));
    ensure!(list(&shared.path().join("file"))? == ["user.empty", "user.long"]);
    share.finish()
}

/// A store hides them from others by itself, but there it is the daemon that asks.
#[test]
fn names_of_trusted_attributes_are_listed_for_root_only() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(&["--xattr", "--modcaps=+sys_admin"])? else {
        return Ok(());
    };
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755))?;
    let path = share.path().join("file");
    fs::write(&path, b"")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    set(&path, "trusted.secret", b"")?;
    set(&path, "user.open", b"")?;
    ensure!(list(&path)? == ["trusted.secret", "user.open"]);
    // What says who may walk to a test's folder is nothing of the share's.
    let file = File::open(&path)?;
    let script = "import os, sys; print(*os.listxattr('/proc/self/fd/0'))";
    let mut other = Command::new("python3");
    other.args(["-c", script]).stdin(file).uid(1000).gid(1000);
    let listed = other.output()?;
    // It holds the file, with which the share would be busy.
    drop(other);
    let said = String::from_utf8_lossy(&listed.stdout);
    ensure!(said.trim() == "user.open", "{listed:?}");
    share.finish()
}

#[test]
fn every_type_of_file_has_attributes_and_none_is_opened() -> Result<()> {
    let Some((_shared, share)) = on_tmpfs(&["--xattr"])? else {
        return Ok(());
    };
    let at = |name: &str| share.path().join(name);
    fs::create_dir(at("directory"))?;
    symlink("nowhere", at("symlink"))?;
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0)?;
    mknodat(
        CWD,
        at("device"),
        FileType::CharacterDevice,
        Mode::RUSR,
        makedev(1, 3),
    )?;
    set(&at("directory"), "user.a", b"1")?;
    // Of these, user.* is for files and directories only (man 7 xattr): EPERM comes from the inode itself.
    ensure!(list(&at("directory"))? == ["user.a"]);
    for special in ["symlink", "fifo", "device"] {
        let refused = set(&at(special), "user.a", b"1");
        ensure!(refused == Err(Errno::PERM), "{special}: {refused:?}");
        ensure!(list(&at(special))?.is_empty(), "{special}");
    }
    share.finish()
}

#[test]
fn a_map_renames_what_the_guest_names() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(&["--xattrmap=:map:trusted.:user.guest.:"])? else {
        return Ok(());
    };
    let (guest, host) = (share.path().join("file"), shared.path().join("file"));
    fs::write(&guest, b"")?;
    set(&guest, "trusted.overlay.opaque", b"y")?;
    set(&guest, "user.plain", b"z")?;
    ensure!(list(&host)? == ["user.guest.trusted.overlay.opaque", "user.plain"]);
    ensure!(list(&guest)? == ["trusted.overlay.opaque", "user.plain"]);
    ensure!(get(&guest, "trusted.overlay.opaque")? == b"y");
    set(&host, "trusted.of-the-host", b"hidden")?;
    ensure!(list(&guest)? == ["trusted.overlay.opaque", "user.plain"]);
    ensure!(set(&guest, "user.guest.trusted.x", b"") == Err(Errno::PERM));
    lremovexattr(&guest, "trusted.overlay.opaque")?;
    ensure!(list(&host)? == ["trusted.of-the-host", "user.plain"]);
    share.finish()
}

/// VFS_CAP_REVISION_2 with cap_net_raw permitted and effective (linux/capability.h).
const CAPABILITY: &[u8] = &[
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn capabilities_go_when_a_file_changes_under_whatever_name_they_are_kept() -> Result<()> {
    for map in ["--xattr", "--xattrmap=:map::user.guest.:"] {
        let Some((_shared, share)) = on_tmpfs(&[map])? else {
            return Ok(());
        };
        let path = share.path().join("program");
        type Change = fn(&Path) -> Result<()>;
        let changes: [(&str, Change); 3] = [
            ("write", |path| {
                Ok(File::options().write(true).open(path)?.write_all(b"x")?)
            }),
            ("truncate", |path| {
                Ok(File::options().write(true).open(path)?.set_len(1)?)
            }),
            ("chown", |path| {
                Ok(std::os::unix::fs::chown(path, Some(1), Some(1))?)
            }),
        ];
        for (what, change) in changes {
            fs::write(&path, b"program")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            set(&path, "security.capability", CAPABILITY)
                .with_context(|| format!("{map}: set before {what}"))?;
            let before = get(&path, "security.capability");
            ensure!(
                before == Ok(CAPABILITY.to_vec()),
                "{map}: before {what} {before:?}"
            );
            change(&path)?;
            let after = get(&path, "security.capability");
            ensure!(after == Err(Errno::NODATA), "{map}: after {what} {after:?}");
        }
        share.finish()?;
    }
    Ok(())
}

#[test]
fn acls_are_enforced_and_inherited_where_they_are_asked_for() -> Result<()> {
    let Some((shared, share)) = on_tmpfs(&["--posix-acl"])? else {
        return Ok(());
    };
    let directory = share.path().join("directory");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o755))?;
    set(&directory, DEFAULT_ACL, &acl_for_user(1234, 6))?;
    // A default ACL takes the umask's place; without one the umask counts.
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "umask 077; echo secret >directory/file; mkdir directory/below; echo x >plain",
        ])
        .current_dir(share.path());
    let ran = run_within(Duration::from_secs(20), &mut shell)?;
    ensure!(ran.status.success(), "{}", ran.output);
    let mode =
        |path: &str| Ok::<_, std::io::Error>(shared.path().join(path).metadata()?.mode() & 0o7777);
    ensure!(
        mode("directory/file")? == 0o660,
        "{:o}",
        mode("directory/file")?
    );
    ensure!(mode("plain")? == 0o600, "{:o}", mode("plain")?);
    ensure!(get(&directory.join("below"), DEFAULT_ACL)? == acl_for_user(1234, 6));
    ensure!(list(&directory.join("file"))? == [ACCESS_ACL]);
    for (uid, may) in [(1234, true), (1235, false)] {
        let mut cat = Command::new("cat");
        cat.arg(directory.join("file"));
        std::os::unix::process::CommandExt::uid(&mut cat, uid);
        std::os::unix::process::CommandExt::gid(&mut cat, 4321);
        let ran = run_within(Duration::from_secs(20), &mut cat)?;
        ensure!(ran.status.success() == may, "uid {uid}: {}", ran.output);
    }
    share.finish()
}

#[test]
fn setting_an_acl_drops_set_group_id_for_a_stranger_to_the_group() -> Result<()> {
    let Some((_shared, share)) = on_tmpfs(&["--posix-acl"])? else {
        return Ok(());
    };
    // The group is the daemon's own, so that the host's kernel alone would keep the bit.
    let path = share.path().join("file");
    fs::write(&path, b"")?;
    std::os::unix::fs::chown(&path, Some(1234), Some(0))?;
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2755))?;
    let script = "import os,sys; os.setxattr(sys.argv[1], 'system.posix_acl_access', bytes.fromhex(sys.argv[2]))";
    let hex: String = acl_for_user(1, 4)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(&path).arg(hex);
    std::os::unix::process::CommandExt::uid(&mut python, 1234);
    std::os::unix::process::CommandExt::gid(&mut python, 1234);
    let ran = run_within(Duration::from_secs(20), &mut python)?;
    ensure!(ran.status.success(), "{}", ran.output);
    let mode = path.metadata()?.mode();
    ensure!(mode & 0o2000 == 0, "{mode:o}");
    share.finish()
}

#[test]
fn without_the_option_there_are_no_attributes_and_no_acls() -> Result<()> {
    let Some((_shared, plain)) = on_tmpfs(&[])? else {
        return Ok(());
    };
    let path = plain.path().join("file");
    fs::write(&path, b"")?;
    ensure!(set(&path, "user.a", b"") == Err(Errno::OPNOTSUPP));
    ensure!(get(&path, "user.a") == Err(Errno::OPNOTSUPP));
    plain.finish()?;

    let Some((shared, no_acls)) = on_tmpfs(&["--xattr"])? else {
        return Ok(());
    };
    let (path, host) = (no_acls.path().join("file"), shared.path().join("file"));
    fs::write(&path, b"")?;
    set(&host, ACCESS_ACL, &acl_for_user(1234, 6))?;
    let refused = set(&path, ACCESS_ACL, &acl_for_user(1234, 6));
    ensure!(refused == Err(Errno::OPNOTSUPP), "{refused:?}");
    ensure!(
        list(&path)?.is_empty(),
        "an ACL that does not count is shown"
    );
    no_acls.finish()
}
