//! Requests to the operator's API, and what its refusals mean for whoever typed the command.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::flags::{self, in_flags};
use super::output::{self, note};
use crate::api::BASE;

/// An answer is a page of a list at most.
const LARGEST_ANSWER: usize = 16 << 20;

/// A query's pairs.
pub type Query = Vec<(&'static str, String)>;

/// Seconds in which the server has carried out whatever a request starts.
const CARRIED_OUT_S: u32 = 60;

#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    url: String,
    /// None only while logging in.
    token: Option<String>,
}

/// Two clients of one server.
#[derive(Debug, Clone)]
pub struct Http {
    /// Gives up when nothing comes for a minute.
    pub hasty: reqwest::Client,
    /// Waits as long as the connection stands.
    pub patient: reqwest::Client,
}

impl Client {
    pub fn new(http: Http, url: &str, token: Option<String>) -> Self {
        Self { http, url: url.to_owned(), token }
    }

    /// The same server, asked with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// A request for a path below the API's base.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_by(&self.http.hasty, method, path)
    }

    /// Of a body that may take any time to arrive.
    pub fn upload(&self, path: &str) -> RequestBuilder {
        self.request_by(&self.http.patient, Method::POST, path)
    }

    fn request_by(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        let request = http.request(method, format!("{}{BASE}/{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.answer(self.request(Method::GET, &with_query(path, query))).await
    }

    /// Prints an answer as it comes, however long it is.
    pub async fn print(&self, path: &str) -> anyhow::Result<()> {
        let mut response = self.response(self.request(Method::GET, path)).await?;
        while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
            output::write(&chunk)?;
        }
        output::write(b"\n")
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answer(self.request(method, path).json(body)).await
    }

    /// As `send`, for what starts something: should the answer get lost on the way and this be sent
    /// again, the server starts it once.
    pub async fn start(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let key = Uuid::new_v4().to_string();
        let request =
            || self.request(Method::POST, path).header("Idempotency-Key", &key).json(body);
        let mut answer = self.answer(request()).await;
        if !answer.as_ref().is_err_and(|error| error.downcast_ref().is_some_and(is_broken)) {
            return answer;
        }
        // The server may be at it still: what it answers then is kept for this key.
        for _ in 0..CARRIED_OUT_S {
            answer = self.answer(request()).await;
            if !answer.as_ref().is_err_and(|error| error.downcast_ref().is_some_and(is_running)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        answer
    }

    /// Takes a thing away.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.answer(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// As `get`, for one of many: where the server wants that, it waits. A long list is more requests than a
    /// minute has.
    pub async fn page(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        loop {
            let answer = self.get(path, query).await;
            let Some(seconds) = answer.as_ref().err().and_then(throttled) else { return answer };
            note!("the server takes no more requests in this minute: going on in {seconds} s");
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    /// Every row of a list.
    pub async fn all(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Vec<Value>> {
        self.first(path, query, usize::MAX).await
    }

    /// The first rows of a list, as many as `most`.
    pub async fn first(
        &self,
        path: &str,
        query: &[(&str, String)],
        most: usize,
    ) -> anyhow::Result<Vec<Value>> {
        let size = most.clamp(1, 100);
        let mut rows = Vec::new();
        for page in 1_u32.. {
            let mut query = query.to_vec();
            query.extend([("page", page.to_string()), ("page_size", size.to_string())]);
            let mut listing = self.page(path, &query).await?;
            if let Value::Array(results) = listing["results"].take() {
                rows.extend(results);
            }
            if listing["next"].is_null() || rows.len() >= most {
                break;
            }
        }
        rows.truncate(most);
        Ok(rows)
    }

    /// Sends a request and reads its JSON; null where there is none.
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
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED if self.token.is_none() => {
                Failure::Password(told)
            }
            StatusCode::UNAUTHORIZED => Failure::Unauthorized(told),
            StatusCode::FORBIDDEN if told.starts_with("This token may only") => {
                Failure::NarrowToken(told)
            }
            StatusCode::FORBIDDEN if told.starts_with("You do not have permission") => {
                Failure::NoRole(told)
            }
            StatusCode::FORBIDDEN => Failure::Forbidden(told),
            StatusCode::CONFLICT => Failure::Conflict(told),
            StatusCode::INSUFFICIENT_STORAGE => Failure::Full(told),
            StatusCode::INTERNAL_SERVER_ERROR => Failure::Broken(told),
            StatusCode::NOT_FOUND => Failure::NotFound,
            StatusCode::SERVICE_UNAVAILABLE => Failure::Unavailable(told),
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = retry_after.as_ref().and_then(|value| value.to_str().ok());
                let told = match told.starts_with("Request was throttled") {
                    true => String::new(),
                    false => format!(" ({told})"),
                };
                Failure::Throttled { seconds: seconds.unwrap_or("60").to_owned(), told }
            }
            _ => Failure::Refused { status, told },
        }
        .into())
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let cause = error.without_url();
        let whole = causes(&cause);
        let advice = if whole.contains("certificate") {
            "check --pin (`serve` prints it) or --ca"
        } else {
            "check --url and that the server runs"
        };
        Failure::Unreachable { url: self.url.clone(), advice, cause }.into()
    }
}

/// A path with a query behind it.
pub fn with_query(path: &str, query: &[(&str, String)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let pairs = query.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// RFC 3986, section 2: what is not unreserved is escaped, also in a path's segment.
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Seconds after which the server may be asked again.
fn throttled(error: &anyhow::Error) -> Option<u64> {
    match error.downcast_ref()? {
        Failure::Throttled { seconds, .. } => Some(seconds.parse().unwrap_or(60).max(1)),
        _ => None,
    }
}

fn is_running(failure: &Failure) -> bool {
    matches!(failure, Failure::Conflict(told) if told.starts_with("A request with this key is running"))
}

fn is_broken(failure: &Failure) -> bool {
    matches!(failure, Failure::Unreachable { cause, .. } if !cause.is_connect())
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
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
                    "detail" | "error" | "non_field_errors" => message,
                    field => format!("{}: {message}", flags::of_field(field)),
                }
            });
            in_flags(&messages.collect::<Vec<_>>().join("; "))
        }
        _ => body.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::json;

    use super::*;
    use crate::cli::scripted::{Scripted, good, throttled};

    #[tokio::test]
    async fn a_list_that_is_longer_than_a_minute_has_requests_is_read_to_its_end() {
        let refused = Arc::new(AtomicBool::new(false));
        let server = Scripted::new(move |path| match path {
            "x/?page=1&page_size=100" => good(&json!({"results": [1], "next": "2"})),
            _ if !refused.swap(true, Ordering::Relaxed) => throttled(),
            _ => good(&json!({"results": [2], "next": null})),
        });
        let server = server.await;
        assert_eq!(server.client.all("x/", &[]).await.unwrap(), [json!(1), json!(2)]);
        assert_eq!(server.asked().len(), 3);
    }

    #[test]
    fn refusals_are_told_on_one_line() {
        assert_eq!(told(r#"{"detail":"Not found."}"#), "Not found.");
        assert_eq!(told(r#"{"a":["x","y"],"b":["z"]}"#), "a: x y; b: z");
        assert_eq!(
            told(r#"{"from_versions":["This list is empty."]}"#),
            "--from-version: This list is empty."
        );
        let firmwareless = r#"{"error":"Nobody: ask with upgrade_all, or name the device."}"#;
        assert_eq!(told(firmwareless), "Nobody: ask with --all, or name the device.");
        assert_eq!(told("<html>"), "<html>");
    }

    #[test]
    fn what_people_type_cannot_leave_its_place_in_a_query() {
        assert_eq!(with_query("x/", &[]), "x/");
        let query = [("tag", "a&b=c".to_owned()), ("name", "Zür ich".to_owned())];
        assert_eq!(with_query("x/", &query), "x/?tag=a%26b%3Dc&name=Z%C3%BCr%20ich");
    }
}
