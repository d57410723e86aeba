//! `run`: brings the parts together.
//!
//! | file | owns |
//! |---|---|
//! | [`agent`] | the loop: which slot has its turn, when an inventory is due |
//! | [`slot`] | one slot: its journal, and the upgrade under way in it |
//! | [`turns`] | who comes first; pure |
//! | [`census`] | when the modems are asked, and what they said |
//! | [`recent`] | operations that were answered, and how many may begin in a day; bounded |
//! | [`nameless`] | what lies on disk of slots that the settings do not name |
//!
//! A modem in download mode is recovered from what lies on the router. So nothing here that only the
//! network needs (trust, identity, the coordinator's address) can keep the loop from beginning.

mod agent;
mod census;
mod nameless;
mod recent;
mod slot;
mod turns;

use crate::{
    clock::{self, Clock},
    environment::{self, Ports},
    files,
    guardian::Presence,
    outbox::Outbox,
    settings::Settings,
    status::StatusFile,
    uplink::Uplink,
    wake::Wake,
};
use agent::Agent;
use std::{io, path::PathBuf, sync::Arc};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the directory {path} cannot be used")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{directory} cannot be used before something is mounted on {point}")]
    NotMounted { directory: PathBuf, point: PathBuf },
    #[error("another agent runs with the same run directory {0}")]
    Running(PathBuf),
    #[error("the boot id cannot be read")]
    BootId(#[source] io::Error),
}

/// Runs until the process is told to end. A running tool belongs to its guardian and goes on.
///
/// # Errors
/// What must be mended by a person; procd starts the agent again and again meanwhile.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    // Until then a signal would end the process.
    let wake = Wake::listen();
    let settings = Arc::new(settings);
    let paths = &settings.paths;
    // What lies there may be the journal of a modem that is half written, and the device's key.
    if let Some(point) = environment::mounts().missing(&paths.state_dir) {
        let (directory, point) = (paths.state_dir.clone(), point.to_owned());
        return Err(RunError::NotMounted { directory, point });
    }
    for path in [&paths.state_dir, &paths.run_dir] {
        match files::durable_dir(path) {
            // Read-only since the power cut, perhaps: a modem may be recovered from what is there.
            Err(error) if path.is_dir() => log::error!("{}: {error}", path.display()),
            made => {
                made.map_err(|source| RunError::Directory { path: path.clone(), source })?;
            }
        }
    }
    let _presence = Presence::announce(&paths.run_dir)
        .map_err(|source| RunError::Directory { path: paths.run_dir.clone(), source })?
        .ok_or_else(|| RunError::Running(paths.run_dir.clone()))?;
    let boot_id = clock::boot_id(&paths.proc).map_err(RunError::BootId)?;
    let clock = Arc::new(Clock::new(paths.ntp_marker()));
    let outbox = Outbox::open(&paths.state_dir);
    let (_tasks, uplink) = Uplink::start(settings.clone(), clock.clone(), outbox);
    let status = StatusFile::new(paths.status_file());
    let refused = settings.refused.clone().map(shared::limits::cut);
    status.update(|status| status.settings_refused = refused);
    tokio::spawn(status.clone().follow(uplink.clone()));
    let woken = wake.woken();
    tokio::spawn(wake.ask(uplink.clone()));
    let mut agent = Agent::new(settings, Ports { uplink, clock, status, boot_id }, woken);
    tokio::select! {
        () = agent.work() => {}
        () = ended() => {}
    }
    Ok(())
}

async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            log::error!("SIGTERM cannot be heard: {error}");
            std::future::pending().await
        }
    }
}
