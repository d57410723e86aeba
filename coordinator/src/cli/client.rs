//! Requests to the operator's API, and what its refusals mean for whoever typed the command.

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;

use crate::api::BASE;

/// An answer is a page of a list at most.
const LARGEST_ANSWER: usize = 16 << 20;

#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    pub fn new(http: reqwest::Client, url: &str, token: &str) -> Self {
        Self { http, url: url.to_owned(), token: token.to_owned() }
    }

    /// A request for a path below the API's base.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{BASE}/{path}", self.url);
        self.http.request(method, url).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}{BASE}/{path}", self.url))
            .with_context(|| format!("{} is not an address", self.url))?;
        url.query_pairs_mut().extend_pairs(query);
        self.answer(self.http.get(url).bearer_auth(&self.token)).await
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answer(self.request(method, path).json(body)).await
    }

    /// Every row of a list.
    pub async fn all(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Vec<Value>> {
        let mut rows = Vec::new();
        for page in 1_u32.. {
            let mut query = query.to_vec();
            query.extend([("page", page.to_string()), ("page_size", "100".to_owned())]);
            let mut listing = self.get(path, &query).await?;
            if let Value::Array(results) = listing["results"].take() {
                rows.extend(results);
            }
            if listing["next"].is_null() {
                break;
            }
        }
        Ok(rows)
    }

    /// Sends a request and reads its JSON.
    pub async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.response(request).await?;
        let text = read(response).await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).context("the server's answer is not JSON")
    }

    /// Sends a request; an answer that is no success becomes an error that says what to do.
    pub async fn response(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        let told = told(&read(response).await.unwrap_or_default());
        match status {
            StatusCode::UNAUTHORIZED => {
                bail!("the server does not take the API token ({told}): check MODEM_UPGRADER_TOKEN")
            }
            StatusCode::FORBIDDEN => bail!("not allowed: {told}"),
            StatusCode::NOT_FOUND => {
                bail!("not found: check the id, and that its organization is one of yours")
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = retry_after.as_ref().and_then(|value| value.to_str().ok());
                bail!("too many requests: try again in {} seconds", seconds.unwrap_or("60"))
            }
            _ => bail!("the server refused ({status}): {told}"),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let cause = anyhow::Error::new(error.without_url());
        let certificate = format!("{cause:#}").contains("certificate");
        let advice = if certificate {
            "check --pin (`serve` prints it) or --ca"
        } else {
            "check --url and that the server runs"
        };
        cause.context(format!("cannot talk to {}: {advice}", self.url))
    }
}

async fn read(mut response: Response) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_ANSWER {
            bail!("the answer is larger than {LARGEST_ANSWER} bytes");
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The messages of an error's body, on one line.
fn told(body: &str) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(fields)) => {
            let messages = fields.iter().map(|(field, message)| {
                let message = match message {
                    Value::String(text) => text.clone(),
                    Value::Array(all) => {
                        all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
                    }
                    other => other.to_string(),
                };
                match field.as_str() {
                    "detail" | "error" => message,
                    field => format!("{field}: {message}"),
                }
            });
            messages.collect::<Vec<_>>().join("; ")
        }
        _ => body.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_on_one_line() {
        assert_eq!(told(r#"{"detail":"Not found."}"#), "Not found.");
        assert_eq!(told(r#"{"a":["x","y"],"b":["z"]}"#), "a: x y; b: z");
        assert_eq!(told("<html>"), "<html>");
    }
}
