//! A device of a fleet: what a router's agent says to the coordinator, without the router. It holds its
//! tokens, its line and its place in an upgrade, and nothing else.

use super::https::{Answer, Https};
use crate::bench::line::Line;
use anyhow::{Context, bail, ensure};
use rustls::ClientConfig;
use shared::{
    ack::Verdict,
    desired::Desired,
    event::{Event, EventBody, Events, Outcome, Presence, Tick, VERSION, VersionLine},
    grant::{Refusal, StartRequest},
    identity::Tokens,
    ids::{OperationId, SessionId, Slot, StreamId},
    inventory::{self, Inventory, Modem, Staging},
    stages::Phase,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use uuid::Uuid;

/// Where the coordinator is.
#[derive(Clone)]
pub struct Site {
    pub https: SocketAddr,
    pub mqtt: SocketAddr,
    pub tls: Arc<ClientConfig>,
}

/// See the module.
pub struct Device {
    site: Site,
    /// Its own of 127.0.0.0/8.
    address: Ipv4Addr,
    tokens: Tokens,
    line: Option<Line>,
    job: Option<Job>,
}

/// Its part in an operation.
struct Job {
    operation: OperationId,
    stream: StreamId,
    attempt: u32,
    /// The last milestone's number, and the last tick's.
    seq: u64,
    n: u64,
}

/// What its modem runs and should run.
pub const COMMAND: &str = "#SWPKGV";

impl Device {
    #[must_use]
    pub fn new(site: Site, number: u32, tokens: Tokens) -> Self {
        // 127.1.0.0 on: nobody else of the machine's is there.
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
        Self { site, address, tokens, line: None, job: None }
    }

    #[must_use]
    pub fn operation(&self) -> Option<OperationId> {
        self.job.as_ref().map(|job| job.operation)
    }

    /// Its line, over TLS with its token; subscribed, and present.
    ///
    /// # Errors
    /// The coordinator does not take it.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        self.line = None;
        let Site { mqtt, tls, .. } = &self.site;
        let mut line = Line::open_from(self.address, *mqtt, tls, &self.tokens).await?;
        let session = SessionId(Uuid::new_v4());
        line.present(&Presence { v: VERSION, session, online: true }).await?;
        self.line = Some(line);
        Ok(())
    }

    /// Without a word, as when the power is cut.
    pub fn disconnect(&mut self) {
        self.line = None;
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// Nobody takes it.
    pub async fn https(&self) -> anyhow::Result<Https> {
        Https::open(self.address, self.site.https, &self.site.tls).await
    }

    /// Tells of one modem that runs `version`.
    ///
    /// # Errors
    /// The coordinator does not take it.
    pub async fn tell_inventory(
        &self,
        key: &str,
        model: &str,
        version: &str,
    ) -> anyhow::Result<()> {
        let inventory = serde_json::to_vec(&self.inventory(key, model, version))?;
        let token = &self.tokens.api.token;
        let answer = self.https().await?.ask("PUT", "inventory", token, &inventory).await?;
        ensure!(answer.status == 204, "inventory: {}", said(&answer));
        Ok(())
    }

    /// Waits for a wake.
    ///
    /// # Errors
    /// The line ends.
    pub async fn wake(&mut self) -> anyhow::Result<()> {
        self.line()?.wake().await
    }

    /// Fetches what is desired, over a connection of its own, and takes the job on; says whether there is
    /// one.
    ///
    /// # Errors
    /// No answer that makes sense.
    pub async fn fetch(&mut self) -> anyhow::Result<bool> {
        let token = &self.tokens.api.token;
        let answer = self.https().await?.ask("GET", "desired", token, &[]).await?;
        ensure!(answer.status == 200, "desired: {}", said(&answer));
        let desired: Desired = serde_json::from_slice(&answer.body)?;
        let wanted = desired.jobs.first().map(|job| job.operation);
        if wanted != self.operation() {
            let stream = StreamId(Uuid::new_v4());
            self.job = wanted.map(|operation| Job { operation, stream, attempt: 0, seq: 0, n: 0 });
        }
        Ok(self.job.is_some())
    }

    /// Asks for leave to flash; the refusal where it is none.
    ///
    /// # Errors
    /// No answer that makes sense, or there is no job.
    pub async fn start(&mut self) -> anyhow::Result<Result<(), Refusal>> {
        let job = self.job.as_mut().context("no job")?;
        let attempt = job.attempt + 1;
        let ask = StartRequest {
            attempt,
            stream: job.stream,
            dark_expected_s: 60,
            dark_longest_s: 600,
            returned: 0,
        };
        let path = format!("operations/{}/start", job.operation);
        let token = self.tokens.api.token.clone();
        let body = serde_json::to_vec(&ask)?;
        let answer = self.https().await?.ask("POST", &path, &token, &body).await?;
        match answer.status {
            200 => self.job.iter_mut().for_each(|job| job.attempt = attempt),
            409 => return Ok(Err(serde_json::from_slice(&answer.body)?)),
            _ => bail!("start: {}", said(&answer)),
        }
        Ok(Ok(()))
    }

    /// Reports milestones in one message; returns once each is acknowledged.
    ///
    /// # Errors
    /// The line ends, or not all are accepted.
    pub async fn report(&mut self, bodies: Vec<EventBody>) -> anyhow::Result<()> {
        let job = self.job.as_mut().context("no job")?;
        let events: Vec<_> = bodies
            .into_iter()
            .map(|body| {
                job.seq += 1;
                let (operation, stream) = (job.operation, job.stream);
                let (slot, seq, attempt) = (Slot::default(), job.seq, job.attempt);
                Event { operation, slot, stream, seq, attempt, at: None, body }
            })
            .collect();
        let acks = self.line()?.report(&Events::new(events)).await?.acks;
        let refused = acks.iter().find(|ack| ack.verdict != Verdict::Accepted);
        ensure!(refused.is_none(), "not accepted: {refused:?}");
        Ok(())
    }

    /// Sends a tick and waits for nothing.
    ///
    /// # Errors
    /// The line has ended.
    pub async fn tick(&mut self, detail: String) -> anyhow::Result<()> {
        let job = self.job.as_mut().context("no job")?;
        job.n += 1;
        let tick = Tick {
            v: VERSION,
            operation: job.operation,
            slot: Slot::default(),
            stream: job.stream,
            attempt: job.attempt,
            n: job.n,
            phase: Phase::Installing,
            percent: 40,
            stalled: false,
            detail: Some(detail),
            fetched: Some(job.n << 20),
        };
        self.line()?.tick(&tick).await
    }

    /// Returns once everything sent before was read and handled.
    ///
    /// # Errors
    /// The line ends.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        self.line()?.settle().await
    }

    /// Says that the modem runs `version` now; the job is done.
    ///
    /// # Errors
    /// As [`Device::report`].
    pub async fn finish(&mut self, reads: Vec<VersionLine>) -> anyhow::Result<()> {
        let outcome = Outcome::Succeeded { versions: reads, not_compared: None, remark: None };
        self.report(vec![EventBody::Finished { outcome }]).await?;
        self.job = None;
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<&mut Line> {
        self.line.as_mut().context("no line")
    }

    fn inventory(&self, key: &str, model: &str, version: &str) -> Inventory {
        let device = self.tokens.device;
        let value = version.to_owned();
        let modem = Modem {
            slot: Slot::default(),
            manufacturer: "Telit".into(),
            model: model.into(),
            imei: format!("{:015}", u32::from(self.address)),
            versions: vec![VersionLine { command: COMMAND.into(), line: 1, value }],
            usb: None,
            sole_uplink: true,
            network: None,
            unreadable: None,
        };
        let path = "/mnt/staging".into();
        Inventory {
            v: inventory::VERSION,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            capabilities: shared::desired::CAPABILITIES.iter().map(|&one| one.into()).collect(),
            board: "glinet,gl-x3000".into(),
            hostname: format!("router-{}", self.address),
            boot_id: device.to_string(),
            require_signature: true,
            keys: vec![key.into()],
            profiles: vec!["telit-uxfp".into()],
            staging: vec![Staging { path, free_bytes: 1 << 30, durable: true, problem: None }],
            modems: vec![modem],
        }
    }
}

fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}
