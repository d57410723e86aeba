//! The way to the coordinator. It asks; nobody reaches in.
//!
//! ```text
//!            ┌ sign_in ── nonce, enrol, token ──────────────┐
//!            ├ desired ── GET desired ◀── wake, poll        │ HTTPS: the truth path
//!   handle ──┼ delivery ─ POST events, ticks; PUT inventory ┤
//!            │            POST operations/{id}/start        ┘
//!            └ line ───── up/{presence,event,progress}, down/{wake,ack}   MQTT: the fast path
//! ```
//! A task each; they share the credentials ([`sign_in`]), the outbox ([`pending`]) and the latest
//! ticks. None waits for another, so a blocked broker slows things down and stops nothing: events
//! that MQTT does not get acknowledged in `mqtt_patience_s` go over HTTPS, and polls go on.
//!
//! What they need (trust, clients, the device's key) is made by [`connection`], however long that
//! takes: until then events wait, nothing is desired and no grant is answered.
//!
//! An event leaves the outbox only by the coordinator's own acknowledgement, whichever way it
//! comes. The inventory goes over HTTPS alone, where its answer says that it was stored.

mod api;
mod backoff;
mod connection;
mod delivery;
mod desired;
mod line;
mod pending;
mod rest;
mod sign_in;
mod state;
mod ticks;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use shared::desired::Desired;
use shared::event::{Event, Tick};
use shared::grant::{Grant, Refusal, StartRequest};
use shared::ids::OperationId;
use shared::inventory::Inventory;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::outbox::{Draft, Outbox};
use crate::settings::Settings;
use crate::source::TokenProvider;

pub use api::ApiError;
pub use sign_in::Credentials;
pub use state::{Access, UplinkState};

use connection::{Caller, Connection};
use pending::Pending;
use rest::Nudge;
use sign_in::SignIn;
use state::StateCell;
use ticks::Ticks;

/// The answer to the question whether the point of no return may be passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAnswer {
    Granted(Grant),
    Refused(Refusal),
    /// Nobody answered, or not to this question: the modem stays untouched.
    NoAnswer(String),
}

/// The tasks. They end when this is dropped; the coordinator then sees the device go offline.
#[derive(Debug)]
pub struct Uplink {
    _tasks: JoinSet<()>,
}

/// What the rest of the agent does with the uplink.
#[derive(Debug, Clone)]
pub struct UplinkHandle {
    base: reqwest::Url,
    request_timeout: Duration,
    /// Empty until it could be made.
    connection: Arc<OnceLock<Connection>>,
    sign_in: Arc<SignIn>,
    pending: Pending,
    ticks: Ticks,
    wake: Arc<Notify>,
    nudge: Nudge,
    desired: watch::Sender<Option<Arc<Desired>>>,
    inventory: watch::Sender<Option<Inventory>>,
    state: StateCell,
}

impl Uplink {
    /// Starts the tasks on the current runtime.
    #[must_use]
    pub fn start(
        settings: Arc<Settings>,
        clock: Arc<Clock>,
        outbox: Outbox,
    ) -> (Self, UplinkHandle) {
        let state = StateCell::default();
        let handle = UplinkHandle {
            base: settings.coordinator.url.clone(),
            request_timeout: settings.uplink.request_timeout,
            connection: Arc::new(OnceLock::new()),
            sign_in: Arc::new(SignIn::new()),
            pending: Pending::new(outbox, state.clone()),
            ticks: Ticks::default(),
            wake: Arc::new(Notify::new()),
            nudge: Nudge::default(),
            desired: watch::Sender::new(None),
            inventory: watch::Sender::new(None),
            state,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(handle.clone().connect(settings, clock));
        (Self { _tasks: tasks }, handle)
    }
}

impl UplinkHandle {
    async fn connect(self, settings: Arc<Settings>, clock: Arc<Clock>) {
        let (connection, caller) = connection::prepare(&settings, &clock, &self.state).await;
        let connection = self.connection.get_or_init(|| connection);
        let mut tasks = self.spawn(connection, caller, &settings);
        // None of them ends by itself.
        while tasks.join_next().await.is_some() {}
    }

