//! Debian packages of any suite, unpacked and run where they lie.
//!
//! Nothing is installed: a private apt configuration, derived from where the
//! machine's own packages come from, fetches packages *with everything that
//! they depend on*, and they are unpacked below the cache. A program starts
//! through the tree's own dynamic loader, so that neither the release of the
//! machine's distribution nor what is installed on it matters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{FlockOperation, flock};

use super::{Unavailable, cache};

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Newer packages, built for Debian 12.
    BookwormBackports,
    /// Debian 14.
    Forky,
}

impl Suite {
    /// Suites to look in; the first is preferred.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &["bookworm"],
            Self::BookwormBackports => &["bookworm-backports", "bookworm"],
            Self::Forky => &["forky"],
        }
    }

    fn name(self) -> &'static str {
        self.names()[0]
    }
}

/// Where all current releases of Debian keep their libraries, from `/`.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Folders that are links into `/usr`. Bookworm's packages still have files in them.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Packages, unpacked with all that they depend on.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Fetches and unpacks, once; fails with [`Unavailable`] where the
    /// packages cannot be had.
    pub fn fetch(suite: Suite, packages: &[&str]) -> Result<Self> {
        let recipe = format!("1 {suite:?} {packages:?}");
        let name = format!("{}-{}", suite.name(), packages[0]);
        let root = cache::entry(&name, &recipe, |staging| {
            let archives = tempfile::tempdir()?;
            download(suite, packages, archives.path()).map_err(|error| {
                // Of apt's lines the first says what is wrong.
                let error = format!("{error:#}");
                let why = error.lines().next().unwrap_or_default();
                Unavailable(format!("{packages:?} of {}: {why}", suite.name()))
            })?;
            unpack_all(archives.path(), staging)
        })?;
        Ok(Self { root })
    }

    /// A file of the tree.
    #[must_use]
    pub fn path(&self, from_root: &str) -> PathBuf {
        self.root.join(from_root)
    }

    /// The dynamic loader.
    #[must_use]
    pub fn loader(&self) -> PathBuf {
        self.path(LIBRARIES).join("ld-linux-x86-64.so.2")
    }

    /// Where its libraries are.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.path(LIBRARIES)
    }

    /// A program of the tree, to be run on this machine with the tree's libraries.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.loader());
        command
            .args(["--library-path", &self.library_path()])
            .arg(self.path(program));
        command
    }

    /// The same for a script, as words without a space in any of them.
    #[must_use]
    pub fn command_line(&self, program: &str) -> String {
        let command = self.command(program);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(std::ffi::OsStr::to_string_lossy).collect();
        words.join(" ")
    }

    /// Of the programs used here, fio has libraries that are kept in a folder of their own.
    fn library_path(&self) -> String {
        let libraries = self.libraries();
        let of_fio = libraries.join("ceph");
        format!("{}:{}", libraries.display(), of_fio.display())
    }

    /// The only entry of a folder, such as the one kernel release in `usr/lib/modules`.
    pub fn only_entry(&self, folder: &str) -> Result<PathBuf> {
        let folder = self.path(folder);
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut paths = entries.map(|entry| Ok::<_, std::io::Error>(entry?.path()));
        let first = paths.next().context("an empty folder")??;
        ensure!(paths.next().is_none(), "several in {}", folder.display());
        Ok(first)
    }
}

/// The static busybox: guests live on it, and so do steps on the host that need a common tool.
pub fn busybox() -> Result<PathBuf> {
    Ok(Tree::fetch(Suite::Bookworm, &["busybox-static"])?.path("usr/bin/busybox"))
}

