//! Following the server's live events, across broken connections.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::bail;
use reqwest::{Method, Response};
use serde_json::Value;

use super::client::Client;

/// A state is at most 64 KiB; its frame a little more.
const LARGEST_FRAME: usize = 256 << 10;
const PAUSE: Duration = Duration::from_secs(2);
/// Failures in a row before we give up: about a minute.
const PATIENCE: u32 = 30;

/// A watched stream of states.
pub struct Watch {
    client: Client,
    path: String,
    /// The event's name: `operation` or `batch`. Others are not for us.
    subject: &'static str,
    last_id: Option<String>,
    response: Option<Response>,
    parser: Parser,
    states: VecDeque<Value>,
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
            parser: Parser::default(),
            states: VecDeque::new(),
        };
        watch.response = Some(watch.connect().await?);
        Ok(watch)
    }

    /// The next state.
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        let mut failures = 0;
        loop {
            if let Some(state) = self.states.pop_front() {
                return Ok(state);
            }
            match self.read().await {
                Ok(true) => failures = 0,
                Err(error) if failures >= PATIENCE => return Err(error),
                Ok(false) | Err(_) => {
                    failures += 1;
                    self.response = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Reads a piece; false at the stream's end.
    async fn read(&mut self) -> anyhow::Result<bool> {
        let response = match &mut self.response {
            Some(response) => response,
            None => {
                self.parser = Parser::default();
                let response = self.connect().await?;
                self.response.insert(response)
            }
        };
        let Some(chunk) = response.chunk().await? else { return Ok(false) };
        for frame in self.parser.feed(&chunk)? {
            self.last_id = frame.id.or(self.last_id.take());
            if frame.event == self.subject {
                self.states.push_back(serde_json::from_str(&frame.data)?);
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
