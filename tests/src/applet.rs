//! One binary, many names, as busybox has it: by the name it is called by, or by its first argument.
//!
//! ```text
//! ln -s lab uxfp && ./uxfp --help          lab sim-uxfp --help
//! ```
//! A first argument becomes the name by running the binary once more, so that an applet always finds its own
//! arguments in `std::env::args` and its own name in `argv[0]`.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

type Main = fn() -> ExitCode;

const APPLETS: &[(&str, Main)] = &[
    ("modem-upgrader-agent", agent::cli::main),
    ("modem-upgrader", coordinator::cli::main),
    ("demo", crate::demo::main),
    ("campaign", crate::campaign::main),
    ("campaign-store", crate::campaign::store::main),
    ("sim-uxfp", crate::uxfp::main),
    ("uxfp", crate::uxfp::main),
    ("QFirehose", crate::tools::qfirehose),
    ("qmi-firmware-update", crate::tools::sierra),
    ("fibocom-flash", crate::tools::fibocom),
    ("tfl", crate::tools::tfl),
    ("safe_update.sh", crate::tools::safe_update),
    ("safe_update.worker", crate::tools::worker),
    ("verify_update.sh", crate::tools::verify_update),
    ("sim-modem", crate::modem::process::main),
    ("sim-router", crate::router::process::main),
    ("sim-firmware", crate::firmware::main),
];

/// Runs the applet that this process was called as.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    if let Some(run) = find(base_name(&called)) {
        return run();
    }
    match arguments.next() {
        Some(name) if find(&name).is_some() => {
            // `cargo demo -- --stay`: cargo's alias has the one that ends its own arguments.
            let mut arguments = arguments.peekable();
            arguments.next_if(|argument| argument == "--");
            let error = Command::new("/proc/self/exe").arg0(&name).args(arguments).exec();
            eprintln!("lab: cannot become {}: {error}", name.display());
            ExitCode::FAILURE
        }
        _ => {
            let names: Vec<&str> = APPLETS.iter().map(|(name, _)| *name).collect();
            eprintln!("usage: lab <{}> [arguments]", names.join("|"));
            ExitCode::from(2)
        }
    }
}

fn find(name: &OsStr) -> Option<Main> {
    APPLETS.iter().find(|(applet, _)| name == *applet).map(|(_, run)| *run)
}

fn base_name(path: &OsStr) -> &OsStr {
    Path::new(path).file_name().unwrap_or(path)
}
