//! File systems of every kind, made for a test and gone with it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use virtiofs_testkit::bridge::share::{can_mount, skipped};

/// A mounted file system.
pub(crate) struct Store {
    place: TempDir,
    path: PathBuf,
    /// Below what is mounted last.
    under: Vec<PathBuf>,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|why| format!("{program}: {why}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

impl Store {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// One in memory, or a reason to skip the test.
    pub(crate) fn tmpfs() -> Option<Self> {
        Self::or_skip(|| Self::plain("tmpfs", "tmpfs", &[]))
    }

    pub(crate) fn ext4() -> Option<Self> {
        Self::or_skip(|| Self::looped("mkfs.ext4", &["-q", "-F"], "64M"))
    }

    /// Blocks a quarter of a page long.
    pub(crate) fn ext4_of_small_blocks() -> Option<Self> {
        Self::or_skip(|| Self::looped("mkfs.ext4", &["-q", "-F", "-b", "1024"], "64M"))
    }

    pub(crate) fn xfs() -> Option<Self> {
        Self::or_skip(|| Self::looped("mkfs.xfs", &["-q", "-f"], "320M"))
    }

    pub(crate) fn btrfs() -> Option<Self> {
        Self::or_skip(|| Self::looped("mkfs.btrfs", &["-q", "-f"], "128M"))
    }

    /// An overlay; its lower layer, on a file system of its own, is filled first.
    pub(crate) fn overlay(fill: impl Fn(&Path)) -> Option<Self> {
        Self::or_skip(|| {
            let place = TempDir::new().map_err(|why| why.to_string())?;
            let (lower, upper) = (place.path().join("lower"), place.path().join("layers"));
            let path = place.path().join("merged");
            for directory in [&lower, &upper, &path] {
                std::fs::create_dir(directory).map_err(|why| why.to_string())?;
            }
            for directory in [&lower, &upper] {
                run("mount", &["-t", "tmpfs", "tmpfs", text(directory)])?;
            }
            fill(&lower);
            for directory in ["upper", "work"] {
                std::fs::create_dir(upper.join(directory)).map_err(|why| why.to_string())?;
            }
            let layers = format!(
                "lowerdir={},upperdir={},workdir={},xino=off",
                text(&lower),
                text(&upper.join("upper")),
                text(&upper.join("work"))
            );
            run(
                "mount",
                &["-t", "overlay", "overlay", "-o", &layers, text(&path)],
            )?;
            Ok(Self {
                place,
                path,
                under: vec![lower, upper],
            })
        })
    }

    fn or_skip(make: impl FnOnce() -> Result<Self, String>) -> Option<Self> {
        if !can_mount() {
            skipped("needs root");
            return None;
        }
        match make() {
            Ok(store) => Some(store),
            Err(why) => {
                skipped(&why);
                None
            }
        }
    }

    fn plain(kind: &str, source: &str, options: &[&str]) -> Result<Self, String> {
        let place = TempDir::new().map_err(|why| why.to_string())?;
        let path = place.path().to_path_buf();
        let mut arguments = vec!["-t", kind];
        arguments.extend(options);
        run("mount", &[&arguments[..], &[source, text(&path)]].concat())?;
        Ok(Self {
            place,
            path,
            under: Vec::new(),
        })
    }

    fn looped(mkfs: &str, options: &[&str], size: &str) -> Result<Self, String> {
        let place = TempDir::new().map_err(|why| why.to_string())?;
        let (image, path) = (place.path().join("image"), place.path().join("mounted"));
        std::fs::create_dir(&path).map_err(|why| why.to_string())?;
        run("truncate", &["-s", size, text(&image)])?;
        run(mkfs, &[options, &[text(&image)]].concat())?;
        run("mount", &["-o", "loop", text(&image), text(&path)])?;
        Ok(Self {
            place,
            path,
            under: Vec::new(),
        })
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Unmounts what nobody uses any more.
///
/// A program that another test starts holds all descriptors for a moment, between fork and exec.
pub(crate) fn unmount_idle(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match unmount(path, UnmountFlags::empty()) {
            Ok(()) => return,
            Err(errno) => assert!(errno == Errno::BUSY && Instant::now() < deadline, "{errno}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a program that must succeed.
pub(crate) fn must(program: &str, arguments: &[&str]) {
    run(program, arguments).unwrap();
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        for path in &self.under {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}
