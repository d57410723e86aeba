//! What `serve` is told: fragments as written (a TOML file; flags and environment) → merged →
//! validated. Without any of them it serves from `./data` on the default ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::artifacts;
use crate::store::retention::Retention;

/// Settings as somebody wrote them, each of them optional. Flags and environment win over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// Directory of the database, the firmware and the keys.
    #[arg(long, env = "MODEM_UPGRADER_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the API listens, over TLS.
    #[arg(long, env = "MODEM_UPGRADER_HTTPS", value_name = "ADDRESS:PORT")]
    pub https: Option<SocketAddr>,
    /// Where devices and dashboards connect by MQTT over TLS.
    #[arg(long, env = "MODEM_UPGRADER_MQTT", value_name = "ADDRESS:PORT")]
    pub mqtt: Option<SocketAddr>,
    /// DNS names and addresses for the coordinator's own certificate.
    #[arg(long = "name", env = "MODEM_UPGRADER_NAMES", value_delimiter = ',', value_name = "NAME")]
    #[serde(default)]
    pub names: Vec<String>,
    /// A certificate chain of yours (PEM, leaf first) instead of an own one.
    #[arg(long, env = "MODEM_UPGRADER_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, env = "MODEM_UPGRADER_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// What devices sign that they talk to; the certificate's pin, if nothing is said.
    #[arg(long, env = "MODEM_UPGRADER_AUDIENCE", value_name = "TEXT")]
    pub audience: Option<String>,
    /// Seconds that a device's access token is good.
    #[arg(long, env = "MODEM_UPGRADER_TOKEN_LIFETIME", value_name = "SECONDS")]
    pub token_lifetime_s: Option<u64>,
    /// Requests a minute that one operator may make.
    #[arg(long, env = "MODEM_UPGRADER_REQUESTS", value_name = "COUNT")]
    pub requests_a_minute: Option<u32>,
    /// Bytes of the largest firmware file.
    #[arg(long, env = "MODEM_UPGRADER_LARGEST_FILE", value_name = "BYTES")]
    pub largest_file: Option<u64>,
    /// Bytes that all firmware may take together.
    #[arg(long, env = "MODEM_UPGRADER_QUOTA", value_name = "BYTES")]
    pub quota: Option<u64>,
    /// Bytes that stay free on the disk whatever is uploaded.
    #[arg(long, env = "MODEM_UPGRADER_RESERVE", value_name = "BYTES")]
    pub reserve: Option<u64>,
    /// Days that the milestones of an operation are kept after its end; 0: for ever.
    #[arg(long, env = "MODEM_UPGRADER_KEEP_MILESTONES", value_name = "DAYS")]
    pub keep_milestones_days: Option<u32>,
    /// Days that the log of an operation is kept after its end; 0: for ever.
    #[arg(long, env = "MODEM_UPGRADER_KEEP_LOGS", value_name = "DAYS")]
    pub keep_logs_days: Option<u32>,
    /// Days that refused milestones are kept; 0: for ever.
    #[arg(long, env = "MODEM_UPGRADER_KEEP_DEAD_LETTERS", value_name = "DAYS")]
    pub keep_dead_letters_days: Option<u32>,
    /// Days that the audit log goes back; 0: for ever.
    #[arg(long, env = "MODEM_UPGRADER_KEEP_AUDIT", value_name = "DAYS")]
    pub keep_audit_days: Option<u32>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a configuration")]
    Parse { path: PathBuf, source: toml::de::Error },
    #[error("{setting}: {problem}")]
    Invalid { setting: &'static str, problem: &'static str },
}

/// Settings that make sense together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data: PathBuf,
    pub https: SocketAddr,
    pub mqtt: SocketAddr,
    /// Empty: those of the machine's addresses that are known by themselves.
    pub names: Vec<String>,
    /// Chain and key, both PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub audience: Option<String>,
    pub token_lifetime: Duration,
    pub requests_a_minute: u32,
    pub artifacts: artifacts::Limits,
    pub retention: Retention,
}

const DATA: &str = "data";
const HTTPS_PORT: u16 = 8443;
const MQTT_PORT: u16 = 8883;
const TOKEN_LIFETIME_S: u64 = 3600;

const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP_MILESTONES: u32 = 180;
const KEEP_LOGS: u32 = 365;
const KEEP_DEAD_LETTERS: u32 = 30;
const KEEP_AUDIT: u32 = 730;

