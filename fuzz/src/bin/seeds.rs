//! Writes a target's seeds into a folder: `seeds TARGET FOLDER`.

use std::path::PathBuf;
use std::process::ExitCode;

// Without a sanitizer, libFuzzer alone has what the instrumented code calls.
use libfuzzer_sys as _;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(target), Some(folder)) = (arguments.next(), arguments.next().map(PathBuf::from))
    else {
        eprintln!("usage: seeds TARGET FOLDER");
        return ExitCode::from(2);
    };
    let Some(seeds) = virtiofs_fuzz::seeds::of(&target.to_string_lossy()) else {
        eprintln!("seeds: there is no target {target:?}");
        return ExitCode::FAILURE;
    };
    for (number, seed) in seeds.iter().enumerate() {
        if let Err(error) = std::fs::write(folder.join(format!("seed-{number:03}")), seed) {
            eprintln!("seeds: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
