//! Following the server's live events, across broken connections.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::bail;
use reqwest::{Method, Response};
use serde_json::Value;

use super::client::Client;
use super::failure::Failure;

/// A state is at most 64 KiB; its frame a little more.
const LARGEST_FRAME: usize = 256 << 10;
/// Between two tries to reach the server.
const PAUSE: Duration = Duration::from_secs(2);
/// Before the first: a stream that ends at once must not be asked for again and again.
const BREATH: Duration = Duration::from_millis(100);
/// Tries before we give up: about five minutes.
const PATIENCE: u32 = 150;

/// A watched stream of states.
pub struct Watch {
    client: Client,
    path: String,
    /// The event's name: `operation` or `batch`. Others are not for us.
    subject: &'static str,
    last_id: Option<String>,
    response: Option<Response>,
    /// Tries in a row that did not reach the server.
    failures: u32,
    parser: Parser,
    heard: VecDeque<Heard>,
}

/// What comes of listening.
pub enum Heard {
    State(Value),
    /// The server is not reached any more, and is tried again and again.
    Lost(String),
    /// It is reached again: what there is to know comes next.
    Back,
    /// Something may have ended without a word.
    Gap,
}

impl Heard {
    /// The state, or what is to be said of the way to the server.
    pub fn state(self) -> Result<Value, String> {
        match self {
            Self::State(state) => Ok(state),
            Self::Lost(why) => Err(format!("the server is lost, trying again: {why}")),
            Self::Back => Err("the server is back".to_owned()),
            Self::Gap => {
                Err("some changes were missed: list anew to see what has ended".to_owned())
            }
        }
    }
}

impl Watch {
    pub async fn start(
        client: &Client,
        path: String,
        subject: &'static str,
    ) -> anyhow::Result<Self> {
        let mut watch = Self {
            client: client.clone(),
            path,
            subject,
            last_id: None,
            response: None,
            failures: 0,
            parser: Parser::default(),
            heard: VecDeque::new(),
        };
        watch.response = Some(watch.connect().await?);
        Ok(watch)
    }

    /// The next state, or how the way to the server is.
    ///
    /// # Errors
    /// The server is not reached for minutes, or does not let us listen any more.
    pub async fn next(&mut self) -> anyhow::Result<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            if self.response.is_none()
                && let Some(heard) = self.reach().await?
            {
                return Ok(heard);
            }
            if !self.read().await.unwrap_or(false) {
                self.response = None;
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    /// Tries to be connected again.
    async fn reach(&mut self) -> anyhow::Result<Option<Heard>> {
        loop {
            match self.connect().await {
                Ok(response) => {
                    self.response = Some(response);
                    self.parser = Parser::default();
                    let were_lost = std::mem::take(&mut self.failures) > 0;
                    return Ok(were_lost.then_some(Heard::Back));
                }
                Err(error) if self.failures >= PATIENCE || !may_pass(&error) => return Err(error),
                Err(error) => {
                    self.failures += 1;
                    if self.failures == 1 {
                        return Ok(Some(Heard::Lost(format!("{error:#}"))));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads a piece; false at the stream's end.
    async fn read(&mut self) -> anyhow::Result<bool> {
        let Some(response) = &mut self.response else { return Ok(true) };
        let Some(chunk) = response.chunk().await? else { return Ok(false) };
        for frame in self.parser.feed(&chunk)? {
            self.last_id = frame.id.or(self.last_id.take());
            if frame.event == self.subject {
                self.heard.push_back(Heard::State(serde_json::from_str(&frame.data)?));
            } else if frame.event == "gap" {
                self.heard.push_back(Heard::Gap);
            }
        }
        Ok(true)
    }

    async fn connect(&self) -> anyhow::Result<Response> {
        let mut request = self.client.request(Method::GET, &self.path);
        if let Some(id) = &self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        self.client.response(request).await
    }
}

/// Whether another try may go better: a token that has ended stays so.
fn may_pass(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_none_or(Failure::may_pass)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Frame {
    id: Option<String>,
    event: String,
    data: String,
}

/// Server-sent events out of bytes (WHATWG HTML, section 9.2), as far as our server uses them.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    frame: Frame,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.frame.data.len() > LARGEST_FRAME {
                    bail!("an event is larger than {LARGEST_FRAME} bytes");
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            frames.extend(self.end_of_line(line.trim_end_matches('\r')));
        }
        Ok(frames)
    }

    fn end_of_line(&mut self, line: &str) -> Option<Frame> {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return (!frame.data.is_empty()).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.frame.id = Some(value.to_owned()),
            "event" => self.frame.event = value.to_owned(),
            "data" => {
                if !self.frame.data.is_empty() {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // Comments keep the connection alive; other fields are not ours.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_any_split() {
        let text =
            b":\n\nevent: operation\r\nid: 7\ndata: {\"a\":\ndata: 1}\n\n:x\n\ndata:y\n\nid: 8\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let pieces = text.chunks(size).map(|piece| parser.feed(piece).unwrap());
            let frames: Vec<Frame> = pieces.flatten().collect();
            let first = Frame {
                id: Some("7".into()),
                event: "operation".into(),
                data: "{\"a\":\n1}".into(),
            };
            let second = Frame { id: None, event: String::new(), data: "y".into() };
            assert_eq!(frames, [first, second], "pieces of {size}");
        }
        assert!(Parser::default().feed(&vec![b'x'; LARGEST_FRAME + 1]).is_err());
    }
}
