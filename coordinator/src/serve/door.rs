//! The door of the HTTPS server: how many connections there may be, all together and of one peer.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::crowd::{Crowd, Place};

/// Connections at one time, from TLS to the end.
const ALL: usize = 4096;
/// Those of one peer: a site's routers behind one address fetch firmware at the same time.
const OF_ONE_PEER: usize = 256;

/// Lets connections in as long as there is room; the rest is closed at once.
#[derive(Debug, Clone)]
pub(super) struct Door(Arc<Crowd>);

impl Default for Door {
    fn default() -> Self {
        Door(Crowd::new(ALL, OF_ONE_PEER))
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
        self.0.is_dense()
    }

    fn admit(&self, stream: TcpStream) -> io::Result<Guest> {
        let peer = stream.peer_addr()?;
        let place = self.0.enter(peer.ip()).ok_or(io::ErrorKind::QuotaExceeded)?;
        stream.set_nodelay(true)?;
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
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_peer_has_its_places_and_gets_them_back() {
        let door = Door(Crowd::new(9, 2));
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
}
