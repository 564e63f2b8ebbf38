//! The socket that a front-end connects to.

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

/// Makes a listening socket in place of one that no live daemon holds.
///
/// # Errors
///
/// One line for the operator. An unknown group fails before anything is made.
pub fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, String> {
    let group = group
        .map(|name| group_id(name).map(|id| (name, id)))
        .transpose()?;
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
    if let Some((name, id)) = group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(id))).map_err(|errno| {
            format!(
                "socket {}: cannot be given to group {name}: {errno}",
                path.display()
            )
        })?;
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

/// The pid file's lock says that nobody lives there; only a socket is ever removed.
fn remove_stale(path: &Path) -> Result<(), String> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path)
            .map_err(|error| format!("old socket {}: {error}", path.display())),
        Ok(_) => Err(format!(
            "{} is there and is no socket; choose another path",
            path.display()
        )),
    }
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
        for (group, mode) in [(None, 0o600), (Some("root"), 0o660)] {
            bind(&path, group).unwrap();
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                mode
            );
        }
    }

    #[test]
    fn nothing_is_made_or_removed_for_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert!(
            bind(&path, Some("no-such-group"))
                .unwrap_err()
                .contains("not in /etc/group")
        );
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path, None).unwrap_err().contains("is no socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
