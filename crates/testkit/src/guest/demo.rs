//! A demonstration: a guest mounts a directory of this machine and works in
//! it, and each side checks what the other one did.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::packages;
use super::scenarios::{self, DEMO};
use super::share::{TAG, launch};
use super::{Guest, Machine, Unavailable};

/// Guests to try, the newest first.
const MACHINES: [Machine; 2] = [Machine::Uml72, Machine::Uml61];

/// Longest that the demonstration may take once everything is there.
const LIMIT: Duration = Duration::from_secs(120);

const FROM_HOST: &str = "Written on the host.\nThe guest reads it through virtio-fs.\n";

/// Serves `directory` to a guest, which mounts it and shows what it can do there.
///
/// Everything happens in a new folder of the directory, which stays.
pub fn show(program: &Path, directory: &Path) -> Result<()> {
    let guest = guest()?;
    let place = tempfile::Builder::new()
        .prefix("demo-")
        .tempdir_in(directory)
        .with_context(|| format!("cannot write to {}", directory.display()))?
        .keep();
    fs::write(place.join("from-host.txt"), FROM_HOST)?;
    let name = place.file_name().context("a new folder has no name")?;
    let name = name.to_string_lossy();
    let md5 = md5(&place.join("from-host.txt"))?;
    println!("host:  wrote {}/from-host.txt", place.display());

    let mut daemon = launch(directory, &[]).program(program).start()?;
    println!(
        "host:  virtiofsd serves {} in its sandbox",
        directory.display()
    );
    let script = scenarios::with(&[("PLACE", &name), ("MD5", &md5)], DEMO);
    let outcome = guest
        .share(daemon.socket(), TAG)
        .run(&script, LIMIT)
        .with_context(|| daemon.log())?;
    println!("guest: booted in {} ms", outcome.boot.as_millis());
    for line in outcome.output.lines() {
        println!("guest: {line}");
    }
    ensure!(
        outcome.exit_code == 0,
        "the guest ended with {}",
        outcome.exit_code
    );
    daemon.expect_exit(0, Duration::from_secs(10))?;
    check(&place, &outcome.output)?;
    println!(
        "\nBoth sides saw the same bytes. They are in {}",
        place.display()
    );
    Ok(())
}

/// Serves `directory` to a guest and gives its shell to this terminal.
pub fn shell(program: &Path, directory: &Path) -> Result<()> {
    let guest = guest()?;
    let daemon = launch(directory, &[]).program(program).start()?;
    println!("{} is /mnt in the guest.", directory.display());
    guest
        .share(daemon.socket(), TAG)
        .shell()
        .with_context(|| daemon.log())
}

/// The newest guest that can be had.
fn guest() -> Result<Guest> {
    println!("host:  fetching what a guest is made of, if it is not in the cache yet");
    let mut reasons = Vec::new();
    for machine in MACHINES {
        match Guest::new(machine) {
            Ok(guest) => {
                println!("host:  the guest is {machine}");
                return Ok(guest);
            }
            Err(error) => {
                let why = error.downcast::<Unavailable>()?;
                println!("host:  no {machine}: {why}");
                reasons.push(why.0);
            }
        }
    }
    Err(Unavailable(reasons.join("; ")).into())
}

/// Looks at what the guest left, as the host has it.
fn check(place: &Path, output: &str) -> Result<()> {
    let text = fs::read_to_string(place.join("from-guest.txt"))?;
    print!("host:  reads from-guest.txt: {text}");
    ensure!(
        text.starts_with("Written in the guest"),
        "from-guest.txt has another text"
    );
    let data = place.join("folder/renamed");
    ensure!(fs::metadata(&data)?.len() == 4 << 20, "the size differs");
    let sum = md5(&data)?;
    println!("host:  folder/renamed has checksum {sum}");
    ensure!(
        output.contains(&format!("data has checksum {sum}\n")),
        "the guest had another checksum"
    );
    let link = fs::read_link(place.join("link"))?;
    ensure!(link == Path::new("folder/renamed"), "the link differs");
    ensure!(!place.join("data").exists(), "the old name is still there");
    Ok(())
}

/// By the program that the guest uses, too.
fn md5(path: &Path) -> Result<String> {
    let mut command = std::process::Command::new(packages::busybox()?);
    let output = packages::output_of(command.arg("md5sum").arg(path))?;
    let text = String::from_utf8(output)?;
    let sum = text.split(' ').next().context("md5sum prints nothing")?;
    Ok(sum.to_owned())
}