    fn spawn(&self, connection: &Connection, caller: Caller, settings: &Settings) -> JoinSet<()> {
        let uplink = &settings.uplink;
        let up = watch::Sender::new(false);
        let keeper = sign_in::Keeper {
            api: connection.api.clone(),
            tls: connection.tls.clone(),
            caller,
            enrolment_token_file: settings.coordinator.enrolment_token_file.clone(),
            settings: uplink.clone(),
            sign_in: self.sign_in.clone(),
            rest: self.nudge.rest(),
            state: self.state.clone(),
        };
        let delivery = delivery::Delivery {
            api: connection.api.clone(),
            sign_in: self.sign_in.clone(),
            settings: uplink.clone(),
            pending: self.pending.clone(),
            line: up.subscribe(),
            rest: self.nudge.rest(),
        };
        let poller = desired::Poller {
            api: connection.api.clone(),
            sign_in: self.sign_in.clone(),
            settings: uplink.clone(),
            wake: self.wake.clone(),
            rest: self.nudge.rest(),
            desired: self.desired.clone(),
        };
        let line = line::Line {
            host: host(&settings.coordinator.url),
            tls: connection.tls.clone(),
            sign_in: self.sign_in.clone(),
            settings: uplink.clone(),
            pending: self.pending.clone(),
            ticks: self.ticks.clone(),
            wake: self.wake.clone(),
            rest: self.nudge.rest(),
            up,
            state: self.state.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        tasks.spawn(poller.run());
        tasks.spawn(delivery.clone().events());
        tasks.spawn(delivery.clone().ticks(self.ticks.clone()));
        tasks.spawn(delivery.inventory(self.inventory.subscribe()));
        if uplink.mqtt {
            tasks.spawn(line.run());
        } else {
            // The delivery watches the line: it stays, and stays down.
            tasks.spawn(async move {
                let _line = line;
                std::future::pending::<()>().await;
            });
        }
        tasks
    }

    /// What is wanted; `None` until the coordinator answered for the first time.
    #[must_use]
    pub fn desired(&self) -> watch::Receiver<Option<Arc<Desired>>> {
        self.desired.subscribe()
    }

    /// Asks the coordinator now, and not at the next poll or when a back-off is over.
    pub fn ask_again(&self) {
        self.nudge.now();
        self.wake.notify_one();
    }

    /// Asks once for leave to flash. The same question may be repeated: it counts once.
    pub async fn request_start(&self, operation: OperationId, ask: &StartRequest) -> StartAnswer {
        let Ok(credentials) = timeout(self.request_timeout, self.sign_in.credentials()).await
        else {
            return StartAnswer::NoAnswer("the device has no access at present".to_owned());
        };
        let Some(connection) = self.connection.get() else {
            return StartAnswer::NoAnswer("there is no connection yet".to_owned());
        };
        match connection.api.start(&credentials.api_token, operation, ask).await {
            Ok(answer) => answer,
            Err(error) => {
                if error.is_unauthorized() {
                    self.sign_in.refuse(credentials.number);
                }
                StartAnswer::NoAnswer(causes(&error))
            }
        }
    }

    /// Keeps a milestone until the coordinator has acknowledged it. When this returns it is on
    /// disk, unless [`UplinkState::outbox_trouble`] says otherwise. Blocks for one fsync.
    pub fn report(&self, draft: Draft) -> Event {
        self.pending.append(draft)
    }

    /// As [`Self::report`], in memory only, for what a fresh process would say again: the latest of each
    /// operation, and not of many.
    pub fn answer(&self, draft: Draft) -> Event {
        self.pending.append_volatile(draft)
    }

    /// Sends progress if it can be; a later tick of the slot replaces it.
    pub fn tick(&self, tick: Tick) {
        self.ticks.put(tick);
    }

    /// Sends the inventory now, after failures, and from time to time.
    pub fn set_inventory(&self, inventory: Inventory) {
        self.inventory.send_replace(Some(inventory));
    }

    /// Waits until the coordinator has acknowledged everything; false if it has not by then.
    pub async fn flushed(&self, limit: Duration) -> bool {
        let mut changed = self.pending.watch();
        let empty = async {
            while self.pending.waiting().is_some() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(limit, empty).await.is_ok()
    }

    /// For `status`.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<UplinkState> {
        self.state.watch()
    }

    /// The credentials for other requests (images): waits for them at most as long as a request
    /// may take.
    pub async fn credentials(&self) -> Option<Arc<Credentials>> {
        timeout(self.request_timeout, self.sign_in.credentials()).await.ok()
    }

    /// For [`crate::source::Source`].
    #[must_use]
    pub fn token_provider(&self) -> TokenProvider {
        let handle = self.clone();
        Box::new(move || {
            let handle = handle.clone();
            Box::pin(async move {
                let credentials = handle.credentials().await?;
                Some(credentials.api_token.clone())
            })
        })
    }

    /// A request with these credentials was answered by 401.
    pub fn refuse(&self, credentials: &Credentials) {
        self.sign_in.refuse(credentials.number);
    }

    /// The HTTPS client for images; `None` while there is no connection to be used.
    #[must_use]
    pub fn images(&self) -> Option<reqwest::Client> {
        self.connection.get().map(|connection| connection.images.clone())
    }

    /// `https://host[:port]/`.
    #[must_use]
    pub fn base(&self) -> &reqwest::Url {
        &self.base
    }
}

/// As rustls wants it: an IPv6 address without brackets.
fn host(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// An error with its causes, in one line. Some libraries print their cause themselves.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}
