//! Programs that the commands need and that a fresh machine lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::repo;

/// Where this program's own tools are installed; gone with the target directory.
pub(crate) fn dir() -> PathBuf {
    repo::target_dir().join("tools")
}

/// Finds a program in `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Installs a program from cargo's registry under `root`, unless it is there.
pub(crate) fn cargo_install(krate: &str, version: &str, root: &Path) -> Result<()> {
    if root.join("bin").join(krate).is_file() {
        return Ok(());
    }
    println!("installing {krate} {version} into {}", root.display());
    let mut install = Command::new("cargo");
    install.args([
        "install",
        "--quiet",
        "--locked",
        "--version",
        version,
        "--root",
    ]);
    repo::run(install.arg(root).arg(krate)).with_context(|| format!("cannot install {krate}"))
}

/// Installs what is missing of (program, Debian package), as root; names the packages otherwise.
pub(crate) fn debian(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(file, _)| !Path::new(file).exists() && find(file).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    if !is_root()? {
        bail!("programs are missing; as root: {install}");
    }
    println!("installing {}", missing.join(" "));
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"]);
        repo::output(command.args(arguments)).map(drop)
    };
    let arguments = [
        &["install", "--yes", "--no-install-recommends"],
        missing.as_slice(),
    ]
    .concat();
    // The list of packages may be missing or old on a fresh machine.
    apt_get(&arguments).or_else(|_| apt_get(&["update"]).and_then(|()| apt_get(&arguments)))
}

fn is_root() -> Result<bool> {
    Ok(repo::output(Command::new("id").arg("-u"))?.trim() == "0")
}
