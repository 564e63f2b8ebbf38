//! Messages: on standard error, to the terminal until the daemon has left it, or to the system's log.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

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
        .with_writer(sink)
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

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            sink: self,
            level: Level::INFO,
        }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line {
            sink: self,
            level: *about.level(),
        }
    }
}

/// One message; the formatter writes it in one piece.
#[derive(Debug)]
struct Line<'a> {
    sink: &'a Sink,
    level: Level,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match self.sink {
            Sink::StandardError => return io::stderr().write(text),
            Sink::Terminal => {
                let mut terminal = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(file) = terminal.as_mut() {
                    return file.write(text);
                }
            }
            Sink::SystemLog { socket, pid } => {
                // A log that is full or gone loses the message; there is nobody else to tell.
                let _ = socket.send(&packet(self.level, *pid, text));
            }
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
