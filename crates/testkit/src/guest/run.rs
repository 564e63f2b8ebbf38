//! One run of a monitor: started in a process group of its own, watched,
//! ended with everything that it started.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::GuestOutcome;

/// A monitor that is ready to start.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) command: Command,
    /// The file that the guest's serial line ends in.
    pub(super) channel: PathBuf,
    pub(super) console: PathBuf,
    pub(super) marker: String,
}

/// Most that a script may print.
const OUTPUT_MAX_BYTES: u64 = 64 << 20;

/// How long a guest may take to end once its script has.
const GRACE: Duration = Duration::from_secs(20);

/// How often the channel is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 40;

/// A word that no script prints by accident.
pub(super) fn marker() -> Result<String> {
    let mut random = [0; 8];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    Ok(format!("guest-{:016x}", u64::from_ne_bytes(random)))
}

/// Runs a guest whose script reports on the channel.
pub(super) fn unattended(prepared: Prepared, limit: Duration) -> Result<GuestOutcome> {
    let console = File::create(&prepared.console)?;
    let mut command = bound_to_this_thread(&prepared.command);
    command
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    let begun = Instant::now();
    let mut monitor = Monitor::start(&mut command)?;
    let report = Report {
        channel: &prepared.channel,
        console: &prepared.console,
        marker: &prepared.marker,
    };
    let ready = format!("{} ready\n", prepared.marker);
    let boot = report.wait_for(&mut monitor, &ready, begun + limit)?;
    let exit = format!("\n{} exit ", prepared.marker);
    report.wait_for(&mut monitor, &exit, begun + limit)?;
    monitor
        .wait_until(Instant::now() + GRACE)?
        .with_context(|| format!("the guest does not end: {}", report.show()))?;
    let text = report.text()?;
    let (exit_code, output) = parse(&text, &prepared.marker)
        .with_context(|| format!("the guest ended without a report: {}", report.show()))?;
    Ok(GuestOutcome {
        exit_code,
        output: output.to_owned(),
        console: lossy(&prepared.console)?,
        boot: boot - begun,
    })
}

/// The same command, killed when the calling thread ends: a test that is
/// itself ended by force cannot clean up.
fn bound_to_this_thread(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            bound.env(name, value);
        }
    }
    bound
}

/// Runs a guest on this process's terminal until it ends.
pub(super) fn attended(mut prepared: Prepared) -> Result<()> {
    // In this process's group, which owns the terminal.
    let status = prepared.command.status().context("start the guest")?;
    ensure!(status.success(), "the guest's monitor: {status}");
    Ok(())
}

/// What the guest has reported, and where.
struct Report<'a> {
    channel: &'a Path,
    console: &'a Path,
    marker: &'a str,
}

impl Report<'_> {
    /// Waits until the channel contains `what`; when that was.
    fn wait_for(&self, monitor: &mut Monitor, what: &str, deadline: Instant) -> Result<Instant> {
        let mut seen_bytes = 0;
        loop {
            // Before looking: what it wrote last must not be missed.
            let ended = monitor.ended()?;
            let bytes = fs::metadata(self.channel)?.len();
            ensure!(bytes <= OUTPUT_MAX_BYTES, "the script prints without end");
            if bytes > seen_bytes || ended.is_some() {
                seen_bytes = bytes;
                if self.text()?.contains(what) {
                    return Ok(Instant::now());
                }
            }
            if let Some(status) = ended {
                bail!("the guest ended early ({status}): {}", self.show());
            }
            ensure!(Instant::now() < deadline, "the time is up: {}", self.show());
            thread::sleep(LOOK);
        }
    }

    fn text(&self) -> Result<String> {
        lossy(self.channel)
    }

    /// Everything that helps to find out what happened.
    fn show(&self) -> String {
        let output = self
            .text()
            .unwrap_or_default()
            .replace(self.marker, "guest");
        let console = lossy(self.console).unwrap_or_default();
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
        format!("\n-- output\n{output}\n-- console\n{tail}")
    }
}

