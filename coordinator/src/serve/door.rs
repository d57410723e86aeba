//! The door of the HTTPS server: how many connections there may be, all together and of one peer, and how long
//! one that takes nothing of its answer keeps its place.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::crowd::{Crowd, Place};

/// Connections at one time, from TLS to the end.
const ALL: usize = 4096;
/// Those of one peer: a site's routers behind one address fetch firmware at the same time.
const OF_ONE_PEER: usize = 256;

/// A peer that takes nothing for so long, or acknowledges nothing, is gone: a router that fetches at a few kbit/s
/// takes something in this time.
const UNREAD: Duration = Duration::from_secs(180);

/// Lets connections in as long as there is room; the rest is closed at once.
#[derive(Debug, Clone)]
pub(super) struct Door {
    crowd: Arc<Crowd>,
    unread: Duration,
}

impl Default for Door {
    fn default() -> Self {
        Self { crowd: Crowd::new(ALL, OF_ONE_PEER), unread: UNREAD }
    }
}

impl<S> Accept<TcpStream, S> for Door {
    type Stream = Guest;
    type Service = S;
    type Future = Ready<io::Result<(Guest, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.admit(stream).map(|guest| (guest, service)))
    }
}

impl Door {
    /// Whether connections that only wait had better go.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowd.is_dense()
    }

    fn admit(&self, stream: TcpStream) -> io::Result<Guest> {
        let peer = stream.peer_addr()?;
        let place = self.crowd.enter(peer.ip()).ok_or(io::ErrorKind::QuotaExceeded)?;
        stream.set_nodelay(true)?;
        // The kernel counts, also while the peer's window is closed: nothing above it is told of that.
        SockRef::from(&stream).set_tcp_user_timeout(Some(self.unread))?;
        Ok(Guest { stream, _place: place })
    }
}

/// A connection and its place.
#[derive(Debug)]
pub(super) struct Guest {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_peer_has_its_places_and_gets_them_back() {
        let door = Door { crowd: Crowd::new(9, 2), unread: UNREAD };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut clients = Vec::new();
        let mut arrive = async || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            clients.push(client);
            door.admit(listener.accept().await.unwrap().0)
        };
        let (first, second) = (arrive().await.unwrap(), arrive().await.unwrap());
        assert_eq!(arrive().await.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        drop(first);
        let again = arrive().await.unwrap();
        drop((second, again));
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_loses_its_place() {
        let door = Door { crowd: Crowd::new(1, 1), unread: Duration::from_millis(300) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _reads_nothing = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut guest = door.admit(listener.accept().await.unwrap().0).unwrap();
        let refused = loop {
            if let Err(error) = guest.write_all(&[0; 65536]).await {
                break error;
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        drop(guest);
        let _next = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        door.admit(listener.accept().await.unwrap().0).unwrap();
    }
}
