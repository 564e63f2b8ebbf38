//! fio on a bridged share: every byte that was written is read again, by fio through the share and here on the host.
//!
//! Files of 8 MiB, of 256 MiB with `VIRTIOFSD_LONG=1`. A seed can be repeated with `VIRTIOFSD_SEED`.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, open};
use tempfile::{NamedTempFile, TempDir};
use virtiofs_testkit::bridge::BridgeOptions;
use virtiofs_testkit::bridge::share::{
    BridgedShare, Tmpfs, can_mount, on_tmpfs, run_within, skipped,
};
use virtiofs_testkit::frontend::Launch;
use virtiofs_testkit::guest::packages::Tree;
use virtiofs_testkit::suites::debian::programs_or_skip;
use virtiofs_testkit::suites::fio;
use virtiofs_testkit::suites::fsx::{Mapping, seed};

const LIMIT: Duration = Duration::from_secs(900);

fn size_mib() -> u32 {
    match std::env::var("VIRTIOFSD_LONG") {
        Ok(value) if value == "1" => 256,
        _ => 8,
    }
}

/// The program, where everything is there that a bridge needs.
fn programs() -> Result<Option<Tree>> {
    if can_mount() {
        return programs_or_skip();
    }
    skipped("needs root and /dev/fuse");
    Ok(None)
}

fn fio_in(directory: &Path, programs: &Tree, jobs: &str) -> Result<()> {
    let file = NamedTempFile::new()?;
    fs::write(&file, jobs)?;
    let mut command: Command = programs.command("usr/bin/fio");
    command
        .args(fio::OPTIONS)
        .arg(file.path())
        .current_dir(directory);
    let ran = run_within(LIMIT, &mut command)?;
    ensure!(ran.status.success(), "{}", ran.output);
    fio::judge(jobs, &ran.output)
}

/// Both sides have the same bytes under the same names.
fn compare(share: &Path, host: &Path) -> Result<()> {
    let mut files = 0;
    for entry in fs::read_dir(share)? {
        let name = entry?.file_name();
        File::open(share.join(&name))?.sync_all()?;
        let same = fs::read(share.join(&name))? == fs::read(host.join(&name))?;
        ensure!(same, "{} differs on the host", name.display());
        files += 1;
    }
    // One of each of two jobs, four and two of two others.
    ensure!(files >= 8, "only {files} files");
    Ok(())
}

fn run_with(mapping: Mapping, arguments: &[&str]) -> Result<()> {
    let Some(programs) = programs()? else {
        return Ok(());
    };
    let Some((shared, share)) = on_tmpfs(arguments)? else {
        return Ok(());
    };
    let seed = seed()?;
    println!("VIRTIOFSD_SEED={seed}");
    let jobs = fio::jobs(mapping, size_mib(), seed);
    fio_in(share.path(), &programs, &jobs)
        .and_then(|()| compare(share.path(), shared.path()))
        .with_context(|| format!("VIRTIOFSD_SEED={seed}, {arguments:?}"))?;
    share.finish()
}

#[test]
fn fio_verifies_what_it_wrote_with_the_default_cache() -> Result<()> {
    run_with(Mapping::Works, &[])
}

#[test]
fn fio_verifies_what_it_wrote_with_write_back() -> Result<()> {
    run_with(Mapping::Works, &["--cache", "always", "--writeback"])
}

#[test]
fn fio_verifies_what_it_wrote_without_a_cache() -> Result<()> {
    run_with(Mapping::Refused, &["--cache", "never"])
}

/// On a file system that has direct I/O, the host's is used as well.
#[test]
fn fio_verifies_what_it_wrote_past_the_caches_of_both_sides() -> Result<()> {
    let Some(programs) = programs()? else {
        return Ok(());
    };
    let shared = TempDir::new()?;
    let direct = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT;
    let probe = shared.path().join("probe");
    if open(&probe, direct, Mode::RUSR).is_err() {
        skipped("the file system of temporary files has no direct I/O");
        return Ok(());
    }
    fs::remove_file(probe)?;
    let options = ["--cache", "never", "--allow-mmap", "--allow-direct-io"];
    let launch = options
        .iter()
        .fold(Launch::new(shared.path()).sandbox("chroot"), |l, o| {
            l.arg(*o)
        });
    let share = BridgedShare::start(launch, &BridgeOptions::default())?;
    let seed = seed()?;
    println!("VIRTIOFSD_SEED={seed}");
    let jobs = fio::jobs(Mapping::Works, size_mib(), seed);
    fio_in(share.path(), &programs, &jobs)
        .and_then(|()| compare(share.path(), shared.path()))
        .with_context(|| format!("VIRTIOFSD_SEED={seed}"))?;
    share.finish()
}

/// That the others can fail.
#[test]
fn fio_finds_a_byte_that_the_host_changed() -> Result<()> {
    let Some(programs) = programs()? else {
        return Ok(());
    };
    let store = Tmpfs::new()?;
    let write =
        "[global]\nsize=1m\nverify=crc32c\nverify_fatal=1\nverify_dump=0\n[job]\nrw=write\n";
    fio_in(store.path(), &programs, write)?;
    let file = store.path().join("job.0.0");
    let mut bytes = fs::read(&file)?;
    bytes[700_000] ^= 1;
    fs::write(&file, bytes)?;
    let again = format!("{write}verify_only=1\n");
    let found = fio_in(store.path(), &programs, &again).unwrap_err();
    ensure!(found.to_string().contains("crc32c"), "{found:#}");
    Ok(())
}
