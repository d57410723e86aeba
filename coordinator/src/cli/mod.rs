//! The command line of `modem-upgrader`: the server itself, signing firmware offline, and the
//! operator's everyday requests to a server.

mod backup;
mod client;
mod connection;
mod devices;
mod events;
mod firmware;
mod operations;
mod output;
mod serve;
mod token;
mod trust;
mod upgrade;
mod upload;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use connection::Connection;

/// Upgrades the firmware of 5G and LTE modems in fleets of OpenWrt routers.
#[derive(Debug, Parser)]
#[command(name = "modem-upgrader", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the coordinator
    Serve(serve::Arguments),
    /// Back the server's data up into a file, while it runs, on the server's machine
    Backup(backup::Take),
    /// Put a backup in the place of the server's data, while it does not run
    Restore(backup::Restore),
    /// Make, list and revoke tokens, on the server's machine
    Token(token::Arguments),
    /// Make keys, sign and verify firmware; needs no server
    #[command(subcommand)]
    Firmware(firmware::Command),
    /// Upload firmware; makes its category and build where they are missing
    Upload(Request<upload::Arguments>),
    /// Upgrade the modem of a device
    Upgrade(Request<upgrade::Arguments>),
    /// List devices and their modems
    Devices(Request<devices::Arguments>),
    /// List upgrade operations
    Operations(Request<operations::Arguments>),
}

/// A command that asks a server.
#[derive(Debug, Args)]
struct Request<A: Args> {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    arguments: A,
}

/// Entry point, shared with the lab's multi-call binary.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // The one place that prints causes.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let one_thread = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Backup(arguments) => backup::take(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Token(arguments) => one_thread()?.block_on(token::run(arguments)),
        Command::Firmware(command) => firmware::run(command),
        Command::Upload(Request { connection, arguments }) => {
            one_thread()?.block_on(upload::run(&connection.open()?, arguments))
        }
        Command::Upgrade(Request { connection, arguments }) => {
            one_thread()?.block_on(upgrade::run(&connection.open()?, arguments))
        }
        Command::Devices(Request { connection, arguments }) => {
            one_thread()?.block_on(devices::run(&connection.open()?, arguments))
        }
        Command::Operations(Request { connection, arguments }) => {
            one_thread()?.block_on(operations::run(&connection.open()?, arguments))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }
}
