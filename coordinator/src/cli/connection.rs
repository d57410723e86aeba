//! Which server is asked, how it is recognized, and who asks: the command line and the environment
//! first, then the profile that `login` wrote.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use shared::hex::Sha256;

use super::client::{Client, Http};
use super::failure::Failure;
use super::profile::{Name, Profile, Profiles};
use super::trust;

const DEFAULT_URL: &str = "https://localhost:8443";

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct Server {
    /// Address of the server [default: the profile's, else https://localhost:8443]
    #[arg(long, global = true, env = "MODEM_UPGRADER_URL")]
    url: Option<String>,
    /// Trust only the server with this key: sha256//BASE64 or hex, as `serve` prints it
    #[arg(long, global = true, env = "MODEM_UPGRADER_PIN", value_parser = trust::parse_pin)]
    pin: Option<Sha256>,
    /// Trust servers that these certificate authorities (PEM) vouch for [default: the system's]
    #[arg(
        long,
        global = true,
        env = "MODEM_UPGRADER_CA",
        value_name = "FILE",
        conflicts_with = "pin"
    )]
    ca: Option<PathBuf>,
    /// The profile, as `profiles` lists them [default: the one in use]
    #[arg(long, global = true, env = "MODEM_UPGRADER_PROFILE", value_name = "NAME")]
    profile: Option<Name>,
}

#[derive(Debug, Args)]
pub struct Connection {
    #[command(flatten)]
    server: Server,
    /// API token [default: the profile's]
    #[arg(
        long,
        global = true,
        env = "MODEM_UPGRADER_TOKEN",
        hide_env_values = true,
        help_heading = "Server"
    )]
    token: Option<String>,
}

impl Connection {
    pub fn open(&self) -> anyhow::Result<Client> {
        let profiles = Profiles::load()?;
        let (_, known) = self.server.named(&profiles)?;
        let wanted = self.server.profile(known);
        let token = self.token.clone().or(wanted.token.clone());
        let token = token.ok_or_else(|| self.server.no_token(&profiles))?;
        wanted.client(Some(token))
    }
}

impl Server {
    fn no_token(&self, profiles: &Profiles) -> Failure {
        let names: Vec<_> = profiles.iter().map(|(name, _)| name.to_string()).collect();
        match (&self.profile, &profiles.current, &self.url) {
            (None, None, None) if !names.is_empty() => Failure::NoProfile(names.join(", ")),
            (Some(name), _, None) => Failure::LoggedOut(name.to_string()),
            _ => Failure::NoToken,
        }
    }

    /// The profile that is meant, and what it says so far.
    pub fn named(&self, profiles: &Profiles) -> anyhow::Result<(Option<Name>, Option<Profile>)> {
        match &self.profile {
            Some(name) => match profiles.get(name) {
                Some(profile) => Ok((Some(name.clone()), Some(profile.clone()))),
                None => {
                    bail!("no profile {name}: `modem-upgrader login --profile {name}` makes it")
                }
            },
            None => Ok((profiles.current.clone(), profiles.in_use().cloned())),
        }
    }

    /// The name for a profile to write.
    pub fn name(&self, profiles: &Profiles) -> Name {
        self.profile.clone().or_else(|| profiles.current.clone()).unwrap_or_default()
    }

    /// What the command line says, completed by the profile. A profile's token, pin and authorities
    /// are for its own server: another address gets none of them.
    pub fn profile(&self, known: Option<Profile>) -> Profile {
        let url = self.url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        let known = known.filter(|known| url.as_ref().is_none_or(|url| *url == known.url));
        let mut profile = known.unwrap_or_default();
        profile.url = url.unwrap_or(profile.url);
        if profile.url.is_empty() {
            profile.url = DEFAULT_URL.to_owned();
        }
        if self.pin.is_some() || self.ca.is_some() {
            (profile.pin, profile.ca) = (self.pin, self.ca.clone());
        }
        profile
    }
}

impl Profile {
    /// A client for this server; `token` only where there is one yet.
    pub fn client(&self, token: Option<String>) -> anyhow::Result<Client> {
        if !self.url.starts_with("https://") {
            bail!("{} does not begin with https://: the API is served over TLS only", self.url);
        }
        let tls = match self.pin {
            Some(pin) => trust::pinned(pin)?,
            None => trust::authorities(self.ca.as_deref())?,
        };
        let client = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .https_only(true)
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(15))
        };
        // Longer than the pause between two keep-alives of the live events.
        let hasty = client().read_timeout(Duration::from_secs(60)).build();
        // That time runs from the request on, and an upload is answered when all of it has arrived: there the
        // server ends what stands still, and TCP what is cut off.
        let patient = client().build();
        let http = Http {
            hasty: hasty.context("cannot set up HTTPS")?,
            patient: patient.context("cannot set up HTTPS")?,
        };
        Ok(Client::new(http, self.url.trim_end_matches('/'), token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: Option<&str>) -> Server {
        Server { url: url.map(str::to_owned), pin: None, ca: None, profile: None }
    }

    fn known() -> Profile {
        Profile {
            url: "https://a".into(),
            ca: Some("a.pem".into()),
            token: Some("secret".into()),
            ..Profile::default()
        }
    }

    #[test]
    fn a_profile_speaks_for_its_own_server_only() {
        assert_eq!(server(None).profile(Some(known())), known());
        assert_eq!(server(Some("https://a/")).profile(Some(known())), known());
        let other = Profile { url: "https://b".into(), ..Profile::default() };
        assert_eq!(server(Some("https://b")).profile(Some(known())), other);
        assert_eq!(server(None).profile(None).url, DEFAULT_URL);
    }

    #[test]
    fn the_command_line_wins() {
        let pinned = Server { pin: "00".repeat(32).parse().ok(), ..server(None) };
        let profile = pinned.profile(Some(known()));
        assert_eq!((profile.pin, profile.ca), (pinned.pin, None));
        assert_eq!(profile.token, Some("secret".into()));
    }
}
