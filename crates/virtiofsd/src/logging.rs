//! Messages: on standard error, to the terminal until the daemon has left it, or to the system's log; so many a minute.

mod pace;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use self::pace::{Admission, MOST, Pace};
use crate::cli::values::LevelName;
use crate::plan::Log;

/// Where the system's log listens.
const SYSTEM_LOG: &str = "/dev/log";

/// The terminal that a daemon in the background was started from.
static TERMINAL: Mutex<Option<File>> = Mutex::new(None);

/// Starts telling; a terminal is what standard error was, until [`leave_terminal`].
pub fn start(level: LevelName, log: Log, terminal: Option<File>) {
    let filter = match level {
        LevelName::Error => LevelFilter::ERROR,
        LevelName::Warn => LevelFilter::WARN,
        LevelName::Info => LevelFilter::INFO,
        LevelName::Debug => LevelFilter::DEBUG,
        LevelName::Trace => LevelFilter::TRACE,
        LevelName::Off => LevelFilter::OFF,
    };
    let (sink, complaint) = match log {
        Log::StandardError => (Sink::local(terminal), None),
        Log::System => match Sink::system() {
            Ok(sink) => (sink, None),
            Err(error) => (Sink::local(terminal), Some(error)),
        },
    };
    let has_priority = matches!(sink, Sink::SystemLog { .. });
    // No time: whoever collects the lines adds it, and nothing reads time zone files in the sandbox.
    tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_level(!has_priority)
        .with_writer(Paced {
            sink,
            pace: Pace::default(),
        })
        .without_time()
        .with_target(false)
        .init();
    if let Some(error) = complaint {
        tracing::warn!("--syslog: {SYSTEM_LOG}: {error}; messages go to standard error");
    }
}

/// Says nothing more to the terminal.
pub fn leave_terminal() {
    *TERMINAL.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

#[derive(Debug)]
enum Sink {
    StandardError,
    Terminal,
    SystemLog {
        socket: UnixDatagram,
        /// Of the process that an operator would signal, also inside a pid namespace.
        pid: u32,
    },
}

impl Sink {
    fn local(terminal: Option<File>) -> Self {
        if terminal.is_none() {
            return Self::StandardError;
        }
        *TERMINAL.lock().unwrap_or_else(PoisonError::into_inner) = terminal;
        Self::Terminal
    }

    fn system() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSTEM_LOG)?;
        // A log that does not keep up must not hold requests.
        socket.set_nonblocking(true)?;
        let pid = std::process::id();
        Ok(Self::SystemLog { socket, pid })
    }
}

/// Where messages go, and how many of them.
#[derive(Debug)]
struct Paced {
    sink: Sink,
    pace: Pace,
}

impl<'a> MakeWriter<'a> for Paced {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        self.line(Level::INFO)
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        self.line(*about.level())
    }
}

impl Paced {
    fn line(&self, level: Level) -> Line<'_> {
        Line {
            sink: &self.sink,
            level,
            admission: self.pace.admit(level, Instant::now()),
        }
    }
}

/// One message; the formatter writes it in one piece.
#[derive(Debug)]
struct Line<'a> {
    sink: &'a Sink,
    level: Level,
    admission: Admission,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let aside = |said: String| self.sink.write(Level::WARN, said.as_bytes());
        match self.admission {
            Admission::LeftOut => return Ok(text.len()),
            Admission::After(number) => {
                aside(format!(
                    " WARN {number} messages of the minute before were left out\n"
                ))?;
            }
            Admission::Told | Admission::Last => {}
        }
        let written = self.sink.write(self.level, text)?;
        if self.admission == Admission::Last {
            aside(format!(
                " WARN {MOST} messages in a minute; the rest of it is left out\n"
            ))?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn write(&self, level: Level, text: &[u8]) -> io::Result<usize> {
        match self {
            Self::StandardError => return io::stderr().write(text),
            Self::Terminal => {
                let mut terminal = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(file) = terminal.as_mut() {
                    return file.write(text);
                }
            }
            Self::SystemLog { socket, pid } => {
                // A log that is full or gone loses the message; there is nobody else to tell.
                let _ = socket.send(&packet(level, *pid, text));
            }
        }
        Ok(text.len())
    }
}

/// Facility "daemon" of RFC 3164, 4.1.1.
const FACILITY: u8 = 3;

/// A message as RFC 3164 has it, without the time: the log takes that of its arrival.
fn packet(level: Level, pid: u32, text: &[u8]) -> Vec<u8> {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let head = format!("<{}>virtiofsd[{pid}]: ", FACILITY * 8 + severity);
    [head.as_bytes(), text.trim_ascii()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_for_the_systems_log_starts_with_its_priority() {
        let cases = [
            (Level::ERROR, "<27>virtiofsd[7]: text"),
            (Level::WARN, "<28>virtiofsd[7]: text"),
            (Level::INFO, "<30>virtiofsd[7]: text"),
            (Level::DEBUG, "<31>virtiofsd[7]: text"),
        ];
        for (level, want) in cases {
            assert_eq!(packet(level, 7, b" text\n"), want.as_bytes());
        }
    }
}
