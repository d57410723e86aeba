//! Stand-ins for the vendors' tools beside uxfp: they take the real arguments and speak the real
//! words, with the lies that are known of them. They move no firmware into a modem.
//!
//! What one does is told by `LAB_TOOL`; without it, it succeeds.

mod fibocom;
mod qfirehose;
mod safe_update;
mod sierra;
mod tfl;

pub use fibocom::main as fibocom;
pub use qfirehose::main as qfirehose;
pub use safe_update::{safe_update, verify_update, worker};
pub use sierra::main as sierra;
pub use tfl::main as tfl;

use std::io::Write;
use std::time::{Duration, Instant};

/// What a tool is to do.
fn mode() -> String {
    std::env::var("LAB_TOOL").unwrap_or_default()
}

/// The argument after `flag`.
fn value(flag: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments.nth(1)
}

/// Whether the file is there, read to its end, and begins with `magic`.
fn begins_with(path: &str, magic: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(magic))
}

/// Whoever reads may be gone: a flash goes on all the same.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn pause() {
    std::thread::sleep(Duration::from_millis(8));
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// A log whose lines begin with the seconds since the start, as Quectel's do.
struct Stamped(Instant);

impl Stamped {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn line(&self, text: &str) {
        let ms = self.0.elapsed().as_millis();
        print(&format!("[{:03}.{:03}]: {text}\n", ms / 1000, ms % 1000));
    }
}
