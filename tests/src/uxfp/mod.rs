//! `sim-uxfp`: a stand-in for Telit's uxfp 1.14.5 with its options, messages and exit codes.
//!
//! It knows nothing of the agent. It finds modems in the router's `sys` and `dev` (beside the port's directory,
//! or in `LAB_ROUTER`) and moves the stream into the simulated modem over its diag port. What goes wrong is
//! written in [`crate::faults::TOOL_FAULTS_FILE`].

mod bus;
pub mod events;
mod flash;
mod link;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use report::Report;

/// uxfp's own words.
#[derive(Debug, Clone, Parser)]
#[command(name = "uxfp", version = "1.14.5-0", disable_version_flag = true)]
struct Arguments {
    /// stream file
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// diag port
    #[arg(short, long)]
    port: Option<PathBuf>,
    /// serial number of the device
    #[arg(long)]
    serial: Option<String>,
    #[arg(long, value_parser = ["115200", "230400", "460800", "921600", "2000000", "3000000"])]
    speed: Option<String>,
    #[arg(long)]
    debug: bool,
    /// only enter boot mode
    #[arg(long, conflicts_with = "lossrecovery")]
    boot_mode: bool,
    /// the device is in recovery mode
    #[arg(long)]
    lossrecovery: bool,
    #[arg(long)]
    no_fastboot_driver: bool,
    #[arg(long)]
    noprogress: bool,
    #[arg(long)]
    show_diag_ports: bool,
    #[arg(long)]
    json: bool,
    #[arg(long)]
    report: bool,
    #[arg(long)]
    pci: bool,
}

/// Why it failed. Only the exit codes' origin (negative errno) is known, not which goes where.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no stream file given")]
    NoFile,
    #[error("could not open stream file '{0}'")]
    File(String),
    #[error("could not get chipset from sw version '{0}'")]
    Chipset(String),
    #[error(
        "no device with compatible VID/PID has been found.\n\
         please connect a USB device and run this command again."
    )]
    NoDevice,
    #[error("found too many devices connected ({0}). Please use --port flag.")]
    TooMany(usize),
    #[error("Invalid model {0} VS {1}")]
    Model(u32, u32),
    #[error("Modem is in recovery mode\n[+] could not complete boot mode")]
    InRecovery,
    #[error("{0}\n[+] could not complete boot mode")]
    BootMode(link::LinkError),
    #[error("{0}\n[+] could not complete firmware upload")]
    Upload(link::LinkError),
    /// A fault asked for it.
    #[error("wrong ack byte\nRun out of retries\n[+] could not complete firmware upload")]
    Asked,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Failure {
    /// 256 - errno.
    fn exit_code(&self) -> u8 {
        match self {
            Failure::NoFile | Failure::Chipset(_) | Failure::Model(..) => 234,
            Failure::File(_) => 254,
            Failure::NoDevice | Failure::InRecovery => 237,
            Failure::TooMany(_) => 240,
            Failure::BootMode(error) | Failure::Upload(error) => error.exit_code(),
            Failure::Asked => 185,
            Failure::Io(_) => 251,
        }
    }
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.json, arguments.noprogress);
    report.line("UXFP version 1.14.5-0");
    let outcome = run(&arguments, &mut report);
    let code = match &outcome {
        Ok(()) => 0,
        Err(failure) => {
            report.error(&failure.to_string());
            failure.exit_code()
        }
    };
    report.finish(code);
    ExitCode::from(code)
}

fn run(arguments: &Arguments, report: &mut Report) -> Result<(), Failure> {
    let router = router(arguments.port.as_deref());
    let devices = bus::devices(&router);
    if arguments.show_diag_ports {
        return show(&devices, report);
    }
    let _alive = events::note(&router, arguments.file.as_deref())?;
    flash::run(arguments, &router, &devices, report)
}

fn show(devices: &[bus::Device], report: &mut Report) -> Result<(), Failure> {
    if devices.is_empty() {
        return Err(Failure::NoDevice);
    }
    report.line(&format!("found {} compatible modems", devices.len()));
    for device in devices {
        let serial = device.serial.as_deref().unwrap_or("");
        report.line(&format!(
            "{} - serial number: {serial} - diag port: {}",
            device.id.to_ascii_uppercase(),
            device.port.display()
        ));
    }
    Ok(())
}

/// `LAB_ROUTER`, or the directory that the port's `dev` is in, or the real root.
fn router(port: Option<&Path>) -> PathBuf {
    if let Some(router) = std::env::var_os("LAB_ROUTER") {
        return router.into();
    }
    let beside = port.and_then(|port| port.parent()?.parent());
    beside.unwrap_or(Path::new("/")).to_owned()
}
