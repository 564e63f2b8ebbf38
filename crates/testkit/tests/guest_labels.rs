//! Labels that a guest under SELinux sends with what it makes.
//!
//! The guest's kernel has SELinux and no policy, so everything new is called "unlabeled". That is enough: the label
//! travels in the request as it does under a policy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::fs::lgetxattr;
use rustix::io::Errno;
use virtiofs_testkit::guest::share::{GuestShare, guest_or_skip};
use virtiofs_testkit::guest::{Machine, Root};

const MINUTE: Duration = Duration::from_secs(60);
/// Labels become attributes that every user of the host may set, on files and directories.
const MAP: &str = "--xattrmap=:prefix:all:security.:user.virtiofs.: :ok:all:::";
const LABEL: &str = "user.virtiofs.security.selinux";

fn label(path: &Path) -> Result<Vec<u8>, Errno> {
    let mut value = [0; 256];
    let len = lgetxattr(path, LABEL, &mut value[..])?;
    Ok(value[..len].to_vec())
}

/// The machine's label comes in the form that its FUSE revision has for it.
fn what_it_makes_is_labelled(machine: Machine) -> Result<()> {
    let Some(guest) = guest_or_skip(machine, Root::Busybox)? else {
        return Ok(());
    };
    let guest = guest.kernel_option("security=selinux");
    let mut share = GuestShare::start(&["--security-label", MAP])?;
    // A symlink has no attributes of users: what cannot be labelled is not made.
    let script = "set -e
        [ \"$(tr -d '\\0' </proc/self/attr/current)\" = kernel ]
        echo content >file
        mkdir directory
        (set -C; echo more >directory/inner)
        ! ln -s file link
        ! mkfifo fifo
        echo *";
    let outcome = share.run(&guest, script, MINUTE)?;
    ensure!(
        outcome.output.ends_with("directory file\n"),
        "{:?}",
        outcome.output
    );
    for path in ["file", "directory", "directory/inner"] {
        let label = label(&share.path().join(path));
        ensure!(label == Ok(b"unlabeled\0".to_vec()), "{path}: {label:?}");
    }
    ensure!(fs::read(share.path().join("file"))? == b"content\n");
    ensure!(fs::symlink_metadata(share.path().join("link")).is_err());
    ensure!(fs::symlink_metadata(share.path().join("fifo")).is_err());
    Ok(())
}

#[test]
fn linux_6_1_labels_what_it_makes() -> Result<()> {
    what_it_makes_is_labelled(Machine::Uml61)
}

#[test]
fn linux_7_2_labels_what_it_makes() -> Result<()> {
    what_it_makes_is_labelled(Machine::Uml72)
}

/// What the daemon relies on where the host has SELinux: one descriptor takes a label and then its end.
#[test]
fn a_thread_takes_a_label_and_forgets_it_through_one_descriptor() -> Result<()> {
    for machine in [Machine::Uml61, Machine::Uml72] {
        let Some(guest) = guest_or_skip(machine, Root::Busybox)? else {
            return Ok(());
        };
        let guest = guest.kernel_option("security=selinux");
        let mut share = GuestShare::start(&[])?;
        let script = "own=/proc/thread-self/attr/fscreate
            exec 4>$own
            printf 'file\\0' >&4
            read -r during <$own
            printf '\\n' >&4
            read -r after <$own
            echo \"during '$during' after '$after'\"";
        let outcome = share.run(&guest, script, MINUTE)?;
        ensure!(
            outcome.output == "during 'file' after ''\n",
            "{machine}: {:?}",
            outcome.output
        );
    }
    Ok(())
}
