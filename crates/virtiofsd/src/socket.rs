//! The socket that a front-end connects to.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{Gid, Mode};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::umask;

use crate::sys;

/// Who may connect: the owner alone, or a group as well.
const OWNER_ONLY: u32 = 0o177;
const WITH_GROUP: u32 = 0o117;

/// A group that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    name: String,
    id: u32,
}

/// Finds a group by name or number.
///
/// # Errors
///
/// One line for the operator.
pub fn group(name: &str) -> Result<Group, String> {
    Ok(Group {
        name: name.to_owned(),
        id: group_id(name)?,
    })
}

/// Makes a listening socket in place of one that no live daemon holds.
///
/// # Errors
///
/// One line for the operator.
pub fn bind(path: &Path, group: Option<&Group>) -> Result<UnixListener, String> {
    remove_stale(path)?;
    let before = umask(Mode::from_raw_mode(if group.is_some() {
        WITH_GROUP
    } else {
        OWNER_ONLY
    }));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(|error| {
        format!(
            "socket {}: {error}; is its directory there and writable?",
            path.display()
        )
    })?;
    let Some(Group { name, id }) = group else {
        return Ok(listener);
    };
    if let Err(errno) = rustix::fs::chown(path, None, Some(Gid::from_raw(*id))) {
        // Nobody is going to listen.
        let _ = std::fs::remove_file(path);
        return Err(format!(
            "socket {}: cannot be given to group {name}: {errno}; the daemon's user has to be in it",
            path.display()
        ));
    }
    Ok(listener)
}

/// Takes a socket that was handed over by number, if it is one that a front-end can connect to.
///
/// # Errors
///
/// One line for the operator.
pub fn inherited(number: i32) -> Result<UnixListener, String> {
    let descriptor = sys::inherited(number).map_err(|error| {
        format!(
            "--fd {number}: {error}: no such descriptor was handed over; give that of a listening socket"
        )
    })?;
    let listens = socket_acceptconn(&descriptor).unwrap_or(false);
    let unix = socket_domain(&descriptor).is_ok_and(|domain| domain == AddressFamily::UNIX);
    let stream = socket_type(&descriptor).is_ok_and(|kind| kind == SocketType::STREAM);
    if !(listens && unix && stream) {
        return Err(format!(
            "--fd {number}: not a UNIX stream socket that listens; give the descriptor of one"
        ));
    }
    Ok(descriptor.into())
}

/// The pid file's lock says that no daemon of ours lives there; only a socket is ever removed, and none at which
/// another program listens.
fn remove_stale(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(format!(
            "{} is there and is no socket; choose another path",
            path.display()
        )),
        Ok(_) if somebody_listens(path) => Err(format!(
            "socket {} is busy: another program listens there; stop it, or choose another path",
            path.display()
        )),
        Ok(_) => std::fs::remove_file(path)
            .map_err(|error| format!("old socket {}: {error}", path.display())),
    }
}

/// Asks the kernel's table: to connect would disturb whoever listens.
fn somebody_listens(path: &Path) -> bool {
    std::fs::read("/proc/net/unix").is_ok_and(|table| is_listed(&table, path))
}

/// Whether a table of sockets has one that listens at this path: the flags are its fourth field, the path stands
/// behind the seventh and one blank.
fn is_listed(table: &[u8], path: &Path) -> bool {
    const LISTENS: &[u8] = b"00010000";
    table.split(|byte| *byte == b'\n').any(|line| {
        let mut rest = line;
        let mut flags: &[u8] = b"";
        for number in 1..=7 {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(|byte| *byte == b' ');
            let (field, behind) = rest.split_at(end.unwrap_or(rest.len()));
            if number == 4 {
                flags = field;
            }
            rest = behind;
        }
        flags == LISTENS && rest.strip_prefix(b" ") == Some(path.as_os_str().as_bytes())
    })
}

/// Reads `/etc/group` itself: name service modules cannot be loaded into a static program.
fn group_id(name: &str) -> Result<u32, String> {
    let groups =
        std::fs::read_to_string("/etc/group").map_err(|error| format!("/etc/group: {error}"))?;
    let line = groups
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split(':').nth(1)?.parse().ok())
        .or_else(|| name.parse().ok())
        .ok_or_else(|| {
            format!(
                "--socket-group: group '{name}' is not in /etc/group; add it, or give its number"
            )
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_unless_a_group_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        for (group, mode) in [(None, 0o600), (Some(group("root").unwrap()), 0o660)] {
            bind(&path, group.as_ref()).unwrap();
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                mode
            );
        }
    }

    #[test]
    fn a_group_has_a_name_or_a_number() {
        assert_eq!(group("root").unwrap().id, 0);
        assert_eq!(group("4711").unwrap().id, 4711);
        let unknown = group("no-such-group").unwrap_err();
        assert!(unknown.contains("not in /etc/group"), "{unknown}");
    }

    #[test]
    fn only_a_socket_at_which_nobody_listens_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = bind(&path, None).unwrap();
        assert!(bind(&path, None).unwrap_err().contains("is busy"));
        drop(first);
        // A child that another test forked has a copy of the first socket until it ends.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let second = loop {
            match bind(&path, None) {
                Err(busy) if std::time::Instant::now() < deadline => {
                    assert!(busy.contains("is busy"), "{busy}");
                    std::thread::yield_now();
                }
                bound => break bound,
            }
        };
        drop(second.unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path, None).unwrap_err().contains("is no socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
