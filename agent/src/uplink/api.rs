//! The coordinator's endpoints for agents: one function each, with limits on what comes back.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::ack::Acks;
use shared::desired::Desired;
use shared::event::{Events, Tick};
use shared::grant::{Grant, Refusal, StartRequest};
use shared::identity::{self, Enrol, Enrolled, Nonce, TokenRequest, Tokens};
use shared::ids::OperationId;
use shared::inventory::Inventory;
use shared::limits;

use super::StartAnswer;
use crate::tls::Tls;

/// Answers without a limit of their own.
const MAX_ANSWER: usize = 16 * 1024;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the coordinator cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the coordinator answered {status} {code}: {detail}")]
    Refused { status: u16, code: String, detail: String, retry_after: Option<Duration> },
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the answer cannot be understood")]
    Malformed(#[source] serde_json::Error),
}

impl ApiError {
    /// Whether the bearer token was refused.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    /// The pause the coordinator asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::TooLarge(_) | Self::Malformed(_) => None,
        }
    }

    /// Whether somebody on the way finds fault with what was sent.
    #[must_use]
    pub fn blames_content(&self) -> bool {
        matches!(self, Self::Refused { status: 400 | 413 | 422, .. })
    }

    /// Whether sending the same again can never help: the coordinator itself says so, by a code
    /// in its own form. A proxy's page has none.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let by_coordinator = matches!(self, Self::Refused { code, .. } if !code.is_empty());
        self.blames_content() && by_coordinator
    }
}

/// The answer to `GET desired`.
#[derive(Debug)]
pub enum DesiredAnswer {
    Changed { desired: Box<Desired>, etag: Option<String> },
    Unchanged,
}

/// One HTTPS client for all of it.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    base: Url,
}

impl Api {
    /// # Errors
    /// The client cannot be made of this TLS configuration.
    pub fn new(base: Url, tls: &Tls, timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls.config())
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("modem-upgrader-agent/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout)
            .pool_max_idle_per_host(1)
            .build()?;
        Ok(Self { client, base })
    }

    pub async fn nonce(&self) -> Result<Nonce, ApiError> {
        let request = self.request(Method::POST, "nonce", None);
        parse(send(with_json(request, &serde_json::json!({}))?).await?, MAX_ANSWER).await
    }

    pub async fn enrol(&self, enrol: &Enrol) -> Result<Enrolled, ApiError> {
        let request = self.request(Method::POST, "enrol", None);
        parse(send(with_json(request, enrol)?).await?, MAX_ANSWER).await
    }

    pub async fn token(&self, proof: &TokenRequest) -> Result<Tokens, ApiError> {
        let request = self.request(Method::POST, "token", None);
        parse(send(with_json(request, proof)?).await?, MAX_ANSWER).await
    }

    /// What is wanted, and the pause the coordinator wants before the next question.
    pub async fn desired(
        &self,
        token: &str,
        etag: Option<&str>,
    ) -> Result<(DesiredAnswer, Option<Duration>), ApiError> {
        let mut request = self.request(Method::GET, "desired", Some(token));
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = send(request).await?;
        let pause = retry_after(&response);
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok((DesiredAnswer::Unchanged, pause));
        }
        let etag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(Into::into);
        let desired = Box::new(parse(response, limits::DESIRED).await?);
        Ok((DesiredAnswer::Changed { desired, etag }, pause))
    }

    /// Asks for leave to pass the point of no return.
    pub async fn start(
        &self,
        token: &str,
        operation: OperationId,
        ask: &StartRequest,
    ) -> Result<StartAnswer, ApiError> {
        let path = format!("operations/{operation}/start");
        let request = with_json(self.request(Method::POST, &path, Some(token)), ask)?;
        let response = request.send().await.map_err(ApiError::Unreachable)?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(StartAnswer::Refused(parse::<Refusal>(response, MAX_ANSWER).await?));
        }
        let grant: Grant = parse(checked(response).await?, MAX_ANSWER).await?;
        if (grant.attempt, grant.stream) == (ask.attempt, ask.stream) {
            Ok(StartAnswer::Granted(grant))
        } else {
            Ok(StartAnswer::NoAnswer("the grant is for another attempt".to_owned()))
        }
    }

    pub async fn events(&self, token: &str, events: &Events) -> Result<Acks, ApiError> {
        let request = self.request(Method::POST, "events", Some(token));
        parse(send(with_json(request, events)?).await?, limits::EVENTS).await
    }

    pub async fn tick(&self, token: &str, tick: &Tick) -> Result<(), ApiError> {
        let request = self.request(Method::POST, "ticks", Some(token));
        send(with_json(request, tick)?).await.map(|_| ())
    }

    pub async fn put_inventory(&self, token: &str, inventory: &Inventory) -> Result<(), ApiError> {
        let request = self.request(Method::PUT, "inventory", Some(token));
        send(with_json(request, inventory)?).await.map(|_| ())
    }

    fn request(&self, method: Method, path: &str, token: Option<&str>) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("/api/v1/agent/{path}"));
        let request = self.client.request(method, url);
        match token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }
}

fn with_json<T: Serialize>(request: RequestBuilder, body: &T) -> Result<RequestBuilder, ApiError> {
    let body = serde_json::to_vec(body).map_err(ApiError::Malformed)?;
    Ok(request.header(CONTENT_TYPE, "application/json").body(body))
}

async fn send(request: RequestBuilder) -> Result<Response, ApiError> {
    checked(request.send().await.map_err(ApiError::Unreachable)?).await
}

/// Turns a status that is neither success nor 304 into an error.
async fn checked(response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let retry_after = retry_after(&response);
    let body = parse::<identity::ApiError>(response, MAX_ANSWER).await;
    let (code, detail) =
        body.map_or_else(|_| (String::new(), String::new()), |error| (error.code, error.detail));
    Err(ApiError::Refused {
        status: status.as_u16(),
        code: limits::cut(code),
        detail: limits::cut(detail),
        retry_after,
    })
}

async fn parse<T: DeserializeOwned>(response: Response, limit: usize) -> Result<T, ApiError> {
    let bytes = read(response, limit).await?;
    serde_json::from_slice(&bytes).map_err(ApiError::Malformed)
}

async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ApiError::Unreachable)? {
        if bytes.len() + chunk.len() > limit {
            return Err(ApiError::TooLarge(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Seconds only; at most a day, so that a wrong number cannot silence a device for good.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(86_400)))
}
