//! Devices without a router: each has an own key, enrolled as an agent enrols it, real tokens, and
//! an operation.

use crate::coordinator::{self, Coordinator};
use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use shared::{
    hex::Hex,
    identity::{
        DeviceState, Enrol, Enrolled, Nonce, TokenRequest, Tokens, enrol_message, token_message,
    },
    ids::{OperationId, StreamId},
};

/// Enrolments under way at once.
const AT_ONCE: usize = 32;

/// An enrolled device with an operation that waits for it.
#[derive(Debug, Clone)]
pub struct Member {
    pub tokens: Tokens,
    pub operation: OperationId,
    /// The stream of its milestones and ticks.
    pub stream: StreamId,
    /// The last milestone's number.
    pub seq: u64,
    /// The last tick's.
    pub n: u64,
}

/// Enrols `count` devices and asks for an upgrade of each.
///
/// # Errors
/// The coordinator refuses one.
pub async fn enrol(
    coordinator: &Coordinator,
    image: &str,
    count: usize,
) -> anyhow::Result<Vec<Member>> {
    let api = coordinator.api()?;
    let client = coordinator::client(&coordinator.bootstrap.pin)?;
    let applicant = Applicant { coordinator, client };
    let members = stream::iter(0..count).map(|_| async {
        let tokens = applicant.apply().await?;
        let path = format!("device/{}/modem-firmware/", tokens.device);
        let answer = api.send(Method::PUT, &path, &json!({ "image": image })).await?;
        let operation = answer["upgrade_operation"]["id"].as_str().context("no operation")?;
        let operation = operation.parse()?;
        let stream = StreamId(uuid::Uuid::new_v4());
        anyhow::Ok(Member { tokens, operation, stream, seq: 0, n: 0 })
    });
    members.buffer_unordered(AT_ONCE).try_collect().await
}

/// Enrols devices with keys of their own.
pub struct Applicant<'a> {
    pub coordinator: &'a Coordinator,
    pub client: Client,
}

impl Applicant<'_> {
    /// As `agent` does it: a proof over a nonce to enrol, another one for the tokens.
    ///
    /// # Errors
    /// The coordinator refuses.
    pub async fn apply(&self) -> anyhow::Result<Tokens> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| anyhow::anyhow!("no randomness"))?;
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| rejected())?;
        let public_key = Hex(key.public_key().as_ref().try_into()?);
        let sign = |message: &[u8]| anyhow::Ok(Hex(key.sign(message).as_ref().try_into()?));

        let token = self.coordinator.bootstrap.enrolment_token.clone();
        let claims = "{}".to_owned();
        let Nonce { nonce, audience, .. } = self.post("nonce", &json!({})).await?;
        let message = enrol_message(&audience, &nonce, &public_key, &token, &claims);
        let signature = sign(&message)?;
        let enrol = Enrol { nonce, public_key, token, claims, signature };
        let enrolled: Enrolled = self.post("enrol", &enrol).await?;
        ensure!(enrolled.state == DeviceState::Accepted, "not accepted: {:?}", enrolled.state);

        let Nonce { nonce, audience, .. } = self.post("nonce", &json!({})).await?;
        let signature = sign(&token_message(&audience, &nonce, &public_key))?;
        self.post("token", &TokenRequest { nonce, public_key, signature }).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let url = format!("{}/api/v1/agent/{path}", self.coordinator.url());
        let answer = self.client.post(url).json(body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

fn rejected() -> anyhow::Error {
    anyhow::anyhow!("not a key")
}
