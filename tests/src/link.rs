//! The way from one router to the coordinator: a relay on an address of its own that can be cut,
//! and that counts.
//!
//! Every router has an own loopback address (127.0.1.n) and sees the coordinator there, on the
//! coordinator's own port numbers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Keeps counting and never fires.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    up: watch::Sender<bool>,
    /// Bytes towards the router.
    down: AtomicU64,
    /// The link is cut once so many bytes went to the router.
    cut_at: AtomicU64,
}

/// A relay; it ends with this value.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Relays each of `ports` on `address` to the same port on 127.0.0.1.
    ///
    /// # Errors
    /// A port is taken on this address.
    pub async fn open(address: IpAddr, ports: &[u16]) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            up: watch::Sender::new(true),
            down: AtomicU64::new(0),
            cut_at: AtomicU64::new(NEVER),
        });
        let mut tasks = JoinSet::new();
        for port in ports {
            let listener = TcpListener::bind(SocketAddr::new(address, *port)).await?;
            let target = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), *port);
            tasks.spawn(accept(listener, target, shared.clone()));
        }
        Ok(Self { shared, _tasks: tasks })
    }

    /// Ends every connection and takes no new one.
    pub fn cut(&self) {
        self.shared.up.send_replace(false);
    }

    pub fn restore(&self) {
        // To what is up, any change is a cut.
        self.shared.up.send_if_modified(|up| !std::mem::replace(up, true));
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.shared.up.borrow()
    }

    /// Cuts by itself after `bytes` more towards the router.
    pub fn cut_after(&self, bytes: u64) {
        let now = self.shared.down.load(Ordering::Relaxed);
        self.shared.cut_at.store(now + bytes, Ordering::Relaxed);
    }

    /// Bytes that went towards the router so far, TLS and MQTT included.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let up = shared.up.subscribe();
                if let Ok((router, _)) = accepted && *up.borrow() {
                    connections.spawn(relay(router, target, shared.clone(), up));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// `up` is subscribed while the link is up, so any change is a cut, even if it is up again by now.
async fn relay(
    router: TcpStream,
    target: SocketAddr,
    shared: Arc<Shared>,
    mut up: watch::Receiver<bool>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_router, to_router) = router.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_router, to_server, None) => {}
        () = pump(from_server, to_router, Some(&shared)) => {}
        _ = up.changed() => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counted: Option<&Shared>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if let Some(shared) = counted {
            let before = shared.down.fetch_add(count as u64, Ordering::Relaxed);
            if before + count as u64 >= shared.cut_at.load(Ordering::Relaxed) {
                shared.cut_at.store(NEVER, Ordering::Relaxed);
                shared.up.send_replace(false);
                return;
            }
        }
    }
}
