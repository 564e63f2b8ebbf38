//! The static build: one file that runs on any Linux, whatever C library that has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::repo;

use super::record::Entry;
use super::suites::Suite;
use super::{Surroundings, Tally};

const NAME: &str = "static_build_serves_without_an_interpreter";

/// Builds the daemon statically and runs it, unless the filter names other tests.
pub(super) fn test(surroundings: &Surroundings) -> Option<Entry> {
    if !surroundings.admits(NAME) {
        return None;
    }
    println!("\n== static build");
    let begun = Instant::now();
    let outcome = build().and_then(|program| {
        runs_alone(&program)?;
        serves(&program)
    });
    let tally = Tally::of_one(NAME, outcome);
    Some(Entry {
        name: "static build".to_owned(),
        results: Vec::new(),
        tally,
        time: begun.elapsed(),
    })
}

/// Where the daemon is a container's only program: that suite gets a static one, if any of its tests is to run.
const IN_CONTAINERS: &str = "containers (test)";

/// Builds the daemon for a suite that needs it static.
pub(super) fn lend(suite: &mut Suite, surroundings: &Surroundings) -> Result<()> {
    if suite.name != IN_CONTAINERS {
        return Ok(());
    }
    let mut list = Command::new(suite.command.get_program());
    list.args(surroundings.filters_in(&suite.name))
        .arg("--list");
    if repo::output(&mut list)?.contains(": test") {
        suite.command.env("VIRTIOFSD_STATIC", build()?);
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let target_dir = repo::target_dir().join("static");
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package=virtiofsd",
        "--bin=virtiofsd",
    ]);
    // With a target named, the flags leave build scripts and derive macros alone.
    cargo
        .args(["--target", &triple, "--target-dir"])
        .arg(&target_dir);
    repo::run(cargo.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    Ok(target_dir.join(triple).join("release/virtiofsd"))
}

fn runs_alone(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("no {}", program.display()))?;
    ensure!(
        !has_interpreter(&bytes)?,
        "{} asks for a dynamic linker",
        program.display()
    );
    let version = repo::output(Command::new(program).arg("--version"))?;
    ensure!(
        version.starts_with("virtiofsd "),
        "--version printed {version:?}"
    );
    Ok(())
}

/// A C library that is linked in makes other system calls than one that is loaded: the filter's list must cover both.
fn serves(program: &Path) -> Result<()> {
    let mut tests = Command::new("cargo");
    tests.args([
        "test",
        "--quiet",
        "--package=virtiofs-testkit",
        "--test=frontend_life",
        "--test=frontend_requests",
    ]);
    repo::run(tests.env("VIRTIOFSD", program))
}

/// Type of the program header that names the dynamic linker (`PT_INTERP`, man 5 elf).
const INTERPRETER: u32 = 3;

/// Whether a 64-bit little-endian ELF file asks for a dynamic linker.
fn has_interpreter(elf: &[u8]) -> Result<bool> {
    ensure!(
        elf.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF file"
    );
    // e_phoff, e_phentsize and e_phnum of Elf64_Ehdr.
    let headers = usize::try_from(u64::from_le_bytes(at(elf, 32)?))?;
    let size = usize::from(u16::from_le_bytes(at(elf, 54)?));
    let count = usize::from(u16::from_le_bytes(at(elf, 56)?));
    for index in 0..count {
        if u32::from_le_bytes(at(elf, headers + index * size)?) == INTERPRETER {
            return Ok(true);
        }
    }
    Ok(false)
}

fn at<const LEN: usize>(bytes: &[u8], offset: usize) -> Result<[u8; LEN]> {
    let end = offset
        .checked_add(LEN)
        .context("an offset beyond all memory")?;
    let field = bytes.get(offset..end).context("the ELF file ends early")?;
    Ok(field.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test itself is an ordinary, dynamic program.
    #[test]
    fn a_dynamic_program_is_found_out() {
        let mut elf = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(has_interpreter(&elf).unwrap());
        let headers = usize::try_from(u64::from_le_bytes(at(&elf, 32).unwrap())).unwrap();
        let size = usize::from(u16::from_le_bytes(at(&elf, 54).unwrap()));
        for header in elf[headers..].chunks_mut(size).take(32) {
            if header.starts_with(&INTERPRETER.to_le_bytes()) {
                header[0] = 4;
            }
        }
        assert!(!has_interpreter(&elf).unwrap());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(has_interpreter(b"#!/bin/sh").is_err());
        assert!(has_interpreter(b"\x7fELF\x02\x01 and no more").is_err());
    }
}
