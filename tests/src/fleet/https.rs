//! One HTTPS connection of one device: a request, its answer, and the next, as long as the coordinator
//! keeps it open.

use crate::bench::line::open_tls_from;
use anyhow::{Context, ensure};
use rustls::ClientConfig;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// No answer here is longer.
const LONGEST: usize = 1 << 20;

/// An open connection.
pub struct Https {
    stream: TlsStream<TcpStream>,
    host: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Https {
    /// # Errors
    /// Nobody takes the connection.
    pub async fn open(
        own: Ipv4Addr,
        host: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        Ok(Self { stream: open_tls_from(own, host, tls).await?, host })
    }

    /// # Errors
    /// The connection ends before a whole answer came.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let host = self.host;
        let mut request = format!(
            "{method} /api/v1/agent/{path} HTTP/1.1\r\nHost: {host}\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        let mut bytes = Vec::new();
        loop {
            if let Some((answer, end)) = parse(&bytes)? {
                ensure!(end == bytes.len(), "more than an answer");
                return Ok(answer);
            }
            ensure!(bytes.len() < LONGEST, "the answer does not end");
            ensure!(self.stream.read_buf(&mut bytes).await? > 0, "the connection ended");
        }
    }
}

/// The answer and where it ends, once it is whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Answer, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?;
    let status: u16 = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .context("no answer")?
        .parse()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    // 204 and 304 have no body and say nothing of it.
    let length: usize = length.map_or(Ok(0), str::parse)?;
    let whole = end + 4 + length;
    let body = bytes.get(end + 4..whole).map(<[u8]>::to_vec);
    Ok(body.map(|body| (Answer { status, body }, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_is_there() {
        let bytes = b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\n{}";
        let (answer, end) = parse(bytes).unwrap().unwrap();
        assert_eq!((answer.status, &answer.body[..], end), (409, &b"{}"[..], bytes.len()));
        assert_eq!(parse(&bytes[..bytes.len() - 1]).unwrap(), None);
        let none = b"HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(parse(none).unwrap().unwrap().0.status, 304);
        assert!(parse(b"garbage\r\n\r\n").is_err());
    }
}
