//! What the host's own kernel makes of names and files that change under it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{BridgedShare, Tmpfs, can_mount, skipped};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::program;

/// Cached for no time at all, so that each call asks the daemon.
fn uncached(shared: &Path) -> Result<BridgedShare> {
    let launch = Launch::new(shared).arg("--cache").arg("never");
    BridgedShare::start(launch, &BridgeOptions::default())
}

fn started(shared: &Path) -> Result<BridgedShare> {
    BridgedShare::start(Launch::new(shared), &BridgeOptions::default())
}

fn open(path: &Path, flags: OFlags) -> Result<(), Option<i32>> {
    let flags = flags.bits().cast_signed();
    let mut options = File::options();
    match flags & OFlags::RWMODE.bits().cast_signed() {
        0 => options.read(true),
        1 => options.write(true),
        _ => options.read(true).write(true),
    };
    let opened = options.custom_flags(flags).open(path);
    opened.map(drop).map_err(|why| why.raw_os_error())
}

fn run_a_copy(of: &str, at: &Path) -> Result<Child> {
    program::copy(of, at)?;
    Ok(Command::new(at).arg("30").spawn()?)
}

/// Two of the three ways to write to a running program fail as they do anywhere. The third,
/// `O_RDONLY|O_TRUNC`, is refused by Linux after the truncation where ATOMIC_O_TRUNC was agreed
/// on: the kernel opens the file, and with it cuts it, before it asks whether it may write.
#[test]
fn a_running_program_is_not_opened_for_writing() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = uncached(shared.path())?;
    let path = share.path().join("program");
    let mut child = run_a_copy("/bin/sleep", &path)?;
    let busy = Some(Errno::TXTBSY.raw_os_error());
    let size = path.metadata()?.len();
    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC] {
        for _ in 0..20 {
            ensure!(open(&path, flags) == Err(busy), "{flags:?}");
        }
        ensure!(path.metadata()?.len() == size, "{flags:?} has cut it");
    }
    ensure!(child.try_wait()?.is_none(), "it ran all the time");
    child.kill()?;
    child.wait()?;
    ensure!(open(&path, OFlags::WRONLY) == Ok(()));
    share.finish()
}

#[test]
fn a_program_whose_name_goes_runs_on() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = uncached(shared.path())?;
    let path = share.path().join("program");
    let mut child = run_a_copy("/bin/sleep", &path)?;
    std::fs::remove_file(&path)?;
    std::fs::write(&path, b"another file of the same name")?;
    let still = std::fs::read(format!("/proc/{}/exe", child.id()))?;
    ensure!(still == std::fs::read("/bin/sleep")?);
    ensure!(child.try_wait()?.is_none());
    child.kill()?;
    child.wait()?;
    share.finish()
}

#[test]
fn a_working_directory_that_is_removed_is_still_there() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = uncached(shared.path())?;
    // Each command runs in the directory that the one before has removed.
    let script = "set -e; mkdir -p a/b; cd a/b; rmdir ../b; rmdir ../../a; \
        test \"$(stat -c %h .)\" -le 2; ls -A; ! mkdir new 2>/dev/null; ! touch file 2>/dev/null; cd /";
    let ran = Command::new("sh")
        .args(["-c", script])
        .current_dir(share.path())
        .output()?;
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.success(), "{errors}");
    share.finish()
}

#[test]
fn an_open_file_is_the_same_one_through_links_renames_and_removal() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = uncached(shared.path())?;
    let path = |name: &str| share.path().join(name);
    std::fs::write(path("one"), b"contents")?;
    let file = File::options().read(true).write(true).open(path("one"))?;
    let number = file.metadata()?.ino();
    let check = |links: u64| -> Result<()> {
        let metadata = file.metadata()?;
        ensure!((metadata.ino(), metadata.nlink()) == (number, links));
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0)?;
        ensure!(&bytes == b"contents");
        Ok(())
    };
    std::fs::hard_link(path("one"), path("two"))?;
    check(2)?;
    std::fs::remove_file(path("one"))?;
    check(1)?;
    std::fs::rename(path("two"), path("three"))?;
    check(1)?;
    std::fs::write(path("other"), b"other")?;
    std::fs::rename(path("other"), path("three"))?;
    check(0)?;
    file.set_len(4)?;
    ensure!(file.metadata()?.len() == 4);
    ensure!(std::fs::read(path("three"))? == b"other");
    drop(file);
    share.finish()
}

/// overlayfs gives a file another number when it is first written to, if it had several names.
#[test]
fn a_copy_up_while_a_file_is_open_is_neither_an_error_nor_another_file() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let (lower, layers, merged) = (Tmpfs::new()?, Tmpfs::new()?, tempfile::tempdir()?);
    std::fs::write(lower.path().join("file"), b"lower")?;
    std::fs::hard_link(lower.path().join("file"), lower.path().join("link"))?;
    for directory in ["upper", "work"] {
        std::fs::create_dir(layers.path().join(directory))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={},xino=off",
        lower.path().display(),
        layers.path().join("upper").display(),
        layers.path().join("work").display()
    );
    let options = std::ffi::CString::new(options)?;
    mount(
        "overlay",
        merged.path(),
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .context("mount an overlay")?;
    let share = uncached(merged.path())?;
    let path = share.path().join("file");
    let mut open = File::open(&path)?;
    let on_host = merged.path().join("file");
    let before = on_host.metadata()?.ino();
    let mut host = File::options().append(true).open(&on_host)?;
    std::io::Write::write_all(&mut host, b"+upper")?;
    ensure!(
        on_host.metadata()?.ino() != before,
        "it has become another inode"
    );
    ensure!(open.metadata()?.len() == 11);
    let mut bytes = String::new();
    open.read_to_string(&mut bytes)?;
    ensure!(bytes.starts_with("lower"), "{bytes}");
    ensure!(std::fs::read(&path)? == b"lower+upper");
    File::options()
        .append(true)
        .open(&path)?
        .write_all_at(b"!", 0)?;
    ensure!(std::fs::read(&on_host)?.len() == 12);
    drop((open, host));
    share.finish()?;
    unmount(merged.path(), UnmountFlags::DETACH)?;
    Ok(())
}

/// With attributes and names cached, too, what the host replaces is seen when the cache is old.
#[test]
fn what_the_host_replaces_is_seen_after_the_second_it_may_be_cached() -> Result<()> {
    if !can_mount() {
        skipped("needs root and /dev/fuse");
        return Ok(());
    }
    let shared = Tmpfs::new()?;
    let share = started(shared.path())?;
    let (seen, on_host) = (share.path().join("file"), shared.path().join("file"));
    std::fs::write(&on_host, b"old")?;
    ensure!(std::fs::read(&seen)? == b"old");
    let open = File::open(&seen)?;
    std::fs::write(shared.path().join("new"), b"another")?;
    std::fs::rename(shared.path().join("new"), &on_host)?;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ensure!(std::fs::read(&seen)? == b"another");
    let mut bytes = [0; 3];
    open.read_exact_at(&mut bytes, 0)?;
    ensure!(&bytes == b"old", "what is open is what was opened");
    ensure!(open.metadata()?.nlink() == 0);
    drop(open);
    share.finish()
}