fn lossy(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Exit code and output in what came over the channel.
///
/// A script's output may end without a line feed, so one precedes the last
/// line and is not part of the output. Before the first marker may stand what
/// the line carried until it was set up.
fn parse<'a>(text: &'a str, marker: &str) -> Option<(i32, &'a str)> {
    let (_, rest) = text.split_once(&format!("{marker} ready\n"))?;
    let (output, last) = rest.rsplit_once(&format!("\n{marker} exit "))?;
    Some((last.trim_end().parse().ok()?, output))
}

/// The monitor's processes, which end with this value.
struct Monitor(Child);

impl Monitor {
    fn start(command: &mut Command) -> Result<Self> {
        // User-mode Linux has a process per guest process: all are in the group.
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self(child))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() > deadline {
                return Ok(ended);
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Before the child is reaped its number cannot belong to anyone else;
        // after that the group's number cannot, while it has members.
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn output_is_what_stands_between_the_marked_lines() {
        let cases = [
            ("M ready\na\nb\n\nM exit 0\n", Some((0, "a\nb\n"))),
            (
                "M ready\nno line feed\nM exit 7\n",
                Some((7, "no line feed")),
            ),
            ("noise\nM ready\n\nM exit 125\n", Some((125, ""))),
            ("M ready\nexit 0\n", None),
            ("M ready\nx\nM exit ", None),
            ("x\nM exit 0\n", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text, "M"), want, "{text:?}");
        }
    }

    fn prepared(place: &Path, script: &str) -> Prepared {
        let channel = place.join("channel");
        fs::write(&channel, "").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&channel);
        Prepared {
            command,
            channel,
            console: place.join("console"),
            marker: "M".to_owned(),
        }
    }

    #[test]
    fn a_guest_that_hangs_is_ended_with_all_its_processes() {
        let place = tempfile::tempdir().unwrap();
        let pid_file = place.path().join("pid");
        let script = format!(
            "printf 'M ready\\nhalf' >>$1; sleep 60 & echo $! >{}; echo on the console; wait",
            pid_file.display()
        );
        let error = unattended(prepared(place.path(), &script), Duration::from_secs(1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("half"), "{error}");
        assert!(error.contains("on the console"), "{error}");
        let sleeper = fs::read_to_string(pid_file).unwrap();
        let proc = format!("/proc/{}/stat", sleeper.trim());
        let deadline = Instant::now() + Duration::from_secs(10);
        // Killed, and perhaps not yet reaped by whoever inherits it.
        while fs::read_to_string(&proc).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "still there: {proc}");
            thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_guest_ends_with_the_thread_that_started_it() {
        let script = ["-c", "echo begun; exec sleep 60"];
        let mut command = bound_to_this_thread(Command::new("sh").args(script));
        command.stdout(Stdio::piped());
        let starter = thread::spawn(move || {
            let mut child = command.spawn().unwrap();
            let mut begun = [0; 5];
            let mut output = child.stdout.take().unwrap();
            std::io::Read::read_exact(&mut output, &mut begun).unwrap();
            child
        });
        let mut child = starter.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_guest_that_ends_without_a_report_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let script = "printf 'M ready\\n' >>$1; exit 3";
        let error = unattended(prepared(place.path(), script), Duration::from_secs(20))
            .unwrap_err()
            .to_string();
        assert!(error.contains("ended early"), "{error}");
    }

    #[test]
    fn the_exit_code_is_the_scripts() {
        let place = tempfile::tempdir().unwrap();
        let script = "printf 'M ready\\nfine\\n\\nM exit 3\\n' >>$1";
        let limit = Duration::from_secs(20);
        let outcome = unattended(prepared(place.path(), script), limit).unwrap();
        assert_eq!((outcome.exit_code, outcome.output.as_str()), (3, "fine\n"));
    }
}