impl Fragment {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// A file that cannot be read, or has a key that is none of ours.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.into(), source })
    }

    /// Itself, completed by `lower` where it says nothing.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            data: self.data.or(lower.data),
            https: self.https.or(lower.https),
            mqtt: self.mqtt.or(lower.mqtt),
            names: if self.names.is_empty() { lower.names } else { self.names },
            certificate: self.certificate.or(lower.certificate),
            key: self.key.or(lower.key),
            audience: self.audience.or(lower.audience),
            token_lifetime_s: self.token_lifetime_s.or(lower.token_lifetime_s),
            requests_a_minute: self.requests_a_minute.or(lower.requests_a_minute),
            largest_file: self.largest_file.or(lower.largest_file),
            quota: self.quota.or(lower.quota),
            reserve: self.reserve.or(lower.reserve),
            keep_milestones_days: self.keep_milestones_days.or(lower.keep_milestones_days),
            keep_logs_days: self.keep_logs_days.or(lower.keep_logs_days),
            keep_dead_letters_days: self.keep_dead_letters_days.or(lower.keep_dead_letters_days),
            keep_audit_days: self.keep_audit_days.or(lower.keep_audit_days),
        }
    }

    /// The settings, with the defaults for what nobody said.
    ///
    /// # Errors
    /// Names the setting that makes no sense.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let invalid = |setting, problem| Err(ConfigError::Invalid { setting, problem });
        let certificate = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return invalid("certificate", "certificate and key go together"),
        };
        let lifetime = self.token_lifetime_s.unwrap_or(TOKEN_LIFETIME_S);
        if !(60..=86_400).contains(&lifetime) {
            return invalid("token_lifetime_s", "goes from 60 to 86400");
        }
        if self.audience.as_ref().is_some_and(|text| text.is_empty() || text.len() > 255) {
            return invalid("audience", "has 1 to 255 bytes");
        }
        let requests_a_minute = self.requests_a_minute.unwrap_or(crate::api::REQUESTS_A_MINUTE);
        if requests_a_minute == 0 {
            return invalid("requests_a_minute", "is at least 1");
        }
        let limits = artifacts::Limits::default();
        Ok(Config {
            data: self.data.unwrap_or_else(|| DATA.into()),
            https: self.https.unwrap_or_else(|| everywhere(HTTPS_PORT)),
            mqtt: self.mqtt.unwrap_or_else(|| everywhere(MQTT_PORT)),
            names: self.names,
            certificate,
            audience: self.audience,
            token_lifetime: Duration::from_secs(lifetime),
            requests_a_minute,
            artifacts: artifacts::Limits {
                file: self.largest_file.unwrap_or(limits.file),
                quota: self.quota.unwrap_or(limits.quota),
                reserve: self.reserve.unwrap_or(limits.reserve),
            },
            retention: Retention {
                milestones: days(self.keep_milestones_days, KEEP_MILESTONES),
                logs: days(self.keep_logs_days, KEEP_LOGS),
                dead_letters: days(self.keep_dead_letters_days, KEEP_DEAD_LETTERS),
                audit: days(self.keep_audit_days, KEEP_AUDIT),
            },
        })
    }
}

impl Config {
    /// `flags` (and the environment) over the file at `path`, if there is one.
    ///
    /// # Errors
    /// As [`Fragment::read`] and [`Fragment::validate`].
    pub fn load(flags: Fragment, path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.map(Fragment::read).transpose()?.unwrap_or_default();
        flags.over(file).validate()
    }
}

fn days(said: Option<u32>, default: u32) -> Option<Duration> {
    let days = said.unwrap_or(default);
    (days > 0).then(|| DAY * days)
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_enough() {
        let config = Config::load(Fragment::default(), None).unwrap();
        assert_eq!(config.data, Path::new("data"));
        assert_eq!(config.https, everywhere(8443));
        assert_eq!(config.mqtt, everywhere(8883));
    }

    #[test]
    fn what_is_kept_for_ever_is_zero_days() {
        let said =
            Fragment { keep_logs_days: Some(0), keep_audit_days: Some(1), ..Fragment::default() };
        let retention = said.validate().unwrap().retention;
        assert_eq!((retention.logs, retention.audit), (None, Some(DAY)));
        assert_eq!(retention.milestones, Some(DAY * KEEP_MILESTONES));
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coordinator.toml");
        std::fs::write(&path, "data = '/srv/a'\nquota = 5\nnames = ['a.example']\n").unwrap();
        let flags = Fragment { data: Some("/srv/b".into()), ..Fragment::default() };
        let config = Config::load(flags, Some(&path)).unwrap();
        assert_eq!(config.data, Path::new("/srv/b"));
        assert_eq!(config.artifacts.quota, 5);
        assert_eq!(config.names, ["a.example"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coordinator.toml");
        std::fs::write(&path, "qouta = 5\n").unwrap();
        assert!(matches!(Fragment::read(&path), Err(ConfigError::Parse { .. })));
        let lonely = Fragment { key: Some("key.pem".into()), ..Fragment::default() };
        let refused = lonely.validate();
        assert!(matches!(refused, Err(ConfigError::Invalid { setting: "certificate", .. })));
        let short = Fragment { token_lifetime_s: Some(1), ..Fragment::default() };
        assert!(matches!(
            short.validate(),
            Err(ConfigError::Invalid { setting: "token_lifetime_s", .. })
        ));
    }
}
