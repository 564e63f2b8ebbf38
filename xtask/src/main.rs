//! The project's own commands: `cargo xtask check`, `test`, `ci`, `demo`, `bench`, `fuzz`, `coverage` and `man`.
//!
//! Each command is one module with a `run`. A command succeeds or says in one
//! chain of causes what went wrong; only `main` turns that into an exit code.

mod bench;
mod build;
mod check;
mod ci;
mod coverage;
mod demo;
mod fuzz;
mod man;
mod repo;
mod source;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks, tests, shows and measures the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formats, lints, documentation, licences, sizes, unsafe code, layers: what needs no test run
    Check(check::Args),
    /// Runs every test, and ends with `N passed, N failed, N skipped`
    Test(test::Args),
    /// Measures what each request costs, beside the two existing daemons
    Bench(bench::Args),
    /// Feeds hostile bytes to requests, sessions, rings and vhost-user messages
    Fuzz(fuzz::Args),
    /// Measures which lines of the parser, chains and messages the fuzz targets reach
    Coverage(coverage::Args),
    /// Boots a guest that mounts a directory through the daemon and works in it
    Demo(demo::Args),
    /// Writes docs/virtiofsd.1 from the command line's own description
    Man,
    /// All that continuous integration runs: the checks, a minute of fuzzing a target, the tests
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Coverage(args) => coverage::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Man => man::run(),
        Command::Ci => ci::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
