//! Who the device is to the coordinator: enrolment, and the tokens that follow from it.
//!
//! ```text
//!             unknown | revoked, and an enrolment token is there
//!        ┌───────────────────────── enrol ◀─┐
//!        ▼                                  │
//!    nonce ─▶ token ─── accepted ─▶ credentials, renewed at 70-90 % of their life
//!               │
//!               ├─ pending ─▶ wait, ask again
//!               └─ else ─▶ back off, ask again; credentials that still live stay in use
//! ```
//! One task signs in; all others wait for its credentials and report those that are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shared::identity::{DeviceState, Tokens};
use shared::ids::{DeviceId, OrganizationSlug};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::api::{Api, ApiError};
use super::backoff::{Backoff, jittered, renewal};
use super::causes;
use super::connection::Caller;
use super::rest::Rest;
use super::state::{Access, StateCell};
use crate::files;
use crate::random;
use crate::settings;
use crate::tls::Tls;

const MAX_TOKEN_FILE: usize = 4096;

/// What the coordinator gave for a while.
#[derive(Clone)]
pub struct Credentials {
    pub device: DeviceId,
    pub organization: OrganizationSlug,
    pub api_token: String,
    pub mqtt_token: String,
    pub mqtt_until: Instant,
    pub mqtt_port: u16,
    /// Tells these credentials from earlier ones.
    pub number: u32,
}

impl std::fmt::Debug for Credentials {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials {} of {} in {}", self.number, self.device, self.organization)
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
enum SignInError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("waits for an operator to accept this device")]
    Pending,
    #[error("the coordinator's certificate does not hold at the time it told")]
    Time(#[source] rustls::Error),
    #[error("enrolment token file {path} cannot be read")]
    TokenFile { path: PathBuf, source: std::io::Error },
    #[error("the claims cannot be written")]
    Claims(#[source] serde_json::Error),
}

impl SignInError {
    /// The coordinator knows the device, and does not want it, or does not know it.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Api(ApiError::Refused { status: 401 | 403, .. }))
    }
}

/// The credentials in force, as everybody sees them.
#[derive(Debug)]
pub struct SignIn {
    current: watch::Sender<Option<Arc<Credentials>>>,
    refused: Notify,
    /// The number of those that MQTT refused last.
    doubted: AtomicU32,
}

impl SignIn {
    pub fn new() -> Self {
        let current = watch::Sender::new(None);
        Self { current, refused: Notify::new(), doubted: AtomicU32::new(0) }
    }

    /// Waits until there are credentials.
    pub async fn credentials(&self) -> Arc<Credentials> {
        let mut current = self.current.subscribe();
        loop {
            if let Some(credentials) = current.borrow_and_update().clone() {
                return credentials;
            }
            if current.changed().await.is_err() {
                // The sender lives in self: this cannot be, and must not spin.
                std::future::pending::<()>().await;
            }
        }
    }

    /// MQTT refused these credentials: others are asked for. HTTPS goes on with them until they come, or until it
    /// refuses them itself; a broken broker stops nothing else.
    pub fn doubt(&self, number: u32) {
        let current = self.current.borrow().as_ref().map(|credentials| credentials.number);
        if current == Some(number) && self.doubted.swap(number, Ordering::Relaxed) != number {
            self.refused.notify_one();
        }
    }

    /// These credentials were refused: they are no longer given out, and others are asked for.
    pub fn refuse(&self, number: u32) {
        let taken = self.current.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|credentials| credentials.number == number);
            if same {
                *current = None;
            }
            same
        });
        if taken {
            self.refused.notify_one();
        }
    }
}

/// The task that signs in.
pub struct Keeper {
    pub api: Api,
    pub tls: Tls,
    pub caller: Caller,
    pub enrolment_token_file: Option<PathBuf>,
    pub settings: settings::Uplink,
    pub sign_in: Arc<SignIn>,
    pub rest: Rest,
    pub state: StateCell,
}

