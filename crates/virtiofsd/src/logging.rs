//! Messages, on standard error.

use tracing::level_filters::LevelFilter;

use crate::cli::values::LevelName;

/// Starts telling.
pub fn start(level: LevelName) {
    let filter = match level {
        LevelName::Error => LevelFilter::ERROR,
        LevelName::Warn => LevelFilter::WARN,
        LevelName::Info => LevelFilter::INFO,
        LevelName::Debug => LevelFilter::DEBUG,
        LevelName::Trace => LevelFilter::TRACE,
        LevelName::Off => LevelFilter::OFF,
    };
    // No time: whoever collects the lines adds it, and nothing reads time zone files in the sandbox.
    tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
}
