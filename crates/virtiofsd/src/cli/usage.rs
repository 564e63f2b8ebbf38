//! From raw arguments to [`Cli`], or to the lines and the exit code with which the program ends instead.

use std::ffi::OsString;

use clap::error::ErrorKind;

use super::{Cli, read};
use crate::compat;

/// The command line ends the program before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The answer to `--help` or `--version`: standard output, exit code 0.
    Answered(String),
    /// No arguments at all: the help on standard error, exit code 2.
    NoArguments(String),
    /// A mistake: one line for standard error that names the option and what it takes, exit code 2.
    Mistake(String),
}

/// Reads the program's arguments, its name first.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Stopped> {
    let arguments = compat::expand(arguments).map_err(|bad| Stopped::Mistake(bad.to_string()))?;
    read(arguments).map_err(|error| {
        let kind = error.kind();
        if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            Stopped::Answered(error.to_string())
        } else if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            Stopped::NoArguments(error.to_string())
        } else {
            Stopped::Mistake(first_paragraph(&error))
        }
    })
}

/// What went wrong and what is expected, without clap's usage and tips.
///
/// clap writes the mistake and the possible values as the lines before the first empty one.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
