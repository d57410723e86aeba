//! `tfl`: Telit's tfl takes a directory with information.contents. Its words are not known;
//! these are made up, and no pattern relies on them.

use super::{hang, mode, pause, print, value};
use std::path::Path;
use std::process::ExitCode;

pub fn main() -> ExitCode {
    let package = std::env::args().nth(1).unwrap_or_default();
    if !Path::new(&package).join("information.contents").is_file() {
        print("no information.contents\n");
        return ExitCode::FAILURE;
    }
    print(&format!("port {}\n", value("--port").unwrap_or_default()));
    for percent in 0..=100 {
        print(&format!("{percent}%\r"));
        pause();
        match mode().as_str() {
            "hang" if percent == 60 => hang(),
            "fail" if percent == 37 => return ExitCode::from(2),
            _ => {}
        }
    }
    print("\n");
    ExitCode::SUCCESS
}
