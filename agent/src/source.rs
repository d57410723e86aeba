//! Manifest, signature and image from the coordinator over HTTPS.
//!
//! ```text
//! GET images/{id}/file, Range ──▶ chunks ──▶ Assembly: one block, hashed as it fills
//!                                              │ digest as in the manifest
//!                                              ▼
//!                                 Download: written and fsynced while the next block fills
//! ```
//! One ranged request covers all blocks that follow each other and are missing. An interruption
//! costs the block it hit; what is staged is hashed once when a [`Download`] opens and never asked
//! for again. Nothing is retried here: errors say whether trying again may help.

mod answer;
mod download;
mod error;
mod pace;

pub use download::{Download, Transfer};
pub use error::SourceError;

use answer::Span;
use futures_util::future::BoxFuture;
use pace::Pace;
use reqwest::{Client, Method, Response, StatusCode, Url, header};
use rustls::ClientConfig;
use shared::ids::ImageId;
use shared::limits;
use std::time::Duration;
use tokio::time::timeout;

/// The longest silence within a body.
const STALL: Duration = Duration::from_secs(60);
/// Until the head of an answer is there.
const ANSWER: Duration = Duration::from_secs(60);
/// Redirects followed one after another.
const REDIRECTS: usize = 3;

/// Gives the current API token; `None` when there is none to be had now.
pub type TokenProvider = Box<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// The coordinator's images.
pub struct Source {
    client: Client,
    base: Url,
    token: TokenProvider,
    bandwidth_kbit_s: Option<u64>,
}

/// A client for [`Source`]: HTTPS alone, no redirects by itself, no limit on a whole transfer.
///
/// # Errors
/// The TLS configuration is not usable.
pub fn client(tls: ClientConfig) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("modem-upgrader-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(1)
        .build()
}

impl Source {
    /// `base`: `https://host[:port]/`. The client must not follow redirects, as [`client`]'s does
    /// not.
    #[must_use]
    pub fn new(client: Client, base: Url, token: TokenProvider) -> Self {
        Self { client, base, token, bandwidth_kbit_s: None }
    }

    /// Images come with at most this many kilobits a second on average.
    #[must_use]
    pub fn at_most(self, bandwidth_kbit_s: Option<u64>) -> Self {
        Self { bandwidth_kbit_s, ..self }
    }

    /// The exact bytes of an image's manifest.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn manifest(&self, image: &ImageId) -> Result<Vec<u8>, SourceError> {
        self.small(image, "manifest", limits::MANIFEST).await
    }

    /// The signature in signify form; `None` when the image has none.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn signature(&self, image: &ImageId) -> Result<Option<String>, SourceError> {
        match self.small(image, "signature", limits::SIGNATURE).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(SourceError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches what `download` still misses. After an error that is worth another try, call it
    /// again with the same `download`; dropping the future loses at most the block under way.
    ///
    /// # Errors
    /// See [`SourceError`]; what was verified until then is staged.
    pub async fn fetch(
        &self,
        image: &ImageId,
        download: &mut Download,
        mut progress: impl FnMut(Transfer),
    ) -> Result<(), SourceError> {
        download.settle().await?;
        while let Some(span) = download.next_span() {
            let response = self.open(image, span).await?;
            let received = self.receive(response, span, download, &mut progress).await;
            // Whatever happened, the last whole block is worth keeping.
            let settled = download.settle().await;
            progress(download.transfer());
            received?;
            settled?;
        }
        Ok(())
    }

    async fn receive(
        &self,
        mut response: Response,
        span: Span,
        download: &mut Download,
        progress: &mut impl FnMut(Transfer),
    ) -> Result<(), SourceError> {
        let mut assembly = download.assemble(span);
        let mut left = span.length();
        let mut pace = self.bandwidth_kbit_s.map(Pace::new);
        loop {
            let chunk =
                timeout(STALL, response.chunk()).await.map_err(|_| SourceError::Stalled)??;
            let Some(chunk) = chunk else { break };
            left = left.checked_sub(chunk.len() as u64).ok_or(SourceError::TooLong)?;
            download.count(chunk.len() as u64);
            if let Some(pace) = &mut pace {
                pace.keep(chunk.len() as u64).await;
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                if let Some(block) = assembly.fill(&mut rest)? {
                    let spare = download.keep(block).await?;
                    assembly.reuse(spare);
                    progress(download.transfer());
                }
            }
        }
        if left == 0 { Ok(()) } else { Err(SourceError::TooShort { missing: left }) }
    }

    /// The answer to a range of the image, its head checked against what was asked.
    async fn open(&self, image: &ImageId, span: Span) -> Result<Response, SourceError> {
        let mut url = self.url(image, "file")?;
        let mut token = Some(self.token().await?);
        for _ in 0..=REDIRECTS {
            let mut request = self.client.request(Method::GET, url.clone());
            request = request.header(header::RANGE, span.header());
            // The token is the coordinator's alone: what it redirects to does not get it.
            if let Some(token) = token.take() {
                request = request.bearer_auth(token);
            }
            let response =
                timeout(ANSWER, request.send()).await.map_err(|_| SourceError::Stalled)??;
            if !response.status().is_redirection() {
                answer::check(response.status(), response.headers(), span)?;
                return Ok(response);
            }
            url = answer::redirect(&url, response.headers())?;
        }
        Err(SourceError::Redirect("too many"))
    }

    async fn small(
        &self,
        image: &ImageId,
        what: &'static str,
        limit: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let request = self.client.get(self.url(image, what)?).bearer_auth(self.token().await?);
        let mut response =
            timeout(ANSWER, request.send()).await.map_err(|_| SourceError::Stalled)??;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                return Err(SourceError::Redirect("not of an image"));
            }
            status => return Err(SourceError::status(status, response.headers())),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) =
            timeout(STALL, response.chunk()).await.map_err(|_| SourceError::Stalled)??
        {
            if bytes.len() + chunk.len() > limit {
                return Err(SourceError::TooLarge { what, limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn token(&self) -> Result<String, SourceError> {
        (self.token)().await.ok_or(SourceError::NoToken)
    }

    fn url(&self, image: &ImageId, what: &str) -> Result<Url, SourceError> {
        self.base
            .join(&format!("/api/v1/agent/images/{image}/{what}"))
            .map_err(|_| SourceError::Redirect("the coordinator's URL takes no path"))
    }
}

#[cfg(test)]
mod tests;
