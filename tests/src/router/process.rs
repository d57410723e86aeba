//! `lab sim-router`: a router in a process of its own, for a coordinator that is not the lab's.

use super::{Plan, Router, Uplink};
use crate::{
    faults::{ToolFault, ToolFaultKind, write_tool_faults},
    firmware::Model,
};
use anyhow::Context;
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// A router with the real agent and a simulated FN990A28, until SIGTERM. It prints its IMEI.
#[derive(Debug, Parser)]
#[command(name = "sim-router")]
struct Arguments {
    /// Where it lies; must survive a power cut.
    #[arg(long)]
    dir: PathBuf,
    /// Its number: of its name, its IMEI and its address 127.0.1.N.
    #[arg(long, default_value_t = 1)]
    number: u8,
    /// The coordinator's port for HTTPS on 127.0.0.1.
    #[arg(long)]
    https: u16,
    /// The coordinator's port for MQTT.
    #[arg(long)]
    mqtt: u16,
    #[arg(long)]
    pin: String,
    #[arg(long)]
    enrolment_token: String,
    /// The file of the public key that it trusts.
    #[arg(long)]
    key: PathBuf,
    /// Bytes that its tool moves in a second.
    #[arg(long)]
    pace: Option<u64>,
}

/// The applet.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ran = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(Arguments::parse())));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sim-router: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let plan = Plan {
        number: arguments.number,
        model: Model::Fn990a28,
        package: crate::release::FROM.into(),
        key: std::fs::read_to_string(&arguments.key).context("the key")?,
        sole_uplink: false,
        seed: u64::from(arguments.number),
        uplink: Uplink {
            https: arguments.https,
            mqtt: arguments.mqtt,
            pin: arguments.pin,
            enrolment_token: arguments.enrolment_token,
        },
    };
    let mut router = Router::build(&std::env::current_exe()?, &arguments.dir, &plan).await?;
    if let Some(bytes_per_second) = arguments.pace {
        let slow = ToolFaultKind::Slow { bytes_per_second };
        write_tool_faults(&router.dir, &[ToolFault { kind: slow, times: None }])?;
    }
    router.start_agent()?;
    println!("imei={}", router.imei);
    terminated.recv().await;
    Ok(())
}
