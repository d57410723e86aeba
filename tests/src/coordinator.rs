//! The real coordinator as a process, and its API as an operator uses it.

use crate::router::Uplink;
use agent::{clock::Clock, settings::Trust, tls::Tls};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// What a first start prints once.
#[derive(Debug, Clone, Default)]
pub struct Bootstrap {
    pub organization: String,
    pub api_token: String,
    pub enrolment_token: String,
    /// `sha256//…`
    pub pin: String,
}

/// A running coordinator; killed with this value.
#[derive(Debug)]
pub struct Coordinator {
    exe: PathBuf,
    pub data: PathBuf,
    child: Child,
    pub https: SocketAddr,
    pub mqtt: SocketAddr,
    pub bootstrap: Bootstrap,
    environment: Vec<(String, String)>,
}

impl Coordinator {
    /// Starts it for the first time, on free ports of 127.0.0.1. `exe` is the `lab` binary.
    ///
    /// # Errors
    /// It does not start, or does not say what it should.
    pub fn start(exe: &Path, data: &Path) -> anyhow::Result<Self> {
        Self::start_with(exe, data, &[])
    }

    /// The same with settings in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        exe: &Path,
        data: &Path,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(owned).collect();
        let (child, ready) = spawn(exe, data, any, any, &environment)?;
        Ok(Self {
            exe: exe.to_owned(),
            data: data.to_owned(),
            child,
            https: ready.https,
            mqtt: ready.mqtt,
            bootstrap: ready.bootstrap,
            environment,
        })
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same data and ports.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let (child, _) = spawn(&self.exe, &self.data, self.https, self.mqtt, &self.environment)?;
        self.child = child;
        Ok(())
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.https)
    }

    /// What a router has to know of it.
    #[must_use]
    pub fn uplink(&self) -> Uplink {
        Uplink {
            https: self.https.port(),
            mqtt: self.mqtt.port(),
            pin: self.bootstrap.pin.clone(),
            enrolment_token: self.bootstrap.enrolment_token.clone(),
        }
    }

    /// The API with the superuser's token.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn api(&self) -> anyhow::Result<Api> {
        Api::new(&self.url(), &self.bootstrap.pin, &self.bootstrap.api_token)
    }

    /// Runs the operator's command line against it and returns what it printed.
    ///
    /// # Errors
    /// It ends with anything but success.
    pub fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("modem-upgrader {}: {said}", arguments.join(" "));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str]) -> std::io::Result<std::process::Output> {
        self.command(arguments).output()
    }

    /// Runs it where its output is seen; whether it ends with success.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn show(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        Ok(self.command(arguments).status()?.success())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .arg0("modem-upgrader")
            .args(arguments)
            .stdin(Stdio::null())
            .env("MODEM_UPGRADER_URL", self.url())
            .env("MODEM_UPGRADER_TOKEN", &self.bootstrap.api_token)
            .env("MODEM_UPGRADER_PIN", &self.bootstrap.pin);
        command
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Ready {
    https: SocketAddr,
    mqtt: SocketAddr,
    bootstrap: Bootstrap,
}

fn spawn(
    exe: &Path,
    data: &Path,
    https: SocketAddr,
    mqtt: SocketAddr,
    environment: &[(String, String)],
) -> anyhow::Result<(Child, Ready)> {
    let log =
        std::fs::File::options().create(true).append(true).open(data.join("coordinator.log"))?;
    let mut child = Command::new(exe)
        .arg0("modem-upgrader")
        .arg("serve")
        .args(["--data".as_ref(), data.as_os_str()])
        .args(["--https", &https.to_string(), "--mqtt", &mqtt.to_string()])
        .env("NO_COLOR", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("the coordinator does not start")?;
    let stdout = child.stdout.take().context("no standard output")?;
    match read_ready(BufReader::new(stdout)) {
        Ok(ready) => Ok((child, ready)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(data.join("coordinator.log")).unwrap_or_default();
            Err(error.context(log))
        }
    }
}

fn read_ready(mut lines: impl BufRead + Send + 'static) -> anyhow::Result<Ready> {
    let mut bootstrap = Bootstrap::default();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            bail!("the coordinator ended before it was ready");
        }
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("ready ") {
            let address = |name: &str| {
                let field = rest.split(' ').find_map(|f| f.strip_prefix(name));
                field.context("an address is missing")?.parse().context("not an address")
            };
            let ready = Ready { https: address("https=")?, mqtt: address("mqtt=")?, bootstrap };
            // Whatever it prints later must not meet a closed pipe.
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return Ok(ready);
        }
        match line.split_once(": ") {
            Some(("organization", value)) => bootstrap.organization = value.into(),
            Some(("api_token", value)) => bootstrap.api_token = value.into(),
            Some(("enrolment_token", value)) => bootstrap.enrolment_token = value.into(),
            Some(("pin", value)) => bootstrap.pin = value.into(),
            _ => {}
        }
    }
}

/// The operator's HTTP API.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// # Errors
    /// The pin is none, or the client cannot be made.
    pub fn new(url: &str, pin: &str, token: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client(pin)?,
            base: format!("{url}/api/v1/modem-upgrader/"),
            token: token.to_owned(),
        })
    }

    /// Sends a request and gives status and JSON (null if there is none).
    ///
    /// # Errors
    /// No answer came.
    pub async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .timeout(Duration::from_secs(30));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// # Errors
    /// Anything but 200.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        match self.call(reqwest::Method::GET, path, None).await? {
            (200, value) => Ok(value),
            (status, value) => bail!("GET {path}: {status} {value}"),
        }
    }

    /// # Errors
    /// Anything but a 2xx.
    pub async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        match self.call(method.clone(), path, Some(body)).await? {
            (200..=299, value) => Ok(value),
            (status, value) => bail!("{method} {path}: {status} {value}"),
        }
    }
}

/// An HTTPS client that trusts the server with this pin.
///
/// # Errors
/// The pin is none.
pub fn client(pin: &str) -> anyhow::Result<reqwest::Client> {
    let tls = tls(pin)?;
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls.config()).build()?)
}

/// TLS that trusts the server with this pin.
///
/// # Errors
/// The pin is none.
pub fn tls(pin: &str) -> anyhow::Result<Tls> {
    let pin = agent::settings::parse_pin(pin).map_err(anyhow::Error::msg)?;
    let trust = Trust { pins: vec![pin], ca_file: None };
    let clock = Arc::new(Clock::new(PathBuf::from("/nonexistent")));
    Ok(Tls::new(&trust, clock)?)
}
