//! `qmi-firmware-update`: libqmi's tool for Sierra Wireless. A line of progress is wiped by
//! ESC [2K and CR and has one decimal; a modem that has the version is left alone, with status 0.

use super::{hang, mode, pause, print, value};
use std::process::ExitCode;

pub fn main() -> ExitCode {
    let Some(image) = std::env::args().next_back().filter(|last| last.ends_with(".cwe")) else {
        print("error: unsupported firmware file type\n");
        return ExitCode::FAILURE;
    };
    let device = value("-d").unwrap_or_default();
    if device.split_once(':').is_none_or(|(v, p)| v.len() != 4 || p.len() != 4) {
        print(&format!("error: invalid vid:pid string: '{device}'\n"));
        return ExitCode::FAILURE;
    }
    if mode() == "contained" {
        print("device already contains the given firmware/config version: no download needed\n");
        return ExitCode::SUCCESS;
    }
    print("loading device information before the update...\nrebooting in download mode...\n");
    print("download mode detected\n");
    let size = std::fs::metadata(&image).map_or(0, |metadata| metadata.len());
    print(&format!("downloading cwe image: firmware.cwe ({size} bytes)...\n"));
    for permille in (0..=1000_u32).step_by(5) {
        print(&format!("\x1b[2K\r{:>02}.{}%", permille / 10, permille % 10));
        pause();
        match mode().as_str() {
            "hang" if permille == 600 => hang(),
            "fail" if permille == 370 => {
                print("\x1b[2K\rerror: couldn't write to device: Input/output error\n");
                return ExitCode::FAILURE;
            }
            _ => {}
        }
    }
    print("\x1b[2K\rfinalizing download... (may take several minutes, be patient)\n");
    print("successfully downloaded in 12.34s (1.2 MB/s)\nrebooting in normal mode...\n");
    if mode() == "lost" {
        print("error: error waiting for cdc-wdm: waiting for device timed out\n");
        return ExitCode::FAILURE;
    }
    print("normal mode detected\n\nfirmware update operation finished successfully\n\n");
    ExitCode::SUCCESS
}
