//! The daemons that are measured, and how the two that are not ours are fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{repo, tools};

/// One daemon in one configuration.
pub(super) struct Peer {
    /// Column title.
    pub(super) label: &'static str,
    pub(super) what: &'static str,
    pub(super) program: PathBuf,
    /// Arguments, in which `SOCKET` and `SHARE` stand for the paths.
    pub(super) arguments: &'static [&'static str],
    pub(super) kernel: Kernel,
}

/// What a daemon finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    AsItIs,
    /// strace answers for one that has no Landlock, and lets go of the daemon when it listens.
    WithoutLandlock,
}

/// The release of the Rust crate to compare with.
const CRATE_VERSION: &str = "1.14.0";

/// The Debian package that holds the daemon of QEMU 7.2.
const PACKAGE: &str = "qemu-system-common";

/// What building the crate and running the C daemon need.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/include/seccomp.h", "libseccomp-dev"),
    ("/usr/include/cap-ng.h", "libcap-ng-dev"),
    ("/usr/lib/x86_64-linux-gnu/libglib-2.0.so.0", "libglib2.0-0"),
    ("/usr/lib/x86_64-linux-gnu/libnuma.so.1", "libnuma1"),
    ("dpkg", "dpkg"),
];

// All are confined the same way: chroot, capabilities and seccomp, one process.
const OURS: &[&str] = &[
    "--socket-path=SOCKET",
    "--shared-dir=SHARE",
    "--sandbox=chroot",
    "--log-level=error",
    "--xattr",
];
const OURS_WITHOUT_FILTER: &[&str] = &[
    "--socket-path=SOCKET",
    "--shared-dir=SHARE",
    "--sandbox=chroot",
    "--log-level=error",
    "--seccomp=none",
];
const CRATE: &[&str] = OURS;
const CRATE_WITHOUT_HANDLES: &[&str] = &[
    "--socket-path=SOCKET",
    "--shared-dir=SHARE",
    "--sandbox=chroot",
    "--log-level=error",
    "--xattr",
    "--inode-file-handles=never",
];
const QEMU: &[&str] = &[
    "--socket-path=SOCKET",
    "-o",
    "source=SHARE,sandbox=chroot,cache=auto,announce_submounts,xattr,log_level=err",
];

/// A build of ours.
pub(super) fn ours(program: &Path) -> Peer {
    Peer {
        label: "ours",
        what: "this daemon",
        program: program.to_owned(),
        arguments: OURS,
        kernel: Kernel::AsItIs,
    }
}

/// One build of ours with each choice of the layers that cost something at every request.
pub(super) fn layers(program: &Path) -> [Peer; 4] {
    use Kernel::{AsItIs, WithoutLandlock};
    [
        ("both", OURS, AsItIs),
        ("Landlock alone", OURS_WITHOUT_FILTER, AsItIs),
        ("filter alone", OURS, WithoutLandlock),
        ("neither", OURS_WITHOUT_FILTER, WithoutLandlock),
    ]
    .map(|(label, arguments, kernel)| Peer {
        label,
        arguments,
        kernel,
        ..ours(program)
    })
}

/// The builds of ours to measure.
#[derive(Clone, Debug)]
pub(super) struct Builds {
    pub(super) ours: PathBuf,
    /// An earlier one, to see what a change has won.
    pub(super) before: Option<PathBuf>,
}

/// Every daemon that is here, ours first.
pub(super) fn all(builds: &Builds) -> Vec<Peer> {
    let of_crate = crate_root().join("bin/virtiofsd");
    let before = builds.before.as_deref().map(|program| Peer {
        label: "before",
        what: "an earlier build of this daemon",
        ..ours(program)
    });
    let peers = [
        Peer {
            label: "R",
            what: "crate, 1.14.0",
            program: of_crate.clone(),
            arguments: CRATE,
            kernel: Kernel::AsItIs,
        },
        Peer {
            label: "R-",
            what: "crate, 1.14.0, without file handles",
            program: of_crate,
            arguments: CRATE_WITHOUT_HANDLES,
            kernel: Kernel::AsItIs,
        },
        Peer {
            label: "C",
            what: "QEMU 7.2's daemon",
            program: package_root().join("usr/lib/qemu/virtiofsd"),
            arguments: QEMU,
            kernel: Kernel::AsItIs,
        },
    ];
    let all = [ours(&builds.ours)].into_iter().chain(before).chain(peers);
    let (here, missing): (Vec<Peer>, Vec<Peer>) = all.partition(|peer| peer.program.is_file());
    for peer in missing {
        eprintln!(
            "bench: without {} ({}): see --install-peers",
            peer.label, peer.what
        );
    }
    here
}

/// Fetches what is not there yet.
pub(super) fn install() -> Result<()> {
    tools::debian(NEEDED)?;
    tools::cargo_install("virtiofsd", CRATE_VERSION, &crate_root())?;
    let unpacked = package_root();
    if unpacked.join("usr/lib/qemu/virtiofsd").is_file() {
        return Ok(());
    }
    let folder = root();
    fs::create_dir_all(&folder)?;
    println!("unpacking {PACKAGE} into {}", unpacked.display());
    // The package is only unpacked: installing it would bring half of QEMU.
    let downloaded = Command::new("apt-get")
        .args(["-qq", "download", PACKAGE])
        .current_dir(&folder)
        .status()
        .context("cannot run apt-get")?;
    ensure!(
        downloaded.success(),
        "apt-get cannot download {PACKAGE} ({downloaded})"
    );
    let package = package_in(&folder)?;
    repo::run(Command::new("dpkg").arg("-x").arg(package).arg(&unpacked))
}

fn package_in(folder: &Path) -> Result<PathBuf> {
    fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", folder.display()))
}

fn root() -> PathBuf {
    repo::target_dir().join("peers")
}

fn crate_root() -> PathBuf {
    root().join("crate")
}

fn package_root() -> PathBuf {
    root().join("qemu")
}
