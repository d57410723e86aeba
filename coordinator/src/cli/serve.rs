//! `serve`

use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
