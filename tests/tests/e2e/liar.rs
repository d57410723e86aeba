//! A coordinator's front that lies about the length of images: it has the coordinator's certificate
//! and key, passes every request on, and says what it wants about the body of an image.

use anyhow::Context;
use lab::{coordinator::client, scene::Scene};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// What it says of a body and how much of that it sends: both from the true length.
#[derive(Debug, Clone, Copy)]
pub struct Lie {
    pub announced: fn(usize) -> usize,
    pub sent: fn(usize) -> usize,
    /// Of so many images; of all that follow it tells the truth.
    pub times: u32,
}

/// A running liar; it ends with this value.
pub struct Liar {
    pub port: u16,
    told: Arc<AtomicU32>,
    task: AbortHandle,
}

struct Front {
    lie: Lie,
    told: Arc<AtomicU32>,
    coordinator: String,
    client: reqwest::Client,
    acceptor: TlsAcceptor,
}

impl Liar {
    /// Lies in the name of the scene's coordinator.
    pub async fn start(scene: &Scene, lie: Lie) -> Self {
        let tls = scene.coordinator.data.join("tls");
        let certificate = CertificateDer::from_pem_file(tls.join("certificate.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(tls.join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::new(AtomicU32::new(0));
        let front = Arc::new(Front {
            lie,
            told: Arc::clone(&told),
            coordinator: scene.coordinator.url(),
            client: client(&scene.coordinator.bootstrap.pin).unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        });
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(front.clone().answer(stream));
            }
        });
        Self { port, told, task: task.abort_handle() }
    }

    /// How many lies were told.
    pub fn told(&self) -> u32 {
        self.told.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// One request and its answer; the connection ends with it.
    async fn answer(self: Arc<Self>, stream: TcpStream) -> anyhow::Result<()> {
        let mut stream = BufReader::new(self.acceptor.accept(stream).await?);
        let (method, path, headers) = read_head(&mut stream).await?;
        let mut body = vec![0; length(&headers)];
        stream.read_exact(&mut body).await?;
        let mut request =
            self.client.request(method.parse()?, format!("{}{path}", self.coordinator)).body(body);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", answer.status());
        for (name, value) in answer.headers() {
            if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
                head += &format!("{name}: {}\r\n", value.to_str()?);
            }
        }
        let body = answer.bytes().await?;
        let (announced, sent) = self.lengths(&path, body.len());
        head += &format!("content-length: {announced}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body[..sent]).await?;
        Ok(stream.shutdown().await?)
    }

    fn lengths(&self, path: &str, length: usize) -> (usize, usize) {
        let Lie { announced, sent, times } = self.lie;
        if path.ends_with("/file") && self.told.load(Ordering::Relaxed) < times {
            self.told.fetch_add(1, Ordering::Relaxed);
            (announced(length), sent(length))
        } else {
            (length, length)
        }
    }
}

type Head = (String, String, Vec<(String, String)>);

async fn read_head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> anyhow::Result<Head> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        anyhow::ensure!(stream.read_line(&mut line).await? > 0, "no whole head");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let first = lines.next().context("no request line")?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().context("no method")?, words.next().context("no path")?);
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    Ok((method, path, headers.collect()))
}

fn length(headers: &[(String, String)]) -> usize {
    let found = headers.iter().find(|(name, _)| name == "content-length");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
