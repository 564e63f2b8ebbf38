//! Names that are no component of a path, in every request that takes one.

use anyhow::{Context, Result, ensure};
use virtiofs_testkit::frontend::hostile::OpenShare;
use virtiofs_testkit::fuse::Request;
use virtiofs_testkit::fuse::abi::{self, ROOT};

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const ENAMETOOLONG: i32 = 36;

/// Requests with one name, by that name.
fn naming<'a>(name: &'a [u8], target: u64) -> Vec<Request<'a>> {
    let create = abi::CreateIn {
        flags: 0o102,
        mode: 0o644,
        ..Default::default()
    };
    let mknod = abi::MknodIn {
        mode: 0o100_644,
        ..Default::default()
    };
    vec![
        Request::mkdir(ROOT, name, 0o755, 0),
        Request::mknod(ROOT, name, &mknod),
        Request::symlink(ROOT, name, b"target"),
        Request::create(ROOT, name, &create),
        Request::link(target, ROOT, name),
        Request::unlink(ROOT, name),
        Request::rmdir(ROOT, name),
        Request::rename(ROOT, name, ROOT, b"new"),
        Request::rename(ROOT, b"file", ROOT, name),
        Request::rename2(ROOT, name, ROOT, b"new", 0),
        Request::rename2(ROOT, b"file", ROOT, name, 2),
    ]
}

#[test]
fn o_names_that_are_no_component_are_refused_by_every_opcode() -> Result<()> {
    let mut rig = OpenShare::new()?;
    let outside = rig
        .target
        .share()
        .parent()
        .context("a parent")?
        .join("outside");
    ensure!(!outside.exists());
    let too_long = vec![b'x'; 256];
    let very_long = vec![b'x'; 5000];
    let cases: [(&[u8], i32); 10] = [
        (b"", ENOENT),
        (b".", EINVAL),
        (b"..", EINVAL),
        (b"/", EINVAL),
        (b"../outside", EINVAL),
        (b"/tmp/outside", EINVAL),
        (b"directory/x", EINVAL),
        (b"file/", EINVAL),
        (&too_long, ENAMETOOLONG),
        (&very_long, ENAMETOOLONG),
    ];
    let before = listing(&rig)?;
    for (name, want) in cases {
        for request in naming(name, rig.file) {
            let error = rig.error_of(&request)?;
            let shown = String::from_utf8_lossy(&name[..name.len().min(20)]).into_owned();
            ensure!(
                error == want,
                "opcode {} of {shown:?}: {error}",
                request.opcode
            );
        }
    }
    ensure!(listing(&rig)? == before && !outside.exists());
    rig.finish()
}

fn listing(rig: &OpenShare) -> Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(rig.target.share())? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}

#[test]
fn o_a_name_ends_at_its_first_nul() -> Result<()> {
    let mut rig = OpenShare::new()?;
    for name in [&b"inner\0nul"[..], b"two\0", b"many\0\0\0\0"] {
        let visible = name.split(|byte| *byte == 0).next().unwrap_or_default();
        ensure!(rig.error_of(&Request::mkdir(ROOT, name, 0o755, 0))? == 0);
        ensure!(
            rig.error_of(&Request::rmdir(ROOT, visible))? == 0,
            "{visible:?}"
        );
    }
    rig.finish()
}
