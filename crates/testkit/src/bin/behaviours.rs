//! `behaviours DIRECTORY [FILTER]`: checks what a file system promises, in a
//! directory of it, and prints a line for each check; needs root. With
//! `--planted` in place of a filter, checks that fail in every way.

use std::path::Path;

use anyhow::{Result, bail};
use virtiofs_testkit::suites::behaviours;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let out = &mut std::io::stdout();
    match arguments[..] {
        [directory] => behaviours::run(Path::new(directory), "", out),
        [directory, "--planted"] => behaviours::run_planted(Path::new(directory), out),
        [directory, filter] => behaviours::run(Path::new(directory), filter, out),
        _ => bail!("usage: behaviours DIRECTORY [FILTER | --planted]"),
    }
}
