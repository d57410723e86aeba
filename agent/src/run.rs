//! The composition of a running agent: identity, uplink, status file, until a signal ends it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::files;
use crate::guardian::Presence;
use crate::identity::{Board, Identity};
use crate::outbox::Outbox;
use crate::settings::Settings;
use crate::status::Status;
use crate::tls::Tls;
use crate::uplink::{Uplink, UplinkHandle};

/// The status file is never older.
const STATUS_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The agent cannot work at all: no state directory, no identity, no usable trust.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let paths = &settings.paths;
    files::create_private_dir(&paths.state_dir).context("the state directory cannot be made")?;
    files::create_private_dir(&paths.run_dir).context("the run directory cannot be made")?;
    let _presence = Presence::announce(&paths.run_dir)?.context("another agent runs here")?;
    let clock = Arc::new(Clock::new(paths.ntp_marker()));
    let (_uplink, handle) = start_uplink(&settings, clock)?;
    let mut end = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
        () = keep_status(&settings, &handle) => {}
    }
    files::remove_if_present(&settings.paths.status_file())?;
    Ok(())
}

/// Everything that leads to the coordinator.
///
/// # Errors
/// No identity, no usable trust, or no HTTPS client.
pub fn start_uplink(
    settings: &Settings,
    clock: Arc<Clock>,
) -> anyhow::Result<(Uplink, UplinkHandle)> {
    let paths = &settings.paths;
    let board = Board::read(&paths.sysfs);
    let identity = Identity::open(&paths.state_dir, &board)?;
    log::info!("public key {}", identity.public_key());
    let tls = Tls::new(&settings.coordinator.trust, clock)?;
    let outbox = Outbox::open(&paths.state_dir);
    Ok(Uplink::start(settings, tls, identity, board.claims(&paths.proc), outbox)?)
}

async fn keep_status(settings: &Settings, handle: &UplinkHandle) {
    let mut state = handle.state();
    loop {
        let mut status = Status::new(settings.paths.status_file());
        status.uplink = Some(state.borrow_and_update().clone());
        status.publish();
        if let Ok(Err(_)) = tokio::time::timeout(STATUS_INTERVAL, state.changed()).await {
            return;
        }
    }
}