/// Runs a command and takes its standard output; its standard error is the error's text.
pub(super) fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{:?}: {}",
        command.get_program(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// Downloads packages and their dependencies into `archives`, as if nothing were installed.
fn download(suite: Suite, packages: &[&str], archives: &Path) -> Result<()> {
    let apt = private_apt(suite)?;
    // Apt does not wait for another apt in the same folder.
    let lock = fs::File::create(apt.join("one-at-a-time"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    fs::create_dir_all(archives.join("partial"))?;
    let mut command = apt_get(&apt);
    command
        .arg("-o")
        .arg(format!("Dir::Cache::archives={}", archives.display()));
    command.args(["--yes", "--download-only", "--no-install-recommends"]);
    command.args(["--target-release", suite.name(), "install"]);
    output_of(command.args(packages)).map(drop)
}

/// The folder of an apt configuration that knows only `suite`, with its lists fetched.
fn private_apt(suite: Suite) -> Result<PathBuf> {
    let sources = sources(&mirror()?, suite);
    let recipe = format!("2 {sources}");
    cache::entry(&format!("apt-{}", suite.name()), &recipe, |staging| {
        for folder in ["lists/partial", "cache"] {
            fs::create_dir_all(staging.join(folder))?;
        }
        fs::write(staging.join("sources.list"), &sources)?;
        fs::write(staging.join("status"), "")?;
        output_of(apt_get(staging).arg("update")).map(drop)
    })
}

/// apt-get with everything of its own below `folder`.
fn apt_get(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let below = |path: &str| folder.join(path).display().to_string();
    let options = [
        ("Dir::Etc::sourcelist", below("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::State", below("")),
        ("Dir::State::lists", below("lists")),
        // Nothing is installed, so every dependency is fetched. Apt's locks are beside it.
        ("Dir::State::status", below("status")),
        ("Dir::Cache", below("cache")),
        // The folders belong to the caller; apt's own user may not write there.
        ("APT::Sandbox::User", "root".to_owned()),
        (
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
            "false".to_owned(),
        ),
        // Without a network a test should say so soon.
        ("Acquire::Retries", "0".to_owned()),
        ("Acquire::http::Timeout", "30".to_owned()),
        ("Acquire::https::Timeout", "30".to_owned()),
        // A suite that lacks a list is an error, not a warning.
        ("APT::Update::Error-Mode", "any".to_owned()),
    ];
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    for (name, value) in options {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    command
}

/// `sources.list` for a suite.
fn sources(mirror: &str, suite: Suite) -> String {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let options = if Path::new(KEYRING).exists() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    suite
        .names()
        .iter()
        .map(|name| format!("deb {options}{mirror} {name} main\n"))
        .collect()
}

/// Where this machine gets Debian from.
fn mirror() -> Result<String> {
    let list = || {
        let mut command = Command::new("apt-get");
        command.args([
            "indextargets",
            "--format",
            "$(ORIGIN) $(RELEASE) $(REPO_URI)",
        ]);
        Ok::<_, anyhow::Error>(String::from_utf8(output_of(&mut command)?)?)
    };
    if let Some(mirror) = mirror_in(&list()?) {
        return Ok(mirror.to_owned());
    }
    // A fresh machine knows its sources, but not yet what they are.
    output_of(Command::new("apt-get").args(["-q", "update"]))?;
    mirror_in(&list()?)
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("this machine's apt has no source of Debian's releases"))
}

/// The archive of releases, not of security updates or others' packages.
fn mirror_in(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (origin, release, uri) = (words.next()?, words.next()?, words.next()?);
        (origin == "Debian" && !release.contains(['-', '/'])).then_some(uri)
    })
}

/// Unpacks every package of a folder below `root`, without running any of their scripts.
pub(super) fn unpack_all(archives: &Path, root: &Path) -> Result<()> {
    for name in MERGED {
        fs::create_dir_all(root.join("usr").join(name))?;
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    for entry in fs::read_dir(archives)? {
        let package = entry?.path();
        if package.extension().is_some_and(|suffix| suffix == "deb") {
            unpack(&package, root).with_context(|| package.display().to_string())?;
        }
    }
    Ok(())
}

fn unpack(package: &Path, root: &Path) -> Result<()> {
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run dpkg-deb")?;
    let archive = reader.stdout.take().context("dpkg-deb has no output")?;
    // `dpkg-deb --extract` would replace the links of MERGED by folders.
    let written = Command::new("tar")
        .args(["--extract", "--keep-directory-symlink"])
        .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/locale"])
        .arg("--directory")
        .arg(root)
        .stdin(archive)
        .status()
        .context("run tar")?;
    let read = reader.wait()?;
    ensure!(
        read.success() && written.success(),
        "dpkg-deb: {read}, tar: {written}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_releases() {
        let targets = "\
Debian bookworm-updates mirror://updates/
Debian bookworm-security mirror://security/
Someone bookworm mirror://someone/
Debian bookworm mirror://releases/
";
        assert_eq!(mirror_in(targets), Some("mirror://releases/"));
        assert_eq!(mirror_in("Someone noble mirror://someone/\n"), None);
        assert_eq!(mirror_in(""), None);
    }

    #[test]
    fn sources_name_the_suite_and_what_it_builds_on() {
        let sources = sources("mirror://m/", Suite::BookwormBackports);
        let suites: Vec<&str> = sources
            .lines()
            .filter_map(|line| line.split(' ').rev().nth(1))
            .collect();
        assert_eq!(suites, ["bookworm-backports", "bookworm"]);
    }
}
