//! `safe_update.sh` and `verify_update.sh`: the predecessor's contract, as its customers' scripts
//! keep it. The first starts the update in the background and returns.

use super::{hang, mode, pause, print, value};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

fn state_dir() -> PathBuf {
    value("--state-dir").unwrap_or_else(|| "/root/modem-update".into()).into()
}

pub fn safe_update() -> ExitCode {
    let dir = state_dir();
    if !dir.join("firmware.bin").is_file() {
        print("no firmware\n");
        return ExitCode::from(3);
    }
    if mode() == "not-started" {
        return ExitCode::FAILURE;
    }
    let started = std::fs::File::create(dir.join("modem.log")).and_then(|log| {
        say(&dir, "RUNNING");
        Command::new("/proc/self/exe")
            .arg0("safe_update.worker")
            .arg("--state-dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .process_group(0)
            .spawn()
    });
    ExitCode::from(u8::from(started.is_err()))
}

/// What goes on in the background, with uxfp's words in the log.
pub fn worker() -> ExitCode {
    let dir = state_dir();
    print("[+] uploading firmware\n");
    for percent in 0..=100 {
        print(&format!("[+] flashing [#####     ] {percent:3}%, transferred 1/2 B\r"));
        pause();
        match mode().as_str() {
            "hang" if percent == 60 => hang(),
            "fail" if percent == 37 => {
                say(&dir, "FAILED");
                return ExitCode::FAILURE;
            }
            "crash" if percent == 37 => return ExitCode::FAILURE,
            _ => {}
        }
    }
    print("\n");
    match mode().as_str() {
        // Somebody else is still at it: two answers later it is done.
        "late" => say(&dir, "RUNNING 2"),
        // Or some seconds later.
        "overdue" => say(&dir, &format!("UNTIL {}", unix_ms() + 10_000)),
        _ => say(&dir, "SUCCESS"),
    }
    ExitCode::SUCCESS
}

pub fn verify_update() -> ExitCode {
    let dir = state_dir();
    let state = std::fs::read_to_string(dir.join("state")).unwrap_or_default();
    match state.split_once(' ') {
        Some(("RUNNING", "0")) => say(&dir, "SUCCESS"),
        Some(("RUNNING", left)) => {
            let left = left.parse::<u32>().unwrap_or(1) - 1;
            say(&dir, &format!("RUNNING {left}"));
        }
        _ => {}
    }
    let until = state.strip_prefix("UNTIL ").and_then(|until| until.parse::<u128>().ok());
    let state = match until {
        Some(until) if unix_ms() < until => "RUNNING".to_owned(),
        Some(_) => "SUCCESS".to_owned(),
        None => state,
    };
    let word = state.split(' ').next().unwrap_or_default();
    if !word.is_empty() {
        let code = u8::from(word == "FAILED");
        print(&format!("state={word}\nexit_code={code}\n"));
    }
    ExitCode::SUCCESS
}

fn unix_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis()
}

fn say(dir: &Path, state: &str) {
    let _ = std::fs::write(dir.join("state"), state);
}