impl Keeper {
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.retry, self.settings.retry_max);
        let mut number = 0;
        loop {
            let began = Instant::now();
            match self.sign_in().await {
                Ok(tokens) => {
                    number += 1;
                    let pause = self.publish(tokens, number);
                    tokio::select! {
                        () = sleep(pause) => backoff.reset(),
                        () = self.sign_in.refused.notified() => {
                            // Credentials refused as soon as they were given must not make a loop.
                            if began.elapsed() > self.settings.retry_max.min(pause / 2) {
                                backoff.reset();
                            }
                            self.rest.pause(backoff.next(random::share()), None).await;
                        }
                    }
                }
                Err(error) => {
                    self.note(&error);
                    let asked = match &error {
                        SignInError::Api(error) => error.retry_after(),
                        _ => None,
                    };
                    let pause = if error.is_refusal() {
                        // Only a person can change that.
                        jittered(self.settings.retry_max, 50, random::share())
                    } else {
                        backoff.next(random::share())
                    };
                    if self.rest.pause(pause, asked).await {
                        backoff.reset();
                    }
                }
            }
        }
    }

    async fn sign_in(&self) -> Result<Tokens, SignInError> {
        let first = self.ask_for_tokens().await;
        let Err(SignInError::Api(ApiError::Refused { status: 401, code, .. })) = &first else {
            return first;
        };
        let file = self.enrolment_token_file.as_ref().filter(|file| file.exists());
        let Some(file) = file.filter(|_| may_enrol(code)) else {
            return first;
        };
        self.enrol(file).await?;
        self.ask_for_tokens().await
    }

    async fn ask_for_tokens(&self) -> Result<Tokens, SignInError> {
        let nonce = self.api.nonce().await?;
        let proof = self.caller.identity.token_request(&nonce);
        let tokens = self.api.token(&proof).await.map_err(|error| match error {
            ApiError::Refused { status: 403, code, .. } if code == "pending" => {
                SignInError::Pending
            }
            error => SignInError::Api(error),
        })?;
        self.tls.prove_time(tokens.time).map_err(SignInError::Time)?;
        Ok(tokens)
    }

    async fn enrol(&self, file: &Path) -> Result<(), SignInError> {
        let unreadable = |source| SignInError::TokenFile { path: file.to_owned(), source };
        let bytes = files::read_limited(file, MAX_TOKEN_FILE).map_err(unreadable)?;
        let token = String::from_utf8_lossy(&bytes).trim().to_owned();
        let nonce = self.api.nonce().await?;
        let Caller { identity, claims } = &self.caller;
        let proof = identity.enrol(&nonce, &token, claims).map_err(SignInError::Claims)?;
        let enrolled = self.api.enrol(&proof).await?;
        log::info!("enrolled as {} in {}", enrolled.device, enrolled.organization);
        match enrolled.state {
            DeviceState::Pending => Err(SignInError::Pending),
            DeviceState::Accepted | DeviceState::Revoked | DeviceState::Unknown => Ok(()),
        }
    }

    /// Returns the pause until they are renewed.
    fn publish(&self, tokens: Tokens, number: u32) -> Duration {
        let seconds = tokens.api.expires_in.min(tokens.mqtt.expires_in).clamp(10, 7 * 86_400);
        let life = Duration::from_secs(seconds);
        let credentials = Credentials {
            device: tokens.device,
            organization: tokens.organization,
            api_token: tokens.api.token,
            mqtt_token: tokens.mqtt.token,
            mqtt_until: Instant::now() + life,
            mqtt_port: tokens.mqtt_port,
            number,
        };
        self.state.update(|state| {
            state.access = Access::Accepted;
            state.device = Some(credentials.device);
            state.organization = Some(credentials.organization.clone());
        });
        self.sign_in.current.send_replace(Some(Arc::new(credentials)));
        renewal(life, random::share())
    }

    fn note(&self, error: &SignInError) {
        let access = match error {
            SignInError::Pending => Access::Pending,
            SignInError::Api(ApiError::Refused { status: 401 | 403, code, .. }) => {
                Access::Refused { code: code.clone() }
            }
            error => Access::Unreachable { reason: causes(error) },
        };
        if matches!(access, Access::Pending | Access::Refused { .. }) {
            // What the coordinator no longer stands by is not used any more.
            self.sign_in.current.send_replace(None);
        }
        if self.state.update(|state| state.access = access) {
            log::warn!("no access: {}", causes(error));
        }
    }
}

fn may_enrol(code: &str) -> bool {
    matches!(code, "unknown" | "revoked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_mqtt_refuses_stays_good_for_https_until_that_refuses_it() {
        let sign_in = SignIn::new();
        let given = Credentials {
            device: DeviceId(Uuid::nil()),
            organization: "default".parse().unwrap(),
            api_token: "api".into(),
            mqtt_token: "mqtt".into(),
            mqtt_until: Instant::now(),
            mqtt_port: 8883,
            number: 1,
        };
        sign_in.current.send_replace(Some(Arc::new(given)));
        let asks_for_others = || {
            use futures_util::FutureExt as _;
            sign_in.refused.notified().now_or_never().is_some()
        };
        sign_in.doubt(2);
        assert!(!asks_for_others(), "they are gone already");
        sign_in.doubt(1);
        assert!(asks_for_others() && sign_in.current.borrow().is_some());
        sign_in.doubt(1);
        assert!(!asks_for_others(), "it is known");
        sign_in.refuse(1);
        assert!(asks_for_others() && sign_in.current.borrow().is_none());
    }
}
