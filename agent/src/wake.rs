//! SIGUSR1: something new was seen on this router, a modem for instance, or a way to the coordinator.
//! Hotplug scripts send it, as often as they like.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::uplink::UplinkHandle;

/// Hears the signal from now on; without it, the signal would end the process.
#[derive(Debug)]
pub struct Wake {
    signal: Option<Signal>,
    woken: Arc<Notify>,
}

impl Wake {
    /// Must be called on a runtime, early.
    #[must_use]
    pub fn listen() -> Self {
        let signal = signal(SignalKind::user_defined1())
            .inspect_err(|error| log::error!("SIGUSR1 cannot be heard: {error}"));
        Self { signal: signal.ok(), woken: Arc::new(Notify::new()) }
    }

    /// Notified once for any number of signals.
    #[must_use]
    pub fn woken(&self) -> Arc<Notify> {
        self.woken.clone()
    }

    /// Asks the coordinator on every signal, for ever.
    pub async fn ask(self, uplink: UplinkHandle) {
        let Some(mut signal) = self.signal else { return };
        while signal.recv().await.is_some() {
            log::debug!("woken by a signal");
            uplink.ask_again();
            self.woken.notify_one();
        }
    }
}
