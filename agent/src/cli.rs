//! The command line of `modem-upgrader-agent`.

use std::path::Path;
use std::process::ExitCode;

/// Entry point, shared with the lab's multi-call binary.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["guard", "--run-dir", directory] => crate::guardian::guard_main(Path::new(directory)),
        _ => ExitCode::from(2),
    }
}
