//! A device's side of the coordinator's API by hand, with the identity of a router: for requests
//! that no agent would make, or not at that time.

use crate::{
    coordinator::{Coordinator, client},
    router::Router,
};
use agent::identity::{Board, Identity};
use anyhow::ensure;
use serde_json::{Value, json};
use shared::identity::{Nonce, Tokens};

/// A session with a token of its own, beside the agent's.
#[derive(Debug)]
pub struct SignedIn {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl SignedIn {
    /// Signs in with the key of the router's agent, which must have enrolled.
    ///
    /// # Errors
    /// The coordinator refuses.
    pub async fn as_router(router: &Router, coordinator: &Coordinator) -> anyhow::Result<Self> {
        let board = Board::read(&router.dir.join("sys"));
        let identity = Identity::open(&router.dir.join("state"), &board)?;
        let mut session = Self {
            client: client(&coordinator.bootstrap.pin)?,
            base: format!("{}/api/v1/agent/", coordinator.url()),
            token: String::new(),
        };
        let nonce: Nonce = session.take("nonce", &json!({})).await?;
        let proof = serde_json::to_value(identity.token_request(&nonce))?;
        let tokens: Tokens = session.take("token", &proof).await?;
        session.token = tokens.api.token;
        Ok(session)
    }

    async fn take<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let (status, answer) = self.post(path, body).await?;
        ensure!(status == 200, "POST {path}: {status} {answer}");
        Ok(serde_json::from_value(answer)?)
    }

    /// Sends a request and gives status and JSON (null if there is none).
    ///
    /// # Errors
    /// No answer came.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        let request =
            if self.token.is_empty() { request } else { request.bearer_auth(&self.token) };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_slice(&answer.bytes().await?).unwrap_or(Value::Null)))
    }
}
