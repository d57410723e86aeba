//! A coordinator that speaks only some cipher suites: a relay with the coordinator's own key ends TLS before it
//! and carries on behind. So an agent can be held to a suite that it would not have chosen.

use crate::coordinator::{self, Coordinator};
use anyhow::Context;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What the bytes are encrypted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    ChaCha20,
    Aes,
}

impl Suite {
    pub const ALL: [Self; 2] = [Self::ChaCha20, Self::Aes];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChaCha20 => "ChaCha20-Poly1305",
            Self::Aes => "AES-128-GCM",
        }
    }

    fn tls_name(self) -> &'static str {
        match self {
            Self::ChaCha20 => "TLS13_CHACHA20_POLY1305_SHA256",
            Self::Aes => "TLS13_AES_128_GCM_SHA256",
        }
    }
}

/// A relay; it ends with this value.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Relays a free port of 127.0.0.1 to the coordinator's HTTPS.
    ///
    /// # Errors
    /// The coordinator's key cannot be read, or no port be had.
    pub async fn start(coordinator: &Coordinator, suite: Suite) -> anyhow::Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(server(coordinator, suite)?));
        let mut client = coordinator::tls(&coordinator.bootstrap.pin)?.config();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(client));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (address, target) = (listener.local_addr()?, coordinator.https);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((agent, _)) = accepted {
                        let (acceptor, connector) = (acceptor.clone(), connector.clone());
                        connections.spawn(async move {
                            // Whoever is cut off tries again.
                            let _ = carry(agent, target, acceptor, connector).await;
                        });
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

async fn carry(
    agent: TcpStream,
    target: SocketAddr,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
) -> std::io::Result<()> {
    let mut agent = acceptor.accept(agent).await?;
    let server = TcpStream::connect(target).await?;
    let mut server = connector.connect(ServerName::from(target.ip()), server).await?;
    copy_bidirectional(&mut agent, &mut server).await.map(|_| ())
}

fn server(coordinator: &Coordinator, suite: Suite) -> anyhow::Result<ServerConfig> {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|known| known.suite().as_str() == Some(suite.tls_name()));
    anyhow::ensure!(provider.cipher_suites.len() == 1, "no suite {}", suite.tls_name());
    let folder = coordinator.data.join("tls");
    let chain = CertificateDer::pem_file_iter(folder.join("certificate.pem"))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().context("the coordinator's certificate")?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).context("its key")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
