//! What every request needs: trust, HTTPS clients, the device's key. It can fail for want of a file
//! that a person has to mend, and a modem that waits for its recovery must not wait for that person:
//! so it is tried until it works, beside everything else.

use std::sync::Arc;

use reqwest::Client;
use shared::identity::Claims;
use tokio::time::sleep;

use super::api::Api;
use super::backoff::Backoff;
use super::causes;
use super::state::{Access, StateCell};
use crate::clock::Clock;
use crate::identity::{Board, Identity, IdentityError};
use crate::settings::Settings;
use crate::tls::{Tls, TlsError};
use crate::{random, source};

/// Why there is no uplink.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("the device's identity cannot be used")]
    Identity(#[from] IdentityError),
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    #[error("the HTTPS client cannot be made")]
    Client(#[source] reqwest::Error),
}

/// The means of all requests.
#[derive(Debug)]
pub struct Connection {
    pub api: Api,
    pub tls: Tls,
    /// For images, whose requests have limits of their own.
    pub images: Client,
}

/// Who asks.
#[derive(Debug)]
pub struct Caller {
    pub identity: Identity,
    pub claims: Claims,
}

/// Tries until there is a connection to be used; `status` says why there is none.
pub async fn prepare(
    settings: &Settings,
    clock: &Arc<Clock>,
    state: &StateCell,
) -> (Connection, Caller) {
    let mut backoff = Backoff::new(settings.uplink.retry, settings.uplink.retry_max);
    loop {
        match try_once(settings, clock) {
            Ok(prepared) => return prepared,
            Err(error) => {
                let reason = causes(&error);
                if state.update(|state| {
                    state.access = Access::Unreachable { reason: reason.clone() };
                }) {
                    log::error!("no access: {reason}");
                }
            }
        }
        sleep(backoff.next(random::share())).await;
    }
}

fn try_once(
    settings: &Settings,
    clock: &Arc<Clock>,
) -> Result<(Connection, Caller), ConnectionError> {
    let paths = &settings.paths;
    let board = Board::read(&paths.sysfs);
    let identity = Identity::open(&paths.state_dir, &board)?;
    let mut claims = board.claims(&paths.proc);
    claims.openwisp_uuid = settings.openwisp_uuid.clone();
    let tls = Tls::new(&settings.coordinator.trust, clock.clone())?;
    let url = settings.coordinator.url.clone();
    let api =
        Api::new(url, &tls, settings.uplink.request_timeout).map_err(ConnectionError::Client)?;
    let images = source::client(tls.config()).map_err(ConnectionError::Client)?;
    Ok((Connection { api, tls, images }, Caller { identity, claims }))
}
