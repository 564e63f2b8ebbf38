//! Overlays with all their layers on a bridged share do what those on the host's own directories do.

use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::lgetxattr;
use rustix::io::Errno;
use virtiofs_testkit::bridge::share::{Tmpfs, on_tmpfs};
use virtiofs_testkit::suites::overlay::{self, Attributes, MAPPED, TRUSTED, USER};

fn agrees(attributes: Attributes) -> Result<Option<Tmpfs>> {
    let Some((shared, share)) = on_tmpfs(attributes.daemon)? else {
        return Ok(None);
    };
    let beside = Tmpfs::new()?;
    let expected = overlay::run(beside.path(), attributes)?;
    let actual = overlay::run(share.path(), attributes)?;
    ensure!(
        actual == expected,
        "on the share\n{actual}\non the host\n{expected}"
    );
    share.finish()?;
    Ok(Some(shared))
}

/// What says that nothing below an upper directory shines through.
fn opaque(layer: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 16];
    let len = lgetxattr(layer.join("opaque"), name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

#[test]
fn an_overlay_works_with_trusted_attributes_on_the_host() -> Result<()> {
    if let Some(shared) = agrees(TRUSTED)? {
        let layer = shared.path().join("first");
        ensure!(opaque(&layer, "trusted.overlay.opaque")? == b"y");
    }
    Ok(())
}

#[test]
fn an_overlay_works_with_its_attributes_under_names_that_anybody_may_set() -> Result<()> {
    if let Some(shared) = agrees(MAPPED)? {
        let layer = shared.path().join("first");
        ensure!(opaque(&layer, "user.virtiofs.trusted.overlay.opaque")? == b"y");
    }
    Ok(())
}

#[test]
fn an_overlay_works_with_attributes_of_users() -> Result<()> {
    if let Some(shared) = agrees(USER)? {
        let layer = shared.path().join("first");
        ensure!(opaque(&layer, "user.overlay.opaque")? == b"y");
    }
    Ok(())
}
