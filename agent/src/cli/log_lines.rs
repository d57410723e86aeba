//! The log: a line a record to standard error. procd adds time and name, so a line here has neither.

use std::io::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

/// Names the level: error, warn, info, debug, or off.
const VARIABLE: &str = "MODEM_UPGRADER_LOG";

struct Lines;

/// Starts the log, once a process.
pub fn start() {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let level = level(&wanted);
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
    if level.is_none() && !wanted.is_empty() {
        log::warn!("{VARIABLE} names no level: {wanted:?}");
    }
}

fn level(name: &str) -> Option<LevelFilter> {
    name.parse().ok()
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    /// A log that nobody reads stops nothing.
    fn log(&self, record: &Record<'_>) {
        let _ = writeln!(io::stderr().lock(), "[{}] {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_usual_names() {
        assert_eq!(level("debug"), Some(LevelFilter::Debug));
        assert_eq!(level("WARN"), Some(LevelFilter::Warn));
        assert_eq!((level(""), level("agent=debug")), (None, None));
    }
}
