//! Asks for the desired state: on every wake, at every poll, after every reconnection.

use std::sync::Arc;
use std::time::Duration;

use shared::desired::{Desired, VERSION};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::api::{Api, ApiError, DesiredAnswer};
use super::backoff::{Backoff, jittered};
use super::causes;
use super::rest::Rest;
use super::sign_in::SignIn;
use crate::{random, settings};

/// However many wakes come, no two questions follow each other faster.
const WAKE_GAP: Duration = Duration::from_millis(200);

/// The task that polls.
pub struct Poller {
    pub api: Api,
    pub sign_in: Arc<SignIn>,
    pub settings: settings::Uplink,
    pub wake: Arc<Notify>,
    pub rest: Rest,
    pub desired: watch::Sender<Option<Arc<Desired>>>,
}

impl Poller {
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.retry, self.settings.retry_max);
        let mut etag = None;
        loop {
            match self.ask(&mut etag).await {
                Ok(asked) => {
                    backoff.reset();
                    let interval = asked.unwrap_or(self.settings.poll_interval);
                    let percent = self.settings.poll_jitter_percent;
                    let pause = jittered(interval, percent, random::share()).max(WAKE_GAP);
                    sleep(WAKE_GAP).await;
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.wake.notified() => {}
                    }
                }
                Err(error) => {
                    log::info!("desired: {}", causes(&error));
                    let pause = backoff.next(random::share());
                    if self.rest.pause(pause, error.retry_after()).await {
                        backoff.reset();
                    }
                }
            }
        }
    }

    /// Returns the pause that the coordinator wants.
    async fn ask(&self, etag: &mut Option<String>) -> Result<Option<Duration>, ApiError> {
        let credentials = self.sign_in.credentials().await;
        let asked = self.api.desired(&credentials.api_token, etag.as_deref()).await;
        let (answer, pause) = asked.inspect_err(|error| {
            if error.is_unauthorized() {
                self.sign_in.refuse(credentials.number);
            }
        })?;
        match answer {
            DesiredAnswer::Unchanged => {}
            DesiredAnswer::Changed { desired, .. } if desired.v != VERSION => {
                log::error!("desired has version {}, this agent knows {VERSION}", desired.v);
            }
            DesiredAnswer::Changed { desired, etag: tag } => {
                log::debug!("desired {}: {} jobs", desired.generation, desired.jobs.len());
                *etag = tag;
                self.desired.send_replace(Some(Arc::from(desired)));
            }
        }
        Ok(pause)
    }
}
