//! What the tool prints, unbuffered: text, or JSON lines.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

#[derive(Debug)]
pub struct Report {
    json: bool,
    no_progress: bool,
    last_percent: Option<u64>,
    progress_open: bool,
    sent: u64,
    step: &'static str,
}

impl Report {
    pub fn new(json: bool, no_progress: bool) -> Report {
        let step = "checking";
        Report { json, no_progress, last_percent: None, progress_open: false, sent: 0, step }
    }

    /// A line of its own.
    pub fn line(&mut self, text: &str) {
        if self.json {
            return self.log("INFO", text);
        }
        self.end_progress();
        for line in text.lines() {
            print(&format!("{line}\n"));
        }
    }

    pub fn error(&mut self, text: &str) {
        if self.json { self.log("ERROR", text) } else { self.line(text) }
    }

    /// The step that the final report names.
    pub fn step(&mut self, step: &'static str) {
        self.step = step;
    }

    /// Printed when the percentage changes. The line ends in CR alone.
    pub fn progress(&mut self, sent: u64, size: u64) {
        self.sent = sent;
        let percent = sent.saturating_mul(100) / size.max(1);
        if self.last_percent.replace(percent) == Some(percent) || self.no_progress {
            return;
        }
        if self.json {
            return print_json(&json!({
                "timestamp": timestamp(), "type": "PROGRESS", "current": sent, "max": size,
                "percent": percent, "description": "flashing",
            }));
        }
        let filled = usize::try_from(percent / 10).unwrap_or(0);
        let bar = format!("{:<10}", "#".repeat(filled));
        print(&format!("[+] flashing [{bar}] {percent:3}%, transferred {sent}/{size} B\r"));
        self.progress_open = true;
    }

    pub fn finish(&mut self, code: u8) {
        self.end_progress();
        if self.json {
            print_json(&json!({
                "timestamp": timestamp(), "type": "REPORT", "stream_offset": self.sent,
                "percent": self.last_percent.unwrap_or(0), "last_boot_step": self.step,
                "upload_return": if code == 0 { 0 } else { i32::from(code) - 256 },
            }));
        }
    }

    fn end_progress(&mut self) {
        if std::mem::take(&mut self.progress_open) {
            print("\n");
        }
    }

    fn log(&self, severity: &str, text: &str) {
        for msg in text.lines() {
            print_json(&json!({
                "timestamp": timestamp(), "type": "LOG", "severity": severity,
                "file": "uxfp.c", "function": self.step, "line": 0, "msg": msg,
            }));
        }
    }
}

fn print_json(value: &serde_json::Value) {
    print(&format!("{value}\n"));
}

/// Whoever reads may be gone: a flash goes on all the same.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}", now.as_secs(), now.subsec_millis())
}
