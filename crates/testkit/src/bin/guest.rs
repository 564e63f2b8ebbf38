//! `guest MACHINE DIRECTORY SCRIPT [DAEMON-OPTION...]`: serves a directory to
//! a Debian guest, which runs a script on it; ends with the script's exit code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use virtiofs_testkit::guest::{Guest, Machine, Root, share};

/// Longest that a script may take.
const LIMIT: Duration = Duration::from_secs(3600);

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [machine, directory, script, ref options @ ..] = arguments[..] else {
        let names = Machine::ALL.map(Machine::name).join("|");
        bail!("usage: guest {names} DIRECTORY SCRIPT [DAEMON-OPTION...]");
    };
    let machine = Machine::ALL
        .into_iter()
        .find(|known| known.name() == machine)
        .with_context(|| format!("no machine is called {machine}"))?;
    let script = std::fs::read_to_string(script).with_context(|| script.to_owned())?;
    let daemon = share::launch(Path::new(directory), options).start()?;
    let outcome = Guest::new(machine)?
        .root(Root::Debian)
        .share(daemon.socket(), share::TAG)
        .run(&script, LIMIT)
        .with_context(|| daemon.log())?;
    print!("{}", outcome.output);
    eprint!("{}", daemon.log());
    Ok(ExitCode::from(u8::try_from(outcome.exit_code)?))
}
