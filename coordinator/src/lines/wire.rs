//! One connection's bytes: packets in, packets out, with small buffers that shrink again and a
//! limit on how long a peer may take what is written to it.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::codec::{self, Incoming, Taken};
use super::reason::Reason;

/// What an idle line's buffer holds, and the step by which it grows: a peer that promises 64 KiB
/// gets room only as it delivers.
const STEP: usize = 512;
const LARGEST_STEP: usize = 8 * 1024;
/// Output beyond this is sent before more is made.
pub(super) const FULL: usize = 16 * 1024;

pub(super) struct Wire<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    /// Largest packet taken, beside its fixed header.
    limit: usize,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, limit: usize, patience: Duration) -> Self {
        Wire { stream, input: BytesMut::new(), output: BytesMut::new(), limit, patience }
    }

    /// From now on, packets up to `limit` are taken.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The next packet. Safe to cancel.
    pub(super) async fn packet(&mut self) -> Result<Incoming, Reason> {
        loop {
            let missing = match codec::take(&mut self.input, self.limit)? {
                Taken::Packet(packet) => {
                    self.shrink();
                    return Ok(packet);
                }
                Taken::Missing(missing) => missing,
            };
            self.input.reserve(missing.clamp(STEP, LARGEST_STEP));
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Err(Reason::Lost),
                Ok(_) => {}
            }
        }
    }

    /// Where packets to send are appended; [`Wire::flush`] sends them.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Sends what was appended. Not safe to cancel.
    pub(super) async fn flush(&mut self) -> Result<(), Reason> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let sending = async {
            self.stream.write_all(&output).await?;
            self.stream.flush().await
        };
        match timeout(self.patience, sending).await {
            Err(_) => Err(Reason::Stalled),
            Ok(Err(_)) => Err(Reason::Lost),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// Says goodbye as far as the peer still listens.
    pub(super) async fn close(mut self) {
        let patience = self.patience.min(Duration::from_secs(1));
        let closing = async {
            self.flush().await?;
            self.stream.shutdown().await.map_err(|_| Reason::Lost)
        };
        // The line is over either way.
        let _ = timeout(patience, closing).await;
    }

    fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn packets_survive_any_cut_and_leave_no_buffer_behind() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut wire = Wire::new(near, 1024, PATIENCE);
        let writing = tokio::spawn(async move {
            for byte in b"\x30\x04\x00\x01tx\xc0\x00".repeat(3) {
                far.write_all(&[byte]).await.unwrap();
            }
            far
        });
        for _ in 0..3 {
            assert!(matches!(wire.packet().await, Ok(Incoming::Publish(_))));
            assert_eq!(wire.packet().await, Ok(Incoming::Ping));
        }
        assert_eq!(wire.input.capacity(), 0);
        drop(writing.await.unwrap());
        assert_eq!(wire.packet().await, Err(Reason::Lost));
    }

    #[tokio::test]
    async fn a_promise_of_much_reserves_little() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut wire = Wire::new(near, 60_000, PATIENCE);
        far.write_all(b"\x30\xe0\xd4\x03").await.unwrap();
        assert!(timeout(PATIENCE, wire.packet()).await.is_err());
        assert!(wire.input.capacity() <= 2 * LARGEST_STEP, "{}", wire.input.capacity());
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_stalled() {
        let (near, _far) = tokio::io::duplex(8);
        let mut wire = Wire::new(near, 1024, PATIENCE);
        codec::put_publish(wire.output(), "t", &[0; 100], false);
        assert_eq!(wire.flush().await, Err(Reason::Stalled));
    }
}
