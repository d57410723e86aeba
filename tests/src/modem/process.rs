//! `lab sim-modem`: a modem in a process of its own, which outlives agents and tools.

use std::io::{self, Read};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::{Settings, SimulatedModem, control};
use crate::faults::ModemFault;
use crate::firmware::Model;

/// A simulated FN990A. It is controlled over `<dir>/<name>.sock` and keeps its flash in `<dir>/<name>.json`.
#[derive(Debug, Parser)]
#[command(name = "sim-modem")]
struct Arguments {
    /// The router's directory.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value = "FN990A28")]
    model: Model,
    /// The package it leaves the factory with.
    #[arg(long, default_value = "45.00.002")]
    package: String,
    #[arg(long, default_value = "351234560000014")]
    imei: String,
    #[arg(long, default_value = "modem")]
    name: String,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value = "2-1")]
    bus: String,
    #[arg(long, default_value = "1-1")]
    download_bus: String,
    #[arg(long, default_value = "wwan0")]
    net: String,
    #[arg(long, default_value_t = 1000)]
    enumeration_ms: u64,
    #[arg(long, default_value_t = 2000)]
    boot_silence_ms: u64,
    /// A fault as JSON; may be repeated.
    #[arg(long, value_parser = parse_fault)]
    fault: Vec<ModemFault>,
    /// Ends when standard input does: with the process that started it.
    #[arg(long)]
    until_stdin_closes: bool,
}

fn parse_fault(json: &str) -> Result<ModemFault, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

pub fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim-modem: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let until_stdin_closes = arguments.until_stdin_closes;
    std::fs::create_dir_all(&arguments.dir)?;
    let settings = arguments.settings();
    let socket = settings.socket();
    let modem = SimulatedModem::start(settings)?;
    // Left behind by a process that was killed.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    if !until_stdin_closes {
        return control::serve(&listener, |request| modem.ask(request));
    }
    std::thread::scope(|scope| {
        // The process ends below, and this thread with it.
        scope.spawn(|| control::serve(&listener, |request| modem.ask(request)));
        io::stdin().read_to_end(&mut Vec::new())?;
        let _ = modem.power_cut();
        let _ = std::fs::remove_file(&socket);
        std::process::exit(0)
    })
}

impl Arguments {
    fn settings(self) -> Settings {
        let mut settings = Settings::new(&self.dir, self.model, &self.package, &self.imei);
        settings.name = self.name;
        settings.seed = self.seed;
        settings.bus_id = self.bus;
        settings.download_bus_id = self.download_bus;
        settings.net = self.net;
        settings.enumeration = Duration::from_millis(self.enumeration_ms);
        settings.boot_silence = Duration::from_millis(self.boot_silence_ms);
        settings.faults = self.fault;
        settings
    }
}
