//! Logging to standard error.

use tracing::level_filters::LevelFilter;

use crate::config::{Format, Level, Logging};

/// Sends log lines to standard error. It is fine if a program around the agent has seen to that already.
pub(crate) fn init(logging: Logging) {
    let level = match logging.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let _already_set = match logging.format {
        Format::Text => tracing::subscriber::set_global_default(lines.with_ansi(false).finish()),
        Format::Json => tracing::subscriber::set_global_default(lines.json().finish()),
    };
}
