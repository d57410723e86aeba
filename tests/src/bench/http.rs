//! Keep-alive requests over TLS, the same bytes again and again: as many as one connection can have
//! answered, one at a time.

use super::line::open_tls;
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use rustls::ClientConfig;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// The longest answer that is still sensible here.
const LONGEST: usize = 1 << 20;

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub requests: f64,
    pub seconds: f64,
    /// Bytes of the last answer's body.
    pub size: usize,
}

/// Has `users` connections ask for `path` until `time` is over.
///
/// # Errors
/// An answer that is not 200, or none.
pub async fn ask_for(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    path: &str,
    token: &str,
    users: usize,
    time: Duration,
) -> anyhow::Result<Answered> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    let streams = try_join_all((0..users).map(|_| open_tls(address, tls))).await?;
    let started = Instant::now();
    let users = streams.into_iter().map(|stream| {
        let request = request.clone().into_bytes();
        tokio::spawn(async move { user(stream, &request, started + time).await })
    });
    let mut answered = Answered { requests: 0.0, seconds: 0.0, size: 0 };
    for user in try_join_all(users).await? {
        let (requests, size) = user?;
        answered.requests += f64::from(requests);
        answered.size = size;
    }
    answered.seconds = started.elapsed().as_secs_f64();
    Ok(answered)
}

async fn user(
    mut stream: TlsStream<TcpStream>,
    request: &[u8],
    end: Instant,
) -> anyhow::Result<(u32, usize)> {
    let (mut count, mut size) = (0, 0);
    let mut buffer = Vec::new();
    while Instant::now() < end {
        stream.write_all(request).await?;
        stream.flush().await?;
        size = answer(&mut stream, &mut buffer).await?;
        count += 1;
    }
    Ok((count, size))
}

/// Reads one whole answer and returns the size of its body.
async fn answer(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>) -> anyhow::Result<usize> {
    buffer.clear();
    let mut whole = None;
    while whole.is_none_or(|(head, body)| buffer.len() < head + body) {
        ensure!(stream.read_buf(buffer).await? > 0, "the coordinator ended the connection");
        ensure!(buffer.len() < LONGEST, "the answer does not end");
        if whole.is_none() {
            whole = head(buffer, "200")?;
        }
    }
    Ok(whole.map_or(0, |(_, body)| body))
}

/// Length of head and body, once the head is whole and has this status.
pub(super) fn head(bytes: &[u8], status: &str) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?;
    let said = head.strip_prefix("HTTP/1.1 ").unwrap_or_default();
    ensure!(said.starts_with(status), "{head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    Ok(Some((end + 4, length.context("an answer without a length")?.parse()?)))
}

#[cfg(test)]
mod tests {
    use super::head;

    #[test]
    fn a_head_tells_where_the_answer_ends() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nx: y\r\n\r\n{}";
        assert_eq!(head(answer, "200").unwrap(), Some((answer.len() - 2, 12)));
        assert_eq!(head(&answer[..20], "200").unwrap(), None);
        assert!(head(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "200").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n", "200").is_err());
    }
}
