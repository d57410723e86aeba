//! Where the server is, who asks, and how it is recognized.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use shared::hex::Sha256;

use super::client::Client;
use super::trust;

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct Connection {
    /// Address of the server
    #[arg(long, env = "MODEM_UPGRADER_URL", default_value = "https://localhost:8443")]
    url: String,
    /// API token; `serve` prints the first one at its first start
    #[arg(long, env = "MODEM_UPGRADER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Trust only the server with this key: sha256//BASE64 or hex, as `serve` prints it
    #[arg(long, env = "MODEM_UPGRADER_PIN", value_parser = trust::parse_pin)]
    pin: Option<Sha256>,
    /// Trust servers that these certificate authorities (PEM) vouch for [default: the system's]
    #[arg(long, env = "MODEM_UPGRADER_CA", value_name = "FILE", conflicts_with = "pin")]
    ca: Option<PathBuf>,
}

impl Connection {
    pub fn open(&self) -> anyhow::Result<Client> {
        let Some(token) = &self.token else {
            bail!(
                "no API token: give --token or set MODEM_UPGRADER_TOKEN; \
                 `modem-upgrader serve` prints one at its first start"
            );
        };
        if !self.url.starts_with("https://") {
            bail!("{} does not begin with https://: the API is served over TLS only", self.url);
        }
        let tls = match self.pin {
            Some(pin) => trust::pinned(pin)?,
            None => trust::authorities(self.ca.as_deref())?,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(15))
            // Longer than the pause between two keep-alives of the live events.
            .read_timeout(Duration::from_secs(60))
            .build()
            .context("cannot set up HTTPS")?;
        Ok(Client::new(http, self.url.trim_end_matches('/'), token))
    }
}
