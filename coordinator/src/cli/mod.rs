//! The command line of `modem-upgrader`: the server itself, signing firmware offline, and the
//! operator's everyday requests to a server.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads: `say!` and `note!` of `output` do not"
)]

mod audit;
mod backup;
mod batch;
mod builds;
mod client;
mod completions;
mod connection;
mod devices;
mod each;
mod enrolment_tokens;
mod events;
mod failure;
mod find;
mod firmware;
mod flags;
mod images;
mod lists;
mod login;
mod names;
mod operations;
mod organizations;
mod output;
mod places;
mod profile;
mod profiles;
mod prompt;
#[cfg(test)]
mod scripted;
mod serve;
mod token;
mod tokens;
mod trust;
mod upgrade;
mod upload;
mod users;
mod when;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use client::Client;
use connection::Connection;

/// Upgrades the firmware of 5G and LTE modems in fleets of OpenWrt routers.
#[derive(Debug, Parser)]
#[command(name = "modem-upgrader", version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done; 1 refused or failed; 2 wrong command line; \
    3 server not reached or not recognized; 4 not logged in or not allowed; \
    141 its output was closed.";

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
    /// Log in to a server, and remember it
    Login(login::Arguments),
    /// Log out; the server stays known
    Logout(login::Logout),
    /// List servers that are remembered, choose one, remove one
    Profiles(profiles::Arguments),
    /// Upload firmware; makes its category and build where they are missing
    Upload(Request<upload::Arguments>),
    /// List builds of firmware
    Builds(Request<builds::Arguments>),
    /// List firmware files
    Images(Request<images::Arguments>),
    /// List devices and their modems, accept and revoke them, put them in their places
    Devices(Request<devices::Arguments>),
    /// List, make and remove groups of devices
    Groups(Request<places::Arguments>),
    /// List, make and remove locations of devices
    Locations(Request<places::Arguments>),
    /// Upgrade the modem of a device
    Upgrade(Request<upgrade::Arguments>),
    /// Upgrade many modems, in waves: preview, create, watch, pause, resume, cancel, retry
    Batch(Request<batch::Arguments>),
    /// List upgrade operations, show, watch, cancel and write them off
    Operations(Request<operations::Arguments>),
    /// List, make and revoke your API tokens
    Tokens(Request<tokens::Arguments>),
    /// List, make and revoke tokens that devices enrol with
    EnrolmentTokens(Request<enrolment_tokens::Arguments>),
    /// List and make users, give them roles, change passwords
    Users(Request<users::Arguments>),
    /// List and make organizations
    Organizations(Request<organizations::Arguments>),
    /// Show who changed what
    Audit(Request<audit::Arguments>),
    /// Print completions for a shell
    Completions(completions::Arguments),
}

/// A command that asks a server.
#[derive(Debug, Args)]
struct Request<A: Args> {
    #[command(flatten)]
    arguments: A,
    #[command(flatten)]
    connection: Connection,
}

/// Entry point, shared with the lab's multi-call binary.
pub fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(other) => instead(&other),
    };
    done.unwrap_or_else(|error| failure::end(&error))
}

/// Help, the version, or what is wrong with the command line.
fn instead(parsed: &clap::Error) -> anyhow::Result<ExitCode> {
    let printed = parsed.print();
    if !parsed.use_stderr() {
        printed.map_err(failure::Failure::Output)?;
    }
    Ok(ExitCode::from(u8::try_from(parsed.exit_code()).unwrap_or(1)))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Backup(arguments) => backup::take(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Token(arguments) => one_thread(token::run(arguments)),
        Command::Firmware(command) => firmware::run(command),
        Command::Login(arguments) => one_thread(login::run(arguments)),
        Command::Logout(arguments) => one_thread(login::logout(arguments)),
        Command::Profiles(arguments) => one_thread(profiles::run(arguments)),
        Command::Upload(request) => ask(request, upload::run),
        Command::Builds(request) => ask(request, builds::run),
        Command::Images(request) => ask(request, images::run),
        Command::Devices(request) => ask(request, devices::run),
        Command::Groups(request) => ask(request, places::groups),
        Command::Locations(request) => ask(request, places::locations),
        Command::Upgrade(request) => ask(request, upgrade::run),
        Command::Batch(request) => ask(request, batch::run),
        Command::Operations(request) => ask(request, operations::run),
        Command::Tokens(request) => ask(request, tokens::run),
        Command::EnrolmentTokens(request) => ask(request, enrolment_tokens::run),
        Command::Users(request) => ask(request, users::run),
        Command::Organizations(request) => ask(request, organizations::run),
        Command::Audit(request) => ask(request, audit::run),
        Command::Completions(arguments) => completions::run(&arguments, Cli::command()),
    }
}

fn ask<A: Args>(
    request: Request<A>,
    run: impl AsyncFnOnce(&Client, A) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let client = request.connection.open()?;
    one_thread(run(&client, request.arguments))
}

fn one_thread(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
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
