//! A fleet without routers: as many devices as wanted in one process on one core, each with a key, tokens
//! and a line of its own, that say what agents say. No modem, no tool: what is tried is the coordinator.
//!
//! A device comes from an address of its own in 127.0.0.0/8, and resumes no TLS session: a fleet behind
//! one peer, and one whose tickets are still good, would be easier on the coordinator.

pub mod device;
mod https;

use crate::{
    bench::fleet::Applicant,
    coordinator::{self, Coordinator},
    firmware::{Model, Versions},
    random::Random,
    release::{FROM, TO},
};
use anyhow::Context;
use device::{Device, Site};
use futures_util::{
    StreamExt, TryStreamExt,
    future::{join_all, try_join_all},
    stream,
};
use rustls::client::Resumption;
use shared::event::VersionLine;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Enrolments under way at once.
const AT_ONCE: usize = 32;
/// Pauses of an agent that finds no coordinator: up to so long at first, and at most.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(600);
/// Attempts after which something is wrong.
const ATTEMPTS: u32 = 5;
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(30);

/// The firmware of a fleet: the only image of a build.
#[derive(Debug, Clone)]
pub struct Firmware {
    pub build: String,
    pub image: String,
    /// Key number that routers trust.
    pub key: String,
}

impl Firmware {
    /// What was uploaded to the coordinator.
    ///
    /// # Errors
    /// Nothing was, or it is not signed.
    pub async fn uploaded(coordinator: &Coordinator) -> anyhow::Result<Self> {
        let api = coordinator.api()?;
        let builds = api.get("build/").await?;
        let build = builds["results"][0]["id"].as_str().context("no build")?;
        let images = api.get(&format!("build/{build}/image/")).await?;
        let image = &images["results"][0];
        let text = |name: &str| image[name].as_str().map(str::to_owned).context("no such field");
        Ok(Self { build: build.into(), image: text("id")?, key: text("signed_by")? })
    }

    /// What a modem shows that has it.
    #[must_use]
    pub fn reaches() -> Vec<VersionLine> {
        let versions = Versions::of_package(TO);
        let line = |command: &str, value| VersionLine { command: command.into(), line: 1, value };
        vec![line(device::COMMAND, versions.package), line("+CGMR", versions.modem)]
    }
}

/// All devices.
pub struct Fleet {
    pub devices: Vec<Device>,
}

/// What a fleet saw that came back all at once.
#[derive(Debug, Clone, Default)]
pub struct Storm {
    /// Seconds from the beginning until each device had its line, and until it had asked what is
    /// desired, in the order of the devices.
    pub connected: Vec<f64>,
    pub asked: Vec<f64>,
    /// Connections that were refused or cut.
    pub refused: u32,
}

impl Fleet {
    /// Enrols devices, each with a key and an inventory of its own; their modems can be upgraded.
    ///
    /// # Errors
    /// The coordinator refuses one.
    pub async fn enrol(
        coordinator: &Coordinator,
        firmware: &Firmware,
        count: u32,
    ) -> anyhow::Result<Self> {
        let client = coordinator::client(&coordinator.bootstrap.pin)?;
        let applicant = Applicant { coordinator, client };
        let mut config = coordinator::tls(&coordinator.bootstrap.pin)?.config();
        config.resumption = Resumption::disabled();
        let (https, mqtt) = (coordinator.https, coordinator.mqtt);
        let site = Site { https, mqtt, tls: Arc::new(config) };
        let devices = stream::iter(0..count).map(|number| {
            let (site, applicant) = (site.clone(), &applicant);
            async move {
                let device = Device::new(site, number, applicant.apply().await?);
                device.tell_inventory(&firmware.key, Model::Fn990a28.name(), FROM).await?;
                anyhow::Ok(device)
            }
        });
        Ok(Self { devices: devices.buffered(AT_ONCE).try_collect().await? })
    }

    /// Every device does the same, all at once.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn each<T>(
        &mut self,
        act: impl AsyncFn(&mut Device) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let act = &act;
        try_join_all(self.devices.iter_mut().map(|device| act(device))).await
    }

    /// The same, so many at a time.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn some<T>(
        &mut self,
        at_once: usize,
        act: impl AsyncFn(&mut Device) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let act = &act;
        let acting = stream::iter(self.devices.iter_mut()).map(|device| act(device));
        acting.buffered(at_once).try_collect().await
    }

    /// All devices have lost their lines and come back at once, as agents do: after a pause by chance,
    /// longer with every failure; each asks what is desired once its line stands.
    pub async fn storm(&mut self, seed: u64) -> Storm {
        let started = Instant::now();
        let returns = self.devices.iter_mut().zip(seed..).map(|(device, seed)| async move {
            device.disconnect();
            let mut patience = Patience { random: Random::new(seed), failures: 0 };
            let mut refused = 0;
            patience.pause().await;
            while !in_time(device.connect()).await {
                refused += 1;
                patience.pause().await;
            }
            let connected = started.elapsed().as_secs_f64();
            patience.failures = 0;
            while !in_time(device.fetch()).await {
                refused += 1;
                patience.pause().await;
            }
            (connected, started.elapsed().as_secs_f64(), refused)
        });
        let mut storm = Storm::default();
        for (connected, asked, refused) in join_all(returns).await {
            storm.connected.push(connected);
            storm.asked.push(asked);
            storm.refused += refused;
        }
        storm
    }
}

/// Exponential back-off with full jitter, as agents have it.
struct Patience {
    random: Random,
    failures: u32,
}

impl Patience {
    async fn pause(&mut self) {
        let most = RETRY.saturating_mul(1 << self.failures.min(16)).min(RETRY_MOST);
        let share = u32::try_from(self.random.below(1000)).map_or(1.0, f64::from) / 1000.0;
        self.failures += 1;
        tokio::time::sleep(most.mul_f64(share)).await;
    }
}

/// Asks until there is an answer: a connection that is refused or cut is tried again, as agents do; with
/// the number of those.
///
/// # Errors
/// The last one, when there were too many.
pub async fn insist<T>(
    device: &mut Device,
    ask: impl AsyncFn(&mut Device) -> anyhow::Result<T>,
) -> anyhow::Result<(T, u32)> {
    let mut patience = Patience { random: Random::new(1), failures: 0 };
    loop {
        match ask(device).await {
            Ok(answer) => return Ok((answer, patience.failures)),
            Err(error) if patience.failures >= ATTEMPTS => return Err(error),
            Err(_) => patience.pause().await,
        }
    }
}

async fn in_time<T>(attempt: impl Future<Output = anyhow::Result<T>>) -> bool {
    matches!(tokio::time::timeout(ATTEMPT, attempt).await, Ok(Ok(_)))
}
